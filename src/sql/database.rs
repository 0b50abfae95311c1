//! Statements that PostgreSQL carries out only while nobody else is connected to some database.

use super::{Lexing, lexer::Cursor};

/// The database that the statement needs for itself: that of DROP DATABASE and of ALTER DATABASE …
/// RENAME or SET TABLESPACE, the template of CREATE DATABASE.
#[must_use]
pub fn needs_alone(statement: &[u8], lexing: Lexing) -> Option<String> {
    let at = &mut Cursor::new(statement, lexing);
    let verb = at.one_of(&["drop", "alter", "create"])?;
    if !at.word("database") {
        return None;
    }
    match verb {
        "drop" => {
            at.words(&["if", "exists"]);
            at.name()
        }
        "alter" => {
            let name = at.name()?;
            (at.word("rename") || at.words(&["set", "tablespace"])).then_some(name)
        }
        _ => {
            let _new = at.name()?;
            while !at.done() {
                if at.word("template") {
                    at.operator("=");
                    return at.name().or_else(|| at.string(lexing));
                }
                at.take();
            }
            Some("template1".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_that_others_must_leave_is_told() {
        for (text, database) in [
            ("drop database x", Some("x")),
            (
                "/* a */ DROP DATABASE IF EXISTS \"X y\" WITH (FORCE)",
                Some("X y"),
            ),
            ("alter database X rename to y", Some("x")),
            ("alter database x set tablespace fast", Some("x")),
            ("alter database x set work_mem = '1MB'", None),
            ("alter database x owner to y", None),
            ("create database x", Some("template1")),
            ("create database x with owner y template = z", Some("z")),
            (
                "create database x encoding 'UTF8' template template0;",
                Some("template0"),
            ),
            ("create database x template 'z'", Some("z")),
            ("create table database (a int)", None),
            ("drop table x", None),
            ("select 1", None),
        ] {
            let found = needs_alone(text.as_bytes(), Lexing::default());
            assert_eq!(found.as_deref(), database, "{text}");
        }
    }
}
