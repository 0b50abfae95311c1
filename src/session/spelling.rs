//! How settings are spelled in SQL.

use std::fmt::Write as _;

use super::settings::{ROLE, SESSION_AUTHORIZATION, Value};
use crate::sql::Scope;

/// Settings whose values are lists of names, each of which SET quotes (`GUC_LIST_QUOTE` in
/// `src/backend/utils/misc/guc_tables.c`).
const LISTS_OF_NAMES: [&str; 4] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "temp_tablespaces",
];

/// Writes the statement that sets `name` to this, and its semicolon.
pub(super) fn set(sql: &mut String, name: &str, value: &Value, scope: Scope) {
    let local = scope == Scope::Local;
    let set = if local { "SET LOCAL" } else { "SET" };
    let _infallible = match (name, value) {
        (SESSION_AUTHORIZATION, Value::Sql(value)) => {
            write!(sql, "{set} SESSION AUTHORIZATION {value};")
        }
        (SESSION_AUTHORIZATION, Value::Text(value)) => {
            write!(
                sql,
                "{set} SESSION AUTHORIZATION {};",
                quoted_identifier(value)
            )
        }
        (ROLE, Value::Text(value)) => write!(sql, "{set} ROLE {};", quoted_identifier(value)),
        (_, Value::Sql(value)) => write!(sql, "{set} {} TO {value};", quoted_name(name)),
        (_, Value::Text(value)) => match as_sql(name, value) {
            Some(value) => write!(sql, "{set} {} TO {value};", quoted_name(name)),
            None => write!(
                sql,
                "SELECT pg_catalog.set_config({},{},{local});",
                quoted_literal(name),
                quoted_literal(value)
            ),
        },
    };
}

/// What SET takes behind TO for this text, which `set_config` would take, too; unlike that, SET needs
/// no snapshot, which a standby refuses in a SERIALIZABLE transaction. `None`: SHOW would tell it
/// otherwise.
fn as_sql(name: &str, value: &str) -> Option<String> {
    if !LISTS_OF_NAMES.contains(&name) {
        return Some(quoted_literal(value));
    }
    let mut names = Vec::new();
    let mut rest = value;
    loop {
        let (name, behind) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (name, behind) = quoted_list_item(quoted)?;
                (!is_plain(&name)).then_some((name, behind))?
            }
            None => {
                let (name, behind) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                is_plain(name).then(|| (name.to_owned(), behind))?
            }
        };
        names.push(quoted_literal(&name));
        if behind.is_empty() {
            return Some(names.join(","));
        }
        rest = behind.strip_prefix(", ")?;
    }
}

/// A name that isn't quoted where SHOW lists it.
fn is_plain(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    name.bytes().all(plain) && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// The item of a list that begins behind a quote, and what stands behind it.
fn quoted_list_item(text: &str) -> Option<(String, &str)> {
    let mut item = String::new();
    let mut rest = text;
    loop {
        let (part, behind) = rest.split_once('"')?;
        item.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                item.push('"');
                rest = more;
            }
            None => return Some((item, behind)),
        }
    }
}

/// A setting's name, which may have a dot, as SQL.
pub(super) fn quoted_name(name: &str) -> String {
    name.split('.')
        .map(quoted_identifier)
        .collect::<Vec<_>>()
        .join(".")
}

/// An identifier as SQL.
#[must_use]
pub fn quoted_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string as SQL, whatever `standard_conforming_strings` says.
#[must_use]
pub fn quoted_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names_are_taken_apart_and_other_texts_are_not() {
        for (name, text, sql) in [
            ("search_path", "a", Some("'a'")),
            (
                "search_path",
                r#"public, "$user", "a "" b", c"#,
                Some(r#"'public','$user','a " b','c'"#),
            ),
            ("search_path", r#""""#, Some("''")),
            ("search_path", "", None),
            ("search_path", "a,b", None),
            ("search_path", "a, B", None),
            ("search_path", "a, ", None),
            ("search_path", r#""a""#, None),
            ("search_path", r#""A"#, None),
            ("datestyle", "ISO, DMY", Some("'ISO, DMY'")),
            ("application_name", r"it's \", Some(r"E'it''s \\'")),
            ("application_name", "", Some("''")),
        ] {
            assert_eq!(as_sql(name, text).as_deref(), sql, "{name} {text}");
        }
    }

    #[test]
    fn literals_survive_either_reading_of_backslashes() {
        assert_eq!(quoted_literal("it's"), "'it''s'");
        assert_eq!(quoted_literal(r"a\'b"), r"E'a\\''b'");
    }
}
