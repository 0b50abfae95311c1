//! The questions. An ordinary user may ask them all; what only `pg_monitor` may see comes back as
//! NULL. PostgreSQL 10 and later. Every name is qualified: a `search_path` can't redirect them.

/// Startup options of the monitor's connections: no setting of the role or database gets in the
/// way. (`default_transaction_read_only` is asked for, so it isn't set.)
pub(super) const OPTIONS: &str =
    "-c search_path=pg_catalog -c statement_timeout=0 -c lock_timeout=0 -c jit=off";

/// Asked once per connection: version; may `pg_control_system` be called, and the other two of the
/// control file; is this something whose positions mean something else; may the log's files be listed.
pub(super) const FACTS: &str = "SELECT
    pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
    pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'execute'),
    pg_catalog.has_function_privilege('pg_catalog.pg_control_checkpoint()', 'execute')
        AND pg_catalog.has_function_privilege('pg_catalog.pg_control_recovery()', 'execute'),
    pg_catalog.to_regproc('pg_catalog.aurora_version') IS NOT NULL
        OR EXISTS (SELECT FROM pg_catalog.pg_settings s
            WHERE s.name OPERATOR(pg_catalog.~) '^(alloydb|neon|aurora)[._]'),
    pg_catalog.has_function_privilege('pg_catalog.pg_ls_waldir()', 'execute')";

/// The cluster's system identifier.
pub(super) const SYSTEM: &str = "SELECT system_identifier FROM pg_catalog.pg_control_system()";

/// Role alone, where positions can't be compared.
pub(super) const ROLE: &str = "SELECT pg_catalog.pg_is_in_recovery()";

/// Role and position: in recovery; LSN; everything received is replayed.
///
/// The replay LSN is read before the receive LSN: where they are equal, nothing was being replayed
/// beyond it when the first was read. Only a streaming replica can't read records from elsewhere.
pub(super) const SAMPLE: &str = "SELECT r,
    CASE WHEN r THEN pg_catalog.pg_last_wal_replay_lsn()
        ELSE pg_catalog.pg_current_wal_insert_lsn() END,
    CASE WHEN r THEN pg_catalog.pg_last_wal_receive_lsn() END,
    CASE WHEN r THEN (SELECT w.pid IS NOT NULL FROM pg_catalog.pg_stat_get_wal_receiver() w) END
    FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) s";

/// [`SAMPLE`], and: replay is paused; timeline; a primary's transactions are read-only by the server's
/// own configuration.
///
/// A primary's timeline is in the names of the files it writes. A replica's is the one it streams
/// (for `pg_monitor`), or the newest in its control file, which follows with the next restart point,
/// or, while it streams from nobody, of the history files that it has (PostgreSQL manual, "Timelines").
pub(super) fn probe(version: i32, control_file: bool, files: bool) -> String {
    let paused = if version >= 140_000 {
        "pg_catalog.pg_get_wal_replay_pause_state() <> 'not paused'"
    } else {
        "pg_catalog.pg_is_wal_replay_paused()"
    };
    let control_file = if control_file {
        ", (SELECT c.timeline_id FROM pg_catalog.pg_control_checkpoint() c),
            (SELECT c.min_recovery_end_timeline FROM pg_catalog.pg_control_recovery() c)"
    } else {
        ""
    };
    let files = if files {
        ", (SELECT pg_catalog.max(('x' || pg_catalog.substr(f.name, 1, 8))::bit(32)::pg_catalog.int4)
                FROM pg_catalog.pg_ls_waldir() f
                WHERE f.name OPERATOR(pg_catalog.~) '^[0-9A-F]{8}[.]history$'
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_wal_receiver() w WHERE w.pid IS NOT NULL))"
    } else {
        ""
    };
    let (columns, from) = SAMPLE.split_at(SAMPLE.rfind("FROM").unwrap_or(SAMPLE.len()));
    format!(
        "{columns},
    CASE WHEN r THEN {paused} ELSE false END,
    CASE WHEN r THEN GREATEST(
            (SELECT w.received_tli FROM pg_catalog.pg_stat_get_wal_receiver() w){control_file}{files})
        ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(
            pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::pg_catalog.int4 END,
    CASE WHEN r OR pg_catalog.current_setting('default_transaction_read_only') <> 'on' THEN false
        ELSE EXISTS (SELECT FROM pg_catalog.pg_settings g
            WHERE g.name OPERATOR(pg_catalog.=) 'default_transaction_read_only'
            AND g.source OPERATOR(pg_catalog.~) '^(configuration file|command line)$') END
    {from}"
    )
}

/// A load sees one state of the catalogue.
pub(super) const BEGIN_LOAD: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Which transactions' work is visible: where this is the same, nothing has changed.
pub(super) const SNAPSHOT: &str = "SELECT pg_catalog.txid_current_snapshot()::pg_catalog.text";

/// What sessions of this database begin with, whoever's they are.
pub(super) const DEFAULTS: &str = "SELECT coalesce(pg_catalog.string_agg(
    pg_catalog.concat_ws(' ', s.setdatabase, s.setrole, s.setconfig), '|' ORDER BY s.setdatabase, s.setrole), '')
    FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase OPERATOR(pg_catalog.=) 0
    OR s.setdatabase OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d
        WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())";

/// Changes with whatever a catalogue is made from, and hardly with anything else. A row that is
/// written gets another `xmin`; where rows are written for other reasons, too, their columns count.
pub(super) const FINGERPRINT: &str = "SELECT pg_catalog.count(*)::pg_catalog.text || ' '
    || pg_catalog.sum(pg_catalog.hashtextextended(row, 0))::pg_catalog.text FROM (
    SELECT pg_catalog.concat_ws(' ', 'f', oid, xmin) AS row FROM pg_catalog.pg_proc
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'o', oid, xmin) FROM pg_catalog.pg_operator
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'r', oid, relname, relnamespace, relkind, relpersistence, relrowsecurity)
        FROM pg_catalog.pg_class WHERE relkind NOT IN ('i', 'I', 't') AND relpersistence <> 't'
    UNION ALL SELECT pg_catalog.concat_ws(' ', 't', oid, xmin) FROM pg_catalog.pg_type
        WHERE typtype <> 'c' AND typcategory <> 'A'
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'n', oid, xmin) FROM pg_catalog.pg_namespace
        WHERE nspname OPERATOR(pg_catalog.!~) '^pg_(toast_)?temp_'
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'w', oid, xmin) FROM pg_catalog.pg_rewrite
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'p', oid, xmin) FROM pg_catalog.pg_policy
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'g', oid, tgrelid, tgfoid, tgtype, tgenabled)
        FROM pg_catalog.pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'k', oid, xmin) FROM pg_catalog.pg_constraint
        WHERE contypid <> 0 OR contype IN ('c', 'f')
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'd', oid, xmin) FROM pg_catalog.pg_attrdef
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'a', aggfnoid, xmin) FROM pg_catalog.pg_aggregate
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'c', oid, xmin) FROM pg_catalog.pg_cast
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'm', oid, xmin) FROM pg_catalog.pg_amproc
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'q', rngtypid, xmin) FROM pg_catalog.pg_range
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'i', inhrelid, inhparent) FROM pg_catalog.pg_inherits
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'e', oid, xmin) FROM pg_catalog.pg_extension
    UNION ALL SELECT pg_catalog.concat_ws(' ', 'l', oid, xmin) FROM pg_catalog.pg_language
    UNION ALL SELECT pg_catalog.concat_ws(' ', 's', setdatabase, setrole, setconfig)
        FROM pg_catalog.pg_db_role_setting
    UNION ALL SELECT pg_catalog.current_setting('default_transaction_isolation')
    ) x";
