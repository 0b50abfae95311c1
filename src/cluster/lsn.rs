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

    /// A node that has replayed up to here has replayed everything before `bound`.
    ///
    /// An insert LSN can rest just behind a page header, to which replay doesn't get before the
    /// next record: such a bound counts as the start of its page.
    #[must_use]
    pub fn reached(self, bound: Self) -> bool {
        self >= bound.before_page_header()
    }

    /// The start of the page, when nothing but its header lies between that and here.
    ///
    /// The long header begins a segment, whose size isn't known here. That is no matter: where a
    /// record ends at a page's start, none can end 16 bytes behind a short header, since a record
    /// has at least 24; where none ends there, no node rests there.
    fn before_page_header(self) -> Self {
        match self.0 % PAGE {
            rest @ (SHORT_PAGE_HEADER | LONG_PAGE_HEADER) => Self(self.0 - rest),
            _ => self,
        }
    }
}

/// `XLOG_BLCKSZ`; PostgreSQL can be built with others, where the gap is then not bridged.
const PAGE: u64 = 8192;
/// `SizeOfXLogShortPHD`.
const SHORT_PAGE_HEADER: u64 = 24;
/// `SizeOfXLogLongPHD`, on a segment's first page.
const LONG_PAGE_HEADER: u64 = 40;

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_behind_a_page_header_is_reached_at_the_start_of_the_page() {
        let page = 0x1600_0000 + 3 * PAGE;
        for (at, bound, reached) in [
            (page, page, true),
            (page, page + 24, true),
            (page, page + 40, true),
            (page, page + 32, false),
            (page, page + 48, false),
            (page - 8, page, false),
            (page - 8, page + 24, false),
            (page + 24, page + 24, true),
            (page + 24, page + 40, true),
            (page + 48, page + 40, true),
            (page - 8, page - 8, true),
            (0, 0, true),
        ] {
            assert_eq!(Lsn(at).reached(Lsn(bound)), reached, "{at:x} {bound:x}");
        }
    }

    proptest! {
        #[test]
        fn text_comes_back_as_the_same_position(lsn in any::<u64>()) {
            prop_assert_eq!(Lsn(lsn).to_string().parse(), Ok(Lsn(lsn)));
        }

        #[test]
        fn reaching_is_never_stricter_than_comparing(a in any::<u64>(), b in any::<u64>()) {
            prop_assert!(Lsn(a) < Lsn(b) || Lsn(a).reached(Lsn(b)));
        }
    }
}
