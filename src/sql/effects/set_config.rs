//! `set_config`: the call that stands alone, with literals or bound parameters; and which settings
//! with a prefix a text could set in any other way.

use super::set::{OWN, current_name, literal, name_list};
use crate::sql::{
    Effect, Lexing, Scope, SettingValue,
    catalogue::Catalogue,
    lexer::{Cursor, TokenKind, statements},
};

/// The parameters that a Bind gives: their bytes, and whether these are text.
pub type Bound<'a> = [(bool, Option<&'a [u8]>)];

/// An argument of a call.
enum Argument {
    /// NULL when `None`.
    Literal(Option<String>),
    /// `$1` is the first.
    Parameter(usize),
}

/// `SELECT [pg_catalog.]set_config(name, value, local)` and nothing else.
struct Call {
    name: Argument,
    value: Argument,
    local: Argument,
}

/// The statement is one call whose effect is told by its text and its parameters.
pub(in crate::sql) fn is_told(statement: &[u8], lexing: Lexing) -> bool {
    Call::read(statement, lexing).is_some()
}

/// What such a statement does.
pub(super) fn set_config(statement: &[u8], lexing: Lexing, bound: &Bound<'_>) -> Option<Effect> {
    let call = Call::read(statement, lexing)?;
    let name = call.name.text(bound)??.to_ascii_lowercase();
    let value = call.value.text(bound)?;
    let scope = if call.local.boolean(bound)? {
        Scope::Local
    } else {
        Scope::Session
    };
    if let Some(key) = name.strip_prefix(OWN) {
        return Some(Effect::OwnSet {
            key: key.into(),
            value: value.map(Into::into),
            scope,
        });
    }
    let value = match value {
        None => SettingValue::Default,
        Some(value) => match name.as_str() {
            "search_path" | "temp_tablespaces" => SettingValue::Sql(name_list(&value)?.into()),
            // Lists of file names, with quoting rules of their own.
            name if name.ends_with("_preload_libraries") => return None,
            _ => SettingValue::Sql(literal(&value).into()),
        },
    };
    Some(Effect::Set {
        name: current_name(&name).into(),
        value,
        scope,
    })
}

impl Call {
    fn read(statement: &[u8], lexing: Lexing) -> Option<Self> {
        let mut at = Cursor::new(statement, lexing);
        if !at.word("select") {
            return None;
        }
        let mut function = at.name()?;
        if function == "pg_catalog" && at.punct(TokenKind::Dot) {
            function = at.name()?;
        }
        if function != "set_config" || !at.punct(TokenKind::LeftParen) {
            return None;
        }
        let mut argument = |closed| {
            let value = Argument::read(&mut at, lexing)?;
            at.punct(closed).then_some(value)
        };
        let call = Self {
            name: argument(TokenKind::Comma)?,
            value: argument(TokenKind::Comma)?,
            local: argument(TokenKind::RightParen)?,
        };
        if at.word("as") {
            at.name()?;
        }
        at.done().then_some(call)
    }
}

impl Argument {
    fn read(at: &mut Cursor<'_>, lexing: Lexing) -> Option<Self> {
        if at.at(TokenKind::Param) {
            let number = std::str::from_utf8(at.bytes().get(1..)?).ok()?;
            let number: usize = number.parse().ok()?;
            at.take();
            // A cast of a text to text.
            if at.punct(TokenKind::Cast) && at.one_of(&["text", "varchar", "boolean"]).is_none() {
                return None;
            }
            return Some(Self::Parameter(number.checked_sub(1)?));
        }
        Some(Self::Literal(if at.word("null") {
            None
        } else if let Some(word) = at.one_of(&["true", "false"]) {
            Some(word.to_owned())
        } else {
            Some(at.string(lexing)?)
        }))
    }

    /// `None`: it can't be told; `Some(None)`: NULL.
    fn text(&self, bound: &Bound<'_>) -> Option<Option<String>> {
        match self {
            Self::Literal(text) => Some(text.clone()),
            // A text's binary form is the text.
            Self::Parameter(at) => match bound.get(*at)?.1 {
                None => Some(None),
                Some(bytes) => Some(Some(std::str::from_utf8(bytes).ok()?.to_owned())),
            },
        }
    }

    fn boolean(&self, bound: &Bound<'_>) -> Option<bool> {
        match self {
            Self::Parameter(at) => match bound.get(*at)? {
                (true, Some(text)) => truth(std::str::from_utf8(text).ok()?),
                (false, Some([byte])) => Some(*byte != 0),
                (false, _) | (true, None) => None,
            },
            Self::Literal(text) => truth(text.as_deref()?),
        }
    }
}

/// Spellings that mean one thing only.
fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "on" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "off" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// Settings with a prefix that a text, or code within it, may set in ways that its effects don't
/// tell. PostgreSQL lists no such setting, so each must be asked for by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Untold {
    /// Folded; each once.
    pub names: Vec<Box<str>>,
    /// There may be others: a name is made at run time.
    pub others: bool,
}

/// No more names than this are remembered.
pub const MOST_NAMES: usize = 256;

impl Untold {
    /// Nothing is to be asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.others
    }

    /// Adds what running the statements of `text` may set, which leaves out what they define.
    pub fn see_statements(&mut self, text: &[u8], lexing: Lexing, catalogue: Option<&Catalogue>) {
        let mut sees = |statement: &[u8]| {
            self.see(statement);
            self.others |= catalogue.is_some_and(|known| known.may_set_untold(statement));
        };
        let Some(statements) = statements(text, lexing) else {
            return sees(text);
        };
        for range in statements {
            let statement = text.get(range).unwrap_or_default();
            if !Cursor::new(statement, lexing).at_word("create") {
                sees(statement);
            }
        }
    }

    /// Adds what `text` may set: `SET a.b`, `set_config('a.b', …)`, wherever they stand.
    pub fn see(&mut self, text: &[u8]) {
        let lower = text.to_ascii_lowercase();
        for at in memchr::memmem::find_iter(&lower, b"set") {
            let before = at.checked_sub(1).and_then(|at| lower.get(at));
            if before.is_some_and(|&byte| is_of_name(byte)) {
                continue;
            }
            let rest = lower.get(at..).unwrap_or_default();
            if let Some(behind) = rest.strip_prefix(b"set_config") {
                match argument(behind) {
                    Some(Some(name)) => self.add(name),
                    Some(None) => self.others = true,
                    None => {}
                }
            } else if let Some(behind) = rest.strip_prefix(b"set") {
                let mut behind = spaced(behind);
                for word in [b"session".as_slice(), b"local"] {
                    if let Some(rest) = behind.and_then(|rest| rest.strip_prefix(word)) {
                        behind = spaced(rest);
                    }
                }
                if let Some(rest) = behind {
                    // `EXECUTE 'set ' || name`, `format('set %I …')`; not the SET of an UPDATE.
                    let before = lower.get(..at).unwrap_or_default().trim_ascii_end();
                    let begins = matches!(before.last(), None | Some(b'\'' | b'$' | b';'));
                    self.others |= begins && matches!(rest.first(), Some(b'\'' | b'%' | b'$'));
                    let name = rest.iter().take_while(|b| is_of_name(**b) || **b == b'"');
                    let name: Vec<u8> = name.filter(|b| **b != b'"').copied().collect();
                    self.add(&name);
                }
            }
        }
    }

    /// Adds a name, if it has a prefix.
    pub fn add(&mut self, name: &[u8]) {
        let Ok(name) = std::str::from_utf8(name) else {
            return;
        };
        let has_prefix = name
            .split_once('.')
            .is_some_and(|(prefix, rest)| !prefix.is_empty() && !rest.is_empty());
        if !has_prefix || name.len() > 255 || self.names.iter().any(|known| **known == *name) {
            return;
        }
        if self.names.len() < MOST_NAMES {
            self.names.push(name.into());
        } else {
            self.others = true;
        }
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.') || byte >= 0x80
}

/// What follows white space, of which there must be some.
fn spaced(bytes: &[u8]) -> Option<&[u8]> {
    let trimmed = bytes.trim_ascii_start();
    (trimmed.len() < bytes.len()).then_some(trimmed)
}

/// The first argument of a call, when it is a literal; `Some(None)`: it is something else; `None`:
/// it is no call.
fn argument(behind: &[u8]) -> Option<Option<&[u8]>> {
    let inside = behind.trim_ascii_start().strip_prefix(b"(")?;
    let literal = inside.trim_ascii_start();
    // Within a string quotes are doubled.
    let quotes = literal.iter().take_while(|b| **b == b'\'').count();
    let name = literal.get(quotes..).unwrap_or_default();
    let end = name.iter().position(|b| !is_of_name(*b));
    let (name, behind) = name.split_at(end.unwrap_or(name.len()));
    let closing = behind.iter().take_while(|b| **b == b'\'').count();
    let next = behind.get(closing..).unwrap_or_default().trim_ascii_start();
    let whole = quotes > 0 && closing == quotes && next.first() == Some(&b',');
    Some(whole.then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::effects::effects_bound;

    #[test]
    fn parameters_tell_what_is_set() {
        let set = |name: &str, value: &str, scope| Effect::Set {
            name: name.into(),
            value: SettingValue::Sql(value.into()),
            scope,
        };
        let text = Some(b"it's".as_slice());
        for (sql, bound, expected) in [
            (
                "select set_config('app.a', $1, false)",
                vec![(true, text)],
                Some(set("app.a", "'it''s'", Scope::Session)),
            ),
            (
                "SELECT pg_catalog.set_config($1::text, $2, $3)",
                vec![
                    (false, Some(b"App.B".as_slice())),
                    (false, text),
                    (false, Some(b"\x01".as_slice())),
                ],
                Some(set("app.b", "'it''s'", Scope::Local)),
            ),
            (
                "select set_config($1, 'x', $2)",
                vec![
                    (true, Some(b"a.c".as_slice())),
                    (true, Some(b"f".as_slice())),
                ],
                Some(set("a.c", "'x'", Scope::Session)),
            ),
            ("select set_config('app.a', $1, false)", vec![], None),
            (
                "select set_config($1, $1, false), 1",
                vec![(true, text)],
                None,
            ),
        ] {
            let found = effects_bound(sql.as_bytes(), Lexing::default(), &bound);
            assert_eq!(found.map(|found| found[0].clone()), expected, "{sql}");
        }
    }

    #[test]
    fn what_is_only_defined_sets_nothing() {
        let mut untold = Untold::default();
        let text = b"create function f() returns void as 'set_config(a, b, c)'; set x.y = 1";
        untold.see_statements(text, Lexing::default(), None);
        assert_eq!(
            (untold.names.join(" ").as_str(), untold.others),
            ("x.y", false)
        );
    }

    #[test]
    fn names_are_found_wherever_they_are_set() {
        for (text, names, others) in [
            ("select 1 from a.b", "", false),
            (
                "do $$ begin set App.X = 1; set local app.y to 2; end $$",
                "app.x app.y",
                false,
            ),
            (
                "do 'begin perform set_config(''app.x'', v, false); end'",
                "app.x",
                false,
            ),
            (
                "select set_config ( 'app.z', a, b), set_config('work_mem', a, b)",
                "app.z",
                false,
            ),
            ("select set_config(a, b, c)", "", true),
            ("select set_config('app.' || a, b, c)", "", true),
            ("execute 'set session \"app\".q = ' || v", "app.q", false),
            ("update t set a = 1; reset x.y; offset a.b", "", false),
            ("execute 'set ' || n || ' = 1'", "", true),
            ("execute format('set local %I.b = 1', n)", "", true),
            ("execute $q$ set $q$ || n", "", true),
            ("execute 'update t set ' || n || ' = 1'", "", false),
            ("raise notice 'a was set %', n", "", false),
        ] {
            let mut untold = Untold::default();
            untold.see(text.as_bytes());
            assert_eq!(untold.names.join(" "), names, "{text}");
            assert_eq!(untold.others, others, "{text}");
        }
    }
}
