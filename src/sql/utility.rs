//! Classes of the statements that need neither a syntax tree nor the catalogue: transaction
//! control, session state, DDL and the rest of what isn't a query. Their first words decide.

use super::{
    Access, Class, Effect, Isolation, Kind, Lexing, Tables, Traits, Why,
    effects::{Setting, effect, setting_name},
    lexer::{Cursor, Lexer, Token, TokenKind},
};

/// The class of one statement, if it is one that this module knows: not for queries, INSERT,
/// UPDATE, DELETE, MERGE, COPY, EXPLAIN, DECLARE, nor for what can't be read or the server would
/// refuse.
#[must_use]
pub fn utility(statement: &[u8], lexing: Lexing) -> Option<Class> {
    let mut lexer = Lexer::new(statement, lexing);
    if lexer.any(|token| token.kind == TokenKind::Error) {
        return None;
    }
    let mut at = Cursor::new(statement, lexing);
    let class = if at.done() {
        anywhere(Kind::Empty, Traits::PURE_READ)
    } else if at.at(TokenKind::Word) {
        let first = at.bytes().to_ascii_lowercase();
        at.take();
        session(&first, statement, lexing, &mut at)
            .or_else(|| server(&first, statement, lexing, &at))?
    } else {
        return None;
    };
    Some(Class {
        hint: lexer.hint(),
        ..class
    })
}

/// Some token of a statement, given with its bytes, is what is looked for.
fn any(statement: &[u8], lexing: Lexing, mut found: impl FnMut(Token, &[u8]) -> bool) -> bool {
    Lexer::new(statement, lexing).any(|token| found(token, token.bytes(statement)))
}

/// The unquoted `word` occurs.
fn mentions(statement: &[u8], lexing: Lexing, word: &str) -> bool {
    any(statement, lexing, |token, bytes| {
        token.kind == TokenKind::Word && one_of(bytes, &[word])
    })
}

/// A string holds code that may change the catalogue.
fn changes_catalogue(statement: &[u8], lexing: Lexing) -> bool {
    any(statement, lexing, |token, bytes| {
        let body = bytes.to_ascii_lowercase();
        let contains = |word: &&[u8]| memchr::memmem::find(&body, word).is_some();
        match token.kind {
            TokenKind::String | TokenKind::EscapeString | TokenKind::DollarString => {
                CHANGING.iter().any(contains)
            }
            // Escapes may spell anything.
            TokenKind::UnicodeString => true,
            _ => false,
        }
    })
}

/// What code that changes the catalogue contains.
const CHANGING: [&[u8]; 7] = [
    b"create", b"alter", b"drop", b"grant", b"revoke", b"execute", b"comment",
];

/// Statements about transactions and the session.
fn session(first: &[u8], statement: &[u8], lexing: Lexing, at: &mut Cursor<'_>) -> Option<Class> {
    let prepared = Traits::SQL_PREPARED.with(EFFECTS);
    match first {
        b"begin" | b"start" => match effect(statement, lexing)? {
            Effect::Begin(begin) => Some(anywhere(Kind::Begin(begin), EFFECTS.with(PURE))),
            _ => None,
        },
        b"commit" | b"end" | b"rollback" | b"abort" if at.at_word("prepared") => {
            Some(Class::primary(Why::Write, Traits::NO_TRANSACTION))
        }
        b"commit" | b"end" => match effect(statement, lexing)? {
            Effect::Commit { chain: false } => Some(anywhere(Kind::Commit, EFFECTS)),
            Effect::Commit { chain: true } => Some(anywhere(Kind::Single, EFFECTS)),
            _ => None,
        },
        b"rollback" | b"abort" | b"savepoint" | b"release" => match effect(statement, lexing) {
            Some(Effect::Rollback { chain: false }) => {
                Some(anywhere(Kind::Rollback, EFFECTS.with(PURE)))
            }
            Some(Effect::None) => None,
            Some(_) => Some(anywhere(Kind::Single, EFFECTS.with(PURE))),
            // A savepoint whose name can't be told.
            None => Some(anywhere(Kind::Single, EFFECTS)),
        },
        b"prepare" => Some(match effect(statement, lexing) {
            Some(Effect::Commit { .. }) => Class::primary(Why::Transaction, EFFECTS),
            _ => names(prepared.with(PURE)),
        }),
        b"deallocate" => Some(names(prepared.with(PURE))),
        b"execute" => Some(Class::primary(Why::Session, prepared.with(Traits::OBSERVE))),
        // Only what holds an EXECUTE.
        b"explain" => match effect(statement, lexing) {
            Some(Effect::Execute(_)) => {
                Some(Class::primary(Why::Session, prepared.with(Traits::OBSERVE)))
            }
            _ => None,
        },
        b"set" => set(statement, lexing, at),
        b"reset" => match effect(statement, lexing) {
            Some(Effect::OwnSet { .. }) => Some(anywhere(Kind::Own, EFFECTS.with(PURE))),
            Some(Effect::None) => None,
            Some(_) => Some(anywhere(Kind::Single, EFFECTS.with(PURE))),
            None => Some(anywhere(Kind::Single, EFFECTS.with(Traits::OBSERVE))),
        },
        b"show" => show(at),
        b"discard" => match effect(statement, lexing)? {
            Effect::DiscardAll => {
                let traits = EFFECTS.with(PURE).with(Traits::NO_TRANSACTION);
                Some(anywhere(Kind::Single, traits))
            }
            Effect::DiscardPart | Effect::DiscardSequences => {
                Some(anywhere(Kind::Single, EFFECTS.with(PURE)))
            }
            _ => None,
        },
        b"listen" => Some(Class::primary(Why::Session, EFFECTS.with(PURE))),
        b"unlisten" => Some(Class::primary(Why::Session, EFFECTS.with(PURE))),
        // Cursors live in the connection that has them.
        b"fetch" | b"move" => {
            let calls = any(statement, lexing, |token, _| {
                token.kind == TokenKind::LeftParen
            });
            (!calls).then(|| anywhere(Kind::Single, Traits::NONE))
        }
        b"close" => Some(anywhere(Kind::Single, EFFECTS.with(PURE))),
        _ => None,
    }
}

fn set(statement: &[u8], lexing: Lexing, at: &mut Cursor<'_>) -> Option<Class> {
    let tracked = anywhere(Kind::Single, EFFECTS.with(PURE));
    let on_primary = |why| Class::primary(why, EFFECTS.with(PURE));
    Some(match effect(statement, lexing) {
        // SET … FROM CURRENT, or a name or value that can't be told.
        None => anywhere(Kind::Single, EFFECTS.with(Traits::OBSERVE)),
        Some(Effect::OwnSet { .. }) => anywhere(Kind::Own, EFFECTS.with(PURE)),
        Some(Effect::None) if at.at_word("constraints") => {
            Class::primary(Why::Session, Traits::NONE)
        }
        Some(Effect::None) => return None,
        Some(Effect::SetTransaction(begin)) => {
            at.one_of(&["session", "local"]);
            if at.words(&["transaction", "snapshot"]) {
                // Known to the node that exported it.
                on_primary(Why::Session)
            } else if begin.read_only == Some(false)
                || begin.isolation == Some(Isolation::Serializable)
            {
                on_primary(Why::Transaction)
            } else {
                tracked
            }
        }
        Some(Effect::Set { name, .. })
            if matches!(&*name, "transaction_read_only" | "transaction_isolation") =>
        {
            on_primary(Why::Transaction)
        }
        // Where random() goes on from there.
        Some(Effect::Set { name, .. }) if &*name == "seed" => Class::primary(
            Why::Session,
            EFFECTS.with(Traits::BACKEND_STATE).with(Traits::OBSERVE),
        ),
        Some(_) => tracked,
    })
}

fn show(at: &mut Cursor<'_>) -> Option<Class> {
    let name = match setting_name(at) {
        None => return Some(Class::primary(Why::NodeLocal, PURE)),
        Some(None) => return None,
        Some(Some(Setting::Own(_))) => return Some(anywhere(Kind::Own, EFFECTS.with(PURE))),
        Some(Some(Setting::All)) => return Some(Class::primary(Why::NodeLocal, PURE)),
        Some(Some(Setting::Server(name))) => name,
    };
    Some(match &*name {
        "transaction_read_only" | "default_transaction_read_only" | "in_hot_standby" => {
            Class::primary(Why::Recovery, PURE)
        }
        // The session's own, the database's, or the same in every server that can replicate from
        // the other. All else may be set differently on each node.
        "application_name"
        | "block_size"
        | "bytea_output"
        | "client_encoding"
        | "client_min_messages"
        | "datestyle"
        | "default_transaction_deferrable"
        | "default_transaction_isolation"
        | "extra_float_digits"
        | "idle_in_transaction_session_timeout"
        | "integer_datetimes"
        | "intervalstyle"
        | "is_superuser"
        | "lc_collate"
        | "lc_ctype"
        | "lock_timeout"
        | "max_identifier_length"
        | "role"
        | "search_path"
        | "server_encoding"
        | "session_authorization"
        | "standard_conforming_strings"
        | "statement_timeout"
        | "timezone"
        | "transaction_deferrable"
        | "transaction_isolation" => anywhere(Kind::Single, PURE),
        _ => Class::primary(Why::NodeLocal, PURE),
    })
}

/// Statements that only a primary carries out, or that act on the server.
fn server(first: &[u8], statement: &[u8], lexing: Lexing, at: &Cursor<'_>) -> Option<Class> {
    let when = |condition: bool, traits: Traits| if condition { traits } else { Traits::NONE };
    // Event triggers, defaults, generated columns and materialised views run functions.
    let ddl = Traits::DDL.with(Traits::OBSERVE);
    let concurrently = || mentions(statement, lexing, "concurrently");
    Some(match first {
        b"create" => {
            let mut ahead = at.clone();
            let whole_server = ["database", "tablespace", "subscription"];
            let alone = concurrently() || ahead.one_of(&whole_server).is_some();
            let of_query = is_of_query(at.clone());
            let executes = matches!(effect(statement, lexing), Some(Effect::Execute(_)) | None);
            let traits = ddl
                .with(when(alone, Traits::NO_TRANSACTION))
                .with(when(executes, Traits::SQL_PREPARED.with(EFFECTS)));
            Class::primary(if of_query { Why::Into } else { Why::Ddl }, traits)
        }
        b"alter" if at.at_word("system") => Class::primary(Why::Utility, Traits::NO_TRANSACTION),
        b"alter" | b"drop" => {
            let mut ahead = at.clone();
            let alone = concurrently()
                || match ahead.one_of(&["database", "tablespace", "subscription"]) {
                    Some("database") => {
                        first == b"drop" || mentions(statement, lexing, "tablespace")
                    }
                    Some("tablespace") => first == b"drop",
                    Some(_) => true,
                    None => false,
                };
            let defaults = first == b"alter"
                && at.clone().one_of(&["database", "role", "user"]).is_some()
                && (mentions(statement, lexing, "set") || mentions(statement, lexing, "reset"));
            let traits = ddl
                .with(when(alone, Traits::NO_TRANSACTION))
                .with(when(defaults, Traits::DEFAULTS));
            Class::primary(Why::Ddl, traits)
        }
        b"grant" | b"revoke" | b"comment" | b"security" | b"reassign" | b"import" => {
            Class::primary(Why::Ddl, ddl)
        }
        b"truncate" | b"refresh" => Class::primary(Why::Write, Traits::OBSERVE),
        b"call" => Class::primary(Why::Procedure, Traits::OBSERVE),
        b"do" => {
            let traits =
                Traits::OBSERVE.with(when(changes_catalogue(statement, lexing), Traits::DDL));
            Class::primary(Why::Procedure, traits)
        }
        b"load" => Class::primary(Why::Session, EFFECTS.with(Traits::OBSERVE)),
        b"notify" | b"lock" | b"checkpoint" | b"analyze" | b"analyse" => {
            Class::primary(Why::Utility, Traits::NONE)
        }
        b"vacuum" | b"reindex" | b"cluster" | b"repack" => {
            Class::primary(Why::Utility, Traits::NO_TRANSACTION)
        }
        _ => return None,
    })
}

/// Behind CREATE: TABLE or MATERIALIZED VIEW, and AS outside parentheses.
fn is_of_query(mut at: Cursor<'_>) -> bool {
    while at
        .one_of(&["global", "local", "temp", "temporary", "unlogged"])
        .is_some()
    {}
    if !(at.word("table") || at.words(&["materialized", "view"])) {
        return false;
    }
    while !at.done() && !at.at_word("as") {
        if !at.group() {
            at.take();
        }
    }
    !at.done()
}

fn one_of(bytes: &[u8], words: &[&str]) -> bool {
    words
        .iter()
        .any(|word| bytes.eq_ignore_ascii_case(word.as_bytes()))
}

/// It only names statements.
fn names(traits: Traits) -> Class {
    Class {
        tables: Tables::NONE,
        ..Class::primary(Why::Session, traits)
    }
}

fn anywhere(kind: Kind, traits: Traits) -> Class {
    Class {
        kind,
        access: Access::Anywhere,
        hint: None,
        traits,
        tables: match kind {
            Kind::Empty | Kind::Begin(_) | Kind::Commit | Kind::Rollback | Kind::Own => {
                Tables::NONE
            }
            Kind::Single if traits.has(EFFECTS) => Tables::NONE,
            Kind::Single | Kind::Several => Tables::ALL,
        },
    }
}

const EFFECTS: Traits = Traits::EFFECTS;
const PURE: Traits = Traits::PURE_READ;

#[cfg(test)]
mod tests;
