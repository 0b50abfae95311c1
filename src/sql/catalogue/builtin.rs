//! What PostgreSQL itself and well-known extensions bring along, where `pg_proc`'s marking doesn't
//! tell enough: harmless volatile functions, and functions marked STABLE or IMMUTABLE whose answer
//! differs between nodes or that run SQL given as text.
//!
//! PostgreSQL 14 to 18. An unlisted VOLATILE function is never read-safe, so a newer server's
//! additions fail safe.

use super::flags::Bad;

/// `pg_proc.provolatile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Volatility {
    Immutable,
    Stable,
    Volatile,
}

/// Why a function in `pg_catalog` isn't read-safe; `None` when it is.
pub(super) fn function(name: &str, volatility: Volatility) -> Option<Bad> {
    if RECOVERY.contains(&name) {
        return Some(Bad::RECOVERY);
    }
    if SQL_TEXT.contains(&name) {
        return Some(Bad::FUNCTION);
    }
    if WRITES.contains(&name) {
        return Some(Bad::QUIET_FUNCTION);
    }
    if BACKEND_STATE.contains(&name) {
        return Some(Bad::BACKEND);
    }
    if LOCAL.contains(&name) || name.starts_with("pg_stat_get_") {
        return Some(Bad::LOCAL_FUNCTION);
    }
    if volatility != Volatility::Volatile || HARMLESS.contains(&name) {
        return None;
    }
    if SESSION.contains(&name) {
        return Some(Bad::FUNCTION);
    }
    Some(Bad::QUIET_FUNCTION)
}

/// Why an extension's C function isn't read-safe; `None` when it is.
pub(super) fn extension_function(
    extension: &str,
    name: &str,
    volatility: Volatility,
) -> Option<Bad> {
    if EXTENSION_BACKEND.contains(&name) {
        return Some(Bad::BACKEND);
    }
    let trusted = TRUSTED_EXTENSIONS.contains(&extension);
    if trusted && EXTENSION_HARMLESS.contains(&name) {
        return None;
    }
    if !trusted || volatility == Volatility::Volatile || EXTENSION_UNSAFE.contains(&name) {
        return Some(Bad::FUNCTION);
    }
    None
}

/// One that isn't read-safe, but reads and writes no table, whatever it is given. Not so advisory
/// locks: whoever gets one is to see what was written under it before.
pub(super) fn touches_no_table(name: &str) -> bool {
    ["nextval", "setval", "set_config", "setseed"].contains(&name)
        || LOCAL.contains(&name)
        || RECOVERY.contains(&name)
}

/// A view of `pg_catalog` whose content is the same on every node. Tables of `pg_catalog` are
/// replicated; any other view is taken to show a node's own state.
pub(super) fn replicated_view(name: &str) -> bool {
    REPLICATED_VIEWS.contains(&name)
}

/// Answered by the primary as what it is.
const RECOVERY: &[&str] = &[
    "pg_is_in_recovery",
    "pg_last_wal_receive_lsn",
    "pg_last_wal_replay_lsn",
    "pg_last_xact_replay_timestamp",
    "pg_is_wal_replay_paused",
    "pg_get_wal_replay_pause_state",
];

/// VOLATILE, but without effect and as good on a replica as anywhere.
const HARMLESS: &[&str] = &[
    "random",
    "random_normal",
    "clock_timestamp",
    "timeofday",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "gen_random_uuid",
    "uuidv4",
    "uuidv7",
    "array_shuffle",
    "array_sample",
    "pg_partition_tree",
    "pg_partition_ancestors",
    "bernoulli",
    "system",
];

/// Change nothing, but tell a node's or a session's own state, however they are marked.
const LOCAL: &[&str] = &[
    "current_query",
    "current_setting",
    "currval",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "lastval",
    "pg_available_extension_versions",
    "pg_available_extensions",
    "pg_available_wal_summaries",
    "pg_backend_pid",
    "pg_blocking_pids",
    "pg_collation_actual_version",
    "pg_conf_load_time",
    "pg_config",
    "pg_control_checkpoint",
    "pg_control_init",
    "pg_control_recovery",
    "pg_control_system",
    "pg_current_logfile",
    "pg_current_snapshot",
    "pg_current_wal_flush_lsn",
    "pg_current_wal_insert_lsn",
    "pg_current_wal_lsn",
    "pg_current_xact_id_if_assigned",
    "pg_cursor",
    "pg_database_collation_actual_version",
    "pg_database_size",
    "pg_extension_update_paths",
    "pg_get_aios",
    "pg_get_backend_memory_contexts",
    "pg_get_loaded_modules",
    "pg_get_replication_slots",
    "pg_get_shmem_allocations",
    "pg_get_shmem_allocations_numa",
    "pg_get_wait_events",
    "pg_get_wal_resource_managers",
    "pg_get_wal_summarizer_state",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_indexes_size",
    "pg_is_other_temp_schema",
    "pg_jit_available",
    "pg_last_committed_xact",
    "pg_listening_channels",
    "pg_lock_status",
    "pg_ls_archive_statusdir",
    "pg_ls_dir",
    "pg_ls_logdir",
    "pg_ls_logicalmapdir",
    "pg_ls_logicalsnapdir",
    "pg_ls_replslotdir",
    "pg_ls_summariesdir",
    "pg_ls_tmpdir",
    "pg_ls_waldir",
    "pg_my_temp_schema",
    "pg_notification_queue_usage",
    "pg_numa_available",
    "pg_postmaster_start_time",
    "pg_prepared_statement",
    "pg_prepared_xact",
    "pg_read_binary_file",
    "pg_read_file",
    "pg_relation_size",
    "pg_safe_snapshot_blocking_pids",
    "pg_sequence_last_value",
    "pg_get_sequence_data",
    "pg_show_all_file_settings",
    "pg_show_all_settings",
    "pg_show_replication_origin_status",
    "pg_stat_file",
    "pg_stat_have_stats",
    "pg_table_size",
    "pg_tablespace_databases",
    "pg_tablespace_location",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "pg_wal_summary_contents",
    "pg_xact_commit_timestamp",
    "pg_xact_commit_timestamp_origin",
    "pg_xact_status",
    "txid_current_if_assigned",
    "txid_current_snapshot",
    "txid_status",
];

/// Assign a transaction id, though marked STABLE.
const WRITES: &[&str] = &["pg_current_xact_id", "txid_current"];

/// Run SQL that they get as text, or read any table they are told to.
const SQL_TEXT: &[&str] = &[
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "ts_rewrite",
    "ts_stat",
    // Run the input function of a type given as text.
    "pg_input_error_info",
    "pg_input_is_valid",
];

/// Connections of a backend's own to elsewhere, with somebody's rights.
const EXTENSION_BACKEND: &[&str] = &["dblink_connect", "dblink_connect_u"];

/// What they keep lives in one backend.
const BACKEND_STATE: &[&str] = &[
    "pg_backup_start",
    "pg_backup_stop",
    "pg_start_backup",
    "pg_stop_backup",
    "pg_create_logical_replication_slot",
    "pg_create_physical_replication_slot",
    "pg_copy_logical_replication_slot",
    "pg_copy_physical_replication_slot",
    "pg_replication_origin_session_setup",
    "pg_replication_origin_session_reset",
    "pg_replication_origin_session_is_setup",
    "pg_replication_origin_session_progress",
    "pg_replication_origin_xact_setup",
    "pg_replication_origin_xact_reset",
    "setseed",
];

/// Change session state. Locks that end with the transaction don't.
const SESSION: &[&str] = &[
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_advisory_unlock",
    "pg_advisory_unlock_all",
    "pg_advisory_unlock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "set_config",
];

/// Their C functions are marked as what they are.
const TRUSTED_EXTENSIONS: &[&str] = &[
    "address_standardizer",
    "bloom",
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dict_int",
    "dict_xsyn",
    "earthdistance",
    "fuzzystrmatch",
    "h3",
    "hll",
    "hstore",
    "intagg",
    "intarray",
    "ip4r",
    "isn",
    "ltree",
    "pg_bigm",
    "pg_trgm",
    "pg_uuidv7",
    "pgcrypto",
    "postgis",
    "postgis_raster",
    "postgis_sfcgal",
    "postgis_topology",
    "rum",
    "seg",
    "tablefunc",
    "tdigest",
    "tsm_system_rows",
    "tsm_system_time",
    "unaccent",
    "uuid-ossp",
    "vector",
    "xml2",
];

const EXTENSION_HARMLESS: &[&str] = &[
    "gen_random_bytes",
    "gen_random_uuid",
    "gen_salt",
    "normal_rand",
    "pgp_pub_encrypt",
    "pgp_pub_encrypt_bytea",
    "pgp_sym_encrypt",
    "pgp_sym_encrypt_bytea",
    "system_rows",
    "system_time",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "uuid_generate_v7",
];

/// Marked STABLE or IMMUTABLE, but run SQL given as text or keep something in the session.
const EXTENSION_UNSAFE: &[&str] = &[
    "connectby",
    "crosstab",
    "crosstab2",
    "crosstab3",
    "crosstab4",
    "crosstab_hash",
    "isn_weak",
    "set_limit",
    "xpath_table",
];

const REPLICATED_VIEWS: &[&str] = &[
    "pg_group",
    "pg_indexes",
    "pg_matviews",
    "pg_policies",
    "pg_publication_tables",
    "pg_roles",
    "pg_rules",
    "pg_seclabels",
    "pg_shadow",
    "pg_stats",
    "pg_stats_ext",
    "pg_stats_ext_exprs",
    "pg_tables",
    "pg_timezone_abbrevs",
    "pg_timezone_names",
    "pg_user",
    "pg_user_mappings",
    "pg_views",
];
