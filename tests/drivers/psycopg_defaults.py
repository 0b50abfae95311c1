"""psycopg 3 as people use it. Arguments: URL, a table's name, a mark for read statements."""
import sys

import psycopg

url, table, mark = sys.argv[1:4]

with psycopg.connect(url) as conn:
    with conn.cursor() as cur:
        cur.execute(f"create table {table} (id serial primary key, name text, data bytea)")
        # More than five times: psycopg prepares by itself from then on.
        for i in range(12):
            cur.execute(f"insert into {table} (name, data) values (%s, %s) returning id", (f"n{i}", bytes([0, i])))
            assert cur.fetchone() == (i + 1,)
        cur.executemany(f"insert into {table} (name) values (%s)", [(f"m{i}",) for i in range(50)])
    conn.commit()
    try:
        with conn.transaction():
            conn.execute(f"insert into {table} (name) values ('gone')")
            raise KeyError
    except KeyError:
        pass
    with conn.transaction():
        try:
            with conn.transaction():
                conn.execute("select 1/0")
        except psycopg.errors.DivisionByZero:
            pass
        conn.execute(f"update {table} set name = 'first' where id = 1")
    assert conn.execute(f"select count(*) from {table}").fetchone() == (62,)
    conn.rollback()
    # A server-side cursor, text and binary.
    for binary in (False, True):
        with conn.cursor(name="big", binary=binary) as cur:
            cur.itersize = 7
            cur.execute(f"select id, name, data from {table} order by id")
            assert len(list(cur)) == 62
    conn.commit()
    with conn.cursor() as cur:
        with cur.copy(f"copy {table} (name) from stdin") as copy:
            for i in range(100):
                copy.write_row((f"copied {i}",))
        with cur.copy(f"copy (select name from {table} where name like 'copied%' order by id) to stdout") as copy:
            assert sum(1 for _ in copy.rows()) == 100
    conn.commit()

print("ready", flush=True)
sys.stdin.readline()
with psycopg.connect(url, autocommit=True) as conn:
    for i in range(20):
        row = conn.execute(f"select name from {table} where id = %s /* {mark} */", (1,)).fetchone()
        assert row == ("first",)
    with conn.pipeline() as pipeline:
        cursors = [conn.execute("select %s::int", (i,)) for i in range(50)]
        pipeline.sync()
        bad = conn.execute("select 1/%s::int", (0,))
        try:
            pipeline.sync()
            bad.fetchone()
            raise SystemExit("no error in the pipeline")
        except psycopg.errors.DivisionByZero:
            pass
        assert [cur.fetchone()[0] for cur in cursors] == list(range(50))
    with conn.pipeline():
        with conn.transaction():
            for i in range(10):
                conn.execute(f"insert into {table} (name) values (%s)", (f"p{i}",))
    assert conn.execute(f"select count(*) from {table} where name like 'p%%'").fetchone() == (10,)
    conn.execute(f"listen {table}")
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("select pg_notify(%s, %s)", (table, "hello"))
    for notify in conn.notifies(timeout=20, stop_after=1):
        assert notify.payload == "hello"
        break
    else:
        raise SystemExit("no notification")

with psycopg.connect(url) as conn:
    conn.read_only = True
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    assert conn.execute(f"select count(*) from {table} /* {mark} */").fetchone() == (172,)
    try:
        conn.execute(f"delete from {table}")
        raise SystemExit("a read-only connection wrote")
    except psycopg.errors.ReadOnlySqlTransaction:
        conn.rollback()
    try:
        conn.execute("select * from there_is_no_such_table")
    except psycopg.errors.UndefinedTable as error:
        assert error.diag.sqlstate == "42P01" and error.diag.statement_position == "15"
