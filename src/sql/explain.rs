//! Why a text is what it is, for people: `pgsplit explain` and `EXPLAIN ROUTE`.

use serde::Serialize;

use super::{
    Access, Catalogue, Class, Kind, Lexing, Why,
    classify::{Detail, both, classify, read},
    lexer::statements,
};

/// A text's class, and what decided it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `read`, `write`, `ddl`, `utility`, `procedure`, `session`, `transaction`, `own`, `empty`,
    /// `unknown`.
    pub class: &'static str,
    /// `read` (any node), `primary`, `anywhere` (wherever the session is).
    pub access: &'static str,
    /// Why only the primary may run it: [`Why::name`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// The name that made it so, and what is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Relations that it names, as the server folds them, without their schemas; sorted.
    pub tables: Vec<String>,
    /// Functions that it calls, likewise.
    pub functions: Vec<String>,
    /// How many statements the text has.
    pub statements: usize,
}

/// Classifies `text` as [`classify`] does and tells what decided.
#[must_use]
pub fn explain(text: &[u8], lexing: Lexing, catalogue: Option<&Catalogue>) -> Explanation {
    let whole = classify(text, lexing, catalogue);
    let ranges = statements(text, lexing).unwrap_or_default();
    let mut tables = Vec::new();
    let mut functions = Vec::new();
    let mut detail = None;
    let mut class: Option<Class> = None;
    for range in &ranges {
        let statement = text.get(range.clone()).unwrap_or_default();
        let reading = read(statement, lexing, catalogue, Detail::Names);
        let decides = detail.is_none() && reading.class.access == whole.access;
        class = Some(match class {
            Some(class) => both(class, reading.class),
            None => reading.class,
        });
        let Some(names) = reading.names else { continue };
        let printable = |names: Vec<Vec<u8>>| {
            names
                .into_iter()
                .map(|name| String::from_utf8_lossy(&name).into_owned())
        };
        tables.extend(printable(names.relations));
        functions.extend(printable(names.functions));
        if decides && let Some(name) = names.decided_by {
            let known = catalogue.and_then(|c| c.detail(&name));
            let name = String::from_utf8_lossy(&name);
            detail = Some(match known {
                Some(known) => format!("{name}: {known}"),
                None => name.into_owned(),
            });
        }
    }
    for names in [&mut tables, &mut functions] {
        names.sort_unstable();
        names.dedup();
    }
    let (access, why) = match whole.access {
        Access::Read => ("read", None),
        Access::Primary(why) => ("primary", Some(why.name())),
        Access::Anywhere => ("anywhere", None),
    };
    Explanation {
        class: name(class.map_or(whole.kind, |c| c.kind), whole.access),
        access,
        why,
        detail,
        tables,
        functions,
        statements: ranges.len(),
    }
}

fn name(kind: Kind, access: Access) -> &'static str {
    match kind {
        Kind::Empty => return "empty",
        Kind::Begin(_) | Kind::Commit | Kind::Rollback => return "transaction",
        Kind::Own => return "own",
        Kind::Single | Kind::Several => {}
    }
    match access {
        Access::Read => "read",
        Access::Anywhere => "session",
        Access::Primary(why) => match why {
            Why::Write | Why::Into => "write",
            Why::Ddl => "ddl",
            Why::Utility => "utility",
            Why::Procedure => "procedure",
            Why::Session => "session",
            Why::Transaction => "transaction",
            Why::Unparsable | Why::TooLong => "unknown",
            Why::RowLock
            | Why::Function
            | Why::UnknownFunction
            | Why::View
            | Why::NodeLocal
            | Why::UnknownRelation
            | Why::Recovery
            | Why::Hint
            | Why::NoCatalogue => "read",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{CatalogueBuilder, catalogue::QueryId};

    fn catalogue() -> Catalogue {
        let mut builder = CatalogueBuilder::new();
        builder.row(
            QueryId::Relations,
            &["20000", "users", "r", "p", "false", "f", "false"].map(Some),
        );
        let function = |oid, name, volatility| {
            [
                oid,
                name,
                "u",
                "f",
                volatility,
                "plpythonu",
                "false",
                "false",
            ]
            .map(Some)
        };
        builder.row(QueryId::Functions, &function("20001", "next_user", "v"));
        builder.row(QueryId::Functions, &function("20002", "best_user", "i"));
        builder.finish(1)
    }

    #[test]
    fn the_function_that_decides_is_told() {
        let catalogue = catalogue();
        let told = explain(
            b"select * from users; select next_user() from users u",
            Lexing::default(),
            Some(&catalogue),
        );
        assert_eq!(
            told,
            Explanation {
                class: "read",
                access: "primary",
                why: Some("function"),
                detail: Some("next_user: marked VOLATILE".to_owned()),
                tables: vec!["users".to_owned()],
                functions: vec!["next_user".to_owned()],
                statements: 2,
            }
        );
    }

    #[test]
    fn a_function_whose_source_is_closed_is_not_believed() {
        let catalogue = catalogue();
        let told = explain(b"select best_user()", Lexing::default(), Some(&catalogue));
        assert_eq!(told.why, Some("function"));
        assert_eq!(
            told.detail.as_deref(),
            Some("best_user: its source in plpythonu can't be looked into")
        );
    }

    #[test]
    fn classes_have_names() {
        let catalogue = catalogue();
        for (text, class, access) in [
            ("select 1", "read", "read"),
            ("", "empty", "anywhere"),
            ("begin", "transaction", "anywhere"),
            ("insert into users values (1)", "write", "primary"),
            ("create table x ()", "ddl", "primary"),
            ("listen x", "session", "primary"),
            ("selec 1", "unknown", "primary"),
            ("select 'a", "unknown", "primary"),
        ] {
            let told = explain(text.as_bytes(), Lexing::default(), Some(&catalogue));
            assert_eq!((told.class, told.access), (class, access), "{text}");
        }
    }
}
