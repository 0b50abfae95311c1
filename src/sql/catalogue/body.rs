//! What a user's function does, read from its source text: the names that it could run.

use std::collections::HashSet;

use crate::sql::{
    Lexing,
    classify::{Call, Mark, Named, Sink, Tokens, scan},
    lexer::TokenKind,
};

/// How a source uses a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reference {
    /// Calls it, if a function has that name.
    Call,
    /// `x.name`
    Attribute,
    /// Reads a relation or a type of that name, if there is one.
    Name,
    Operator,
}

/// What a source does.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) references: HashSet<(Reference, Box<[u8]>)>,
    /// Does what can't be told from names: dynamic SQL, settings, writes, or can't be read.
    pub(super) suspicious: Option<&'static str>,
    /// As above, but only what outlives the statement in the session counts.
    pub(super) session: Option<&'static str>,
    /// Writes to relations that it names.
    pub(super) writes: bool,
    /// May read and write what it doesn't name.
    pub(super) untold: bool,
    /// Runs SQL that is made at run time.
    pub(super) dynamic: bool,
}

impl Body {
    /// Reads the source of a function in SQL or PL/pgSQL.
    pub(super) fn read(source: &str) -> Self {
        let mut body = Self::default();
        let Some(tokens) = Tokens::read(source.as_bytes(), Lexing::default()) else {
            body.suspicious = Some("its source can't be read");
            body.session = body.suspicious;
            body.untold = true;
            return body;
        };
        let mut own_settings_only = true;
        for at in 0..tokens.len() {
            body.word(&tokens, at);
            if tokens.name(at) == b"current_setting" && !own_setting(&tokens, at) {
                own_settings_only = false;
            }
        }
        scan(&tokens, 0, &mut body);
        if own_settings_only {
            body.references
                .retain(|(_, name)| **name != *b"current_setting");
        }
        body
    }

    fn word(&mut self, tokens: &Tokens<'_>, at: usize) {
        if ["temp", "temporary"]
            .iter()
            .any(|word| tokens.word(at, word))
        {
            self.session = self.session.or(Some("makes temporary objects"));
        }
        let found = WORDS.iter().find(|(word, _, _)| tokens.word(at, word));
        if let Some(&(word, what, session)) = found
            && (word == "execute" || begins_statement(tokens, at))
        {
            self.suspicious = self.suspicious.or(Some(what));
            self.dynamic |= word == "execute";
            self.writes |= what == WRITES;
            // TRUNCATE may empty other tables, too.
            let told = [WRITES, "locks", "notifies"].contains(&what) && word != "truncate";
            self.untold |= !told;
            if session {
                self.session = self.session.or(Some(what));
            }
        }
    }
}

fn begins_statement(tokens: &Tokens<'_>, at: usize) -> bool {
    let Some(before) = at.checked_sub(1) else {
        return true;
    };
    tokens.is(before, TokenKind::Semicolon)
        || tokens.operator(before) == b">>"
        || ["begin", "then", "else", "loop"]
            .iter()
            .any(|word| tokens.word(before, word))
}

/// `current_setting` at `at` asks for a literal name that is the application's own.
pub(in crate::sql) fn own_setting(tokens: &Tokens<'_>, at: usize) -> bool {
    tokens
        .string_argument(at)
        .is_some_and(|name| is_own_setting(name.as_bytes()))
}

/// A setting with a point in its name belongs to the application and follows its session, unless
/// it is one of a module that servers load.
pub(super) fn is_own_setting(name: &[u8]) -> bool {
    let prefix = name.split(|&b| b == b'.').next().unwrap_or_default();
    let starts = |with: &[u8]| {
        prefix
            .get(..with.len())
            .is_some_and(|p| p.eq_ignore_ascii_case(with))
    };
    prefix.len() < name.len() && !prefix.is_empty() && !SERVER_PREFIXES.iter().any(|p| starts(p))
}

/// Settings of modules that servers load, perhaps differently.
const SERVER_PREFIXES: &[&[u8]] = &[
    b"auto_explain",
    b"citus",
    b"cron",
    b"passwordcheck",
    b"pg_",
    b"pgaudit",
    b"pgsplit",
    b"plpgsql",
    b"timescaledb",
];

const WRITES: &str = "writes";

/// First words of statements that a read-safe function has no use for (EXECUTE anywhere), why,
/// and whether it matters beyond the statement.
const WORDS: &[(&str, &str, bool)] = &[
    ("execute", "runs SQL that is made at run time", true),
    ("insert", WRITES, false),
    ("update", WRITES, false),
    ("delete", WRITES, false),
    ("merge", WRITES, false),
    ("truncate", WRITES, false),
    ("copy", "copies", false),
    ("create", "creates objects", true),
    ("alter", "alters objects", true),
    ("drop", "drops objects", true),
    ("set", "changes settings", true),
    ("reset", "changes settings", true),
    ("discard", "changes settings", true),
    ("call", "calls a procedure", true),
    ("do", "runs a code block", true),
    ("lock", "locks", false),
    ("notify", "notifies", false),
    ("listen", "listens", true),
    ("unlisten", "listens", true),
    ("load", "loads a library", true),
    ("commit", "ends transactions", true),
    ("rollback", "ends transactions", true),
    ("prepare", "prepares statements", true),
    ("refresh", WRITES, false),
    ("import", WRITES, false),
];

impl Sink for Body {
    fn name(&mut self, named: Named<'_>) {
        let name: Box<[u8]> = named.name.into();
        if named.call != Call::No {
            self.references.insert((Reference::Call, name.clone()));
        } else if named.after_point {
            self.references.insert((Reference::Attribute, name.clone()));
        }
        self.references.insert((Reference::Name, name));
    }

    fn operator(&mut self, operator: &[u8], _spelled: bool) {
        self.references
            .insert((Reference::Operator, operator.into()));
    }

    fn mark(&mut self, mark: Mark) {
        match mark {
            Mark::Write => {
                self.suspicious = self.suspicious.or(Some(WRITES));
                self.writes = true;
            }
            Mark::Lock => self.suspicious = self.suspicious.or(Some("locks rows")),
            // PL/pgSQL's way to fill a variable.
            Mark::Into => {}
        }
    }
}
