//! Error codes (PostgreSQL manual, appendix "PostgreSQL Error Codes").

use std::fmt;

/// Five characters, as ErrorResponse's field `C` carries them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub [u8; 5]);

impl SqlState {
    pub const CONNECTION_FAILURE: Self = Self(*b"08006");
    pub const TRANSACTION_RESOLUTION_UNKNOWN: Self = Self(*b"08007");
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    pub const CHARACTER_NOT_IN_REPERTOIRE: Self = Self(*b"22021");
    pub const INVALID_PARAMETER_VALUE: Self = Self(*b"22023");
    pub const READ_ONLY_SQL_TRANSACTION: Self = Self(*b"25006");
    pub const NO_ACTIVE_SQL_TRANSACTION: Self = Self(*b"25P01");
    pub const IN_FAILED_SQL_TRANSACTION: Self = Self(*b"25P02");
    pub const INVALID_SQL_STATEMENT_NAME: Self = Self(*b"26000");
    pub const INVALID_AUTHORIZATION: Self = Self(*b"28000");
    pub const INVALID_PASSWORD: Self = Self(*b"28P01");
    pub const INVALID_CATALOG_NAME: Self = Self(*b"3D000");
    pub const SERIALIZATION_FAILURE: Self = Self(*b"40001");
    pub const DEADLOCK_DETECTED: Self = Self(*b"40P01");
    pub const SYNTAX_ERROR: Self = Self(*b"42601");
    pub const UNDEFINED_OBJECT: Self = Self(*b"42704");
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(*b"42501");
    pub const DUPLICATE_PREPARED_STATEMENT: Self = Self(*b"42P05");
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    pub const CONFIGURATION_LIMIT_EXCEEDED: Self = Self(*b"53400");
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self(*b"54000");
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Self = Self(*b"55000");
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    pub const CANT_CHANGE_RUNTIME_PARAM: Self = Self(*b"55P02");
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");
    pub const CONFIG_FILE_ERROR: Self = Self(*b"F0000");
    pub const INTERNAL_ERROR: Self = Self(*b"XX000");

    /// The code as text; codes are ASCII by the standard, anything else shows as `?????`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("?????")
    }

    /// The first two characters.
    #[must_use]
    pub fn class(self) -> [u8; 2] {
        [self.0[0], self.0[1]]
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlState({})", self.as_str())
    }
}
