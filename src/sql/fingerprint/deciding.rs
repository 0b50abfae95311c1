//! Names because of which literals stay in a fingerprint.

/// Types whose literals are names of functions, operators, relations and the like; functions whose
/// arguments are names of settings; functions that run queries or read relations given as text. In
/// lower case.
pub(super) const NAMES: [&str; 31] = [
    "connectby",
    "crosstab",
    "crosstab2",
    "crosstab3",
    "crosstab4",
    "current_setting",
    "database_to_xml",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "regclass",
    "regcollation",
    "regconfig",
    "regdatabase",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "set_config",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "ts_rewrite",
    "ts_stat",
    "xpath_table",
];

/// The name, in lower case, is one of [`NAMES`].
#[inline(never)]
pub(super) fn is(name: &[u8]) -> bool {
    NAMES.iter().any(|known| known.as_bytes() == name)
}

/// [`is`], perhaps: by the name's length and its first byte (of `first`, the lowest).
#[inline]
pub(super) fn may_be(first: u64, length: usize) -> bool {
    // Letters differ in their low five bits, in either case.
    LETTERS
        .get(length)
        .is_some_and(|letters| letters >> (first & 31) & 1 != 0)
}

/// For each length, the first letters of such names as bits.
static LETTERS: [u32; 32] = letters();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn letters() -> [u32; 32] {
    let mut table = [0; 32];
    let mut i = 0;
    while i < NAMES.len() {
        let name = NAMES[i].as_bytes();
        table[name.len()] |= 1 << (name[0] & 31);
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_look_misses_no_name() {
        for name in NAMES {
            assert!(is(name.as_bytes()));
            assert!(may_be(u64::from(name.as_bytes()[0]), name.len()), "{name}");
        }
        assert!(!is(b"regclas"));
        assert!(!may_be(u64::from(b'a'), 8));
        assert!(!may_be(u64::from(b'r'), 100));
    }
}
