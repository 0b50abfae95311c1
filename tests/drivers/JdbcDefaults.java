// pgjdbc as people use it. Arguments: host:port/database, a table's name, a mark for read statements.

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

public class JdbcDefaults {
    static void check(boolean right, String what) {
        if (!right) throw new AssertionError(what);
    }

    static int count(Connection conn, String sql) throws SQLException {
        try (Statement statement = conn.createStatement(); ResultSet found = statement.executeQuery(sql)) {
            found.next();
            return found.getInt(1);
        }
    }

    public static void main(String[] args) throws Exception {
        String url = "jdbc:postgresql://" + args[0], table = args[1], mark = args[2];
        try (Connection conn = DriverManager.getConnection(url, "app", "app")) {
            try (Statement statement = conn.createStatement()) {
                statement.execute("create table " + table + " (id serial primary key, name text)");
            }
            String insert = "insert into " + table + " (name) values (?)";
            try (PreparedStatement statement = conn.prepareStatement(insert, Statement.RETURN_GENERATED_KEYS)) {
                for (int i = 0; i < 10; i++) {
                    statement.setString(1, "n" + i);
                    statement.executeUpdate();
                    try (ResultSet keys = statement.getGeneratedKeys()) {
                        check(keys.next() && keys.getInt("id") == i + 1, "generated key");
                    }
                }
            }
            try (PreparedStatement statement = conn.prepareStatement(insert)) {
                for (int i = 0; i < 200; i++) {
                    statement.setString(1, "b" + i);
                    statement.addBatch();
                }
                check(statement.executeBatch().length == 200, "batch");
            }
            System.out.println("ready");
            System.in.read();
            // Beyond prepareThreshold (5) the statement gets a name on the server.
            String select = "select name from " + table + " where id = ? /* " + mark + " */";
            try (PreparedStatement statement = conn.prepareStatement(select)) {
                for (int i = 0; i < 20; i++) {
                    statement.setInt(1, 1);
                    try (ResultSet found = statement.executeQuery()) {
                        check(found.next() && found.getString(1).equals("n0"), "select");
                    }
                }
            }
            conn.setAutoCommit(false);
            try (Statement statement = conn.createStatement()) {
                statement.execute("delete from " + table);
                Savepoint savepoint = conn.setSavepoint();
                try {
                    statement.execute("select 1/0");
                    check(false, "no error");
                } catch (SQLException error) {
                    check(error.getSQLState().equals("22012"), error.getSQLState());
                    conn.rollback(savepoint);
                }
                check(count(conn, "select count(*) from " + table) == 0, "deleted");
                conn.rollback();
                // A cursor behind the scenes: portals that are read in pieces.
                statement.setFetchSize(7);
                int rows = 0;
                try (ResultSet found = statement.executeQuery("select * from " + table)) {
                    while (found.next()) rows++;
                }
                check(rows == 210, "rows in pieces: " + rows);
            }
            conn.commit();
            // As @Transactional(readOnly = true) does.
            conn.setReadOnly(true);
            check(count(conn, "select count(*) from " + table + " /* " + mark + " */") == 210, "read only");
            conn.commit();
            try {
                count(conn, "with w as (delete from " + table + " returning 1) select count(*) from w");
                check(false, "a read-only transaction wrote");
            } catch (SQLException error) {
                check(error.getSQLState().equals("25006"), error.getSQLState());
            }
            conn.rollback();
            conn.setReadOnly(false);
            conn.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            count(conn, "select count(*) from " + table);
            conn.commit();
            conn.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
            conn.setAutoCommit(true);
            CopyManager copy = conn.unwrap(PGConnection.class).getCopyAPI();
            check(copy.copyIn("copy " + table + " (name) from stdin", new StringReader("x\ny\n")) == 2, "copy in");
            StringWriter out = new StringWriter();
            copy.copyOut("copy (select name from " + table + " where name = 'x') to stdout", out);
            check(out.toString().equals("x\n"), "copy out");
            try (ResultSet tables = conn.getMetaData().getTables(null, "public", table.toLowerCase(), null)) {
                check(tables.next(), "metadata");
            }
            conn.setSchema("pg_catalog");
            check(conn.getSchema().equals("pg_catalog"), "schema");
            check(count(conn, "select 1") == 1 && conn.isValid(5), "valid");
        }
        // The driver's own way of finding a server that takes writes.
        String primary = url + "?targetServerType=primary";
        try (Connection conn = DriverManager.getConnection(primary, "app", "app")) {
            check(count(conn, "select 1") == 1, "primary");
        }
    }
}
