//! Positions in the write-ahead log.

use std::{fmt, str::FromStr};

/// A position in the write-ahead log, in bytes; printed as PostgreSQL's `pg_lsn` type does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// Text that is not a `pg_lsn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidLsn;

impl Lsn {
    /// Bytes from `earlier` to here; 0 when `earlier` is not earlier.
    #[must_use]
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let half = |part: &str| {
            if part.is_empty() || part.len() > 8 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(InvalidLsn);
            }
            u64::from_str_radix(part, 16).map_err(|_error| InvalidLsn)
        };
        let (high, low) = text.split_once('/').ok_or(InvalidLsn)?;
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

impl fmt::Display for InvalidLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not an LSN: expected two hexadecimal numbers of up to 8 digits, as in 0/16B3748",
        )
    }
}

impl std::error::Error for InvalidLsn {}
