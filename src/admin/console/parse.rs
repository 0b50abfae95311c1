//! From a console text to commands. Pure.
//!
//! Keywords are in any case. A name is a bare word or a quoted identifier. Statements are
//! separated by `;`, except that EXPLAIN ROUTE takes all that follows as the text to explain.

use crate::{
    admin::tables::Show,
    config::settings::MOST_WEIGHT,
    error::{Fault, Visible},
    metrics::inspect::{Action, Shutdown},
    protocol::SqlState,
};

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Show(Show),
    /// SHOW of a PostgreSQL setting, or a SELECT that drivers send on their own: one column, one
    /// value.
    Value(Value),
    ExplainRoute {
        database: Option<String>,
        sql: String,
    },
    Act {
        action: Action,
        tag: &'static str,
    },
    /// What drivers send to any server and what has no meaning here.
    Ignored {
        tag: &'static str,
        block: Block,
    },
}

/// What a command does to the transaction block that the client believes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Keep,
    Begin,
    End,
}

/// A single value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Fixed {
        column: &'static str,
        value: &'static str,
        tag: &'static str,
    },
    Version,
    NotInRecovery,
    CurrentDatabase,
    CurrentUser,
}

/// Settings that clients ask for, as the console's session has them.
pub(super) const PARAMETERS: [(&str, &str); 9] = [
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("standard_conforming_strings", "on"),
    ("integer_datetimes", "on"),
    ("is_superuser", "off"),
    ("in_hot_standby", "off"),
    ("default_transaction_read_only", "off"),
];

/// Longest name of anything, in bytes: names are logged and kept.
const NAME: usize = 256;

/// What the console says it is: drivers read a PostgreSQL version from the front. An old one that
/// all of them still speak, so that none counts on functions that aren't here.
pub(super) const SERVER_VERSION: &str = concat!("10.0 (pgsplit ", env!("CARGO_PKG_VERSION"), ")");

/// Other settings that drivers ask for by SHOW.
const MORE_PARAMETERS: [(&str, &str); 4] = [
    ("server_version", SERVER_VERSION),
    ("transaction_read_only", "off"),
    ("transaction_isolation", "read committed"),
    ("search_path", "public"),
];

/// Settings that drivers and tools send to any server, and the first words of SET TIME ZONE, SET
/// NAMES, SET TRANSACTION and SET SESSION CHARACTERISTICS.
const DRIVERS_SET: [&str; 19] = [
    "application_name",
    "bytea_output",
    "characteristics",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "names",
    "search_path",
    "transaction",
    "standard_conforming_strings",
    "statement_timeout",
    "time",
    "timezone",
];

/// All commands of the text, in order; none of an empty one. All are read before the first runs.
pub(super) fn parse(text: &str) -> Result<Vec<Command>, Visible> {
    let mut commands = Vec::new();
    let mut lexer = Lexer { text, at: 0 };
    loop {
        let start = lexer.at;
        let mut tokens = Vec::new();
        let more = loop {
            match lexer.token()? {
                Some(token) if token.kind == TokenKind::End => break true,
                Some(token) => tokens.push(token),
                None => break false,
            }
            if let [explain, route] = &*tokens
                && explain.is("EXPLAIN")
                && route.is("ROUTE")
            {
                commands.push(explain_route(&lexer)?);
                return Ok(commands);
            }
        };
        if !tokens.is_empty() {
            let shown = text.get(start..lexer.at).unwrap_or_default();
            commands.push(command(
                &tokens,
                shown.trim_matches([' ', '\n', '\t', ';']),
            )?);
        }
        if !more {
            return Ok(commands);
        }
    }
}

/// A word, a quoted identifier, a string, a semicolon, or one other character.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    kind: TokenKind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenKind {
    Word,
    Quoted,
    Literal,
    /// `;`
    End,
    Other,
}

impl Token {
    fn is(&self, keyword: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    fn name(&self) -> Option<&str> {
        matches!(self.kind, TokenKind::Word | TokenKind::Quoted).then_some(&*self.text)
    }
}

/// Reads tokens from `at` on.
#[derive(Clone)]
struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    /// The next token, behind white space and comments.
    fn token(&mut self) -> Result<Option<Token>, Visible> {
        loop {
            let Some(c) = self.next() else {
                return Ok(None);
            };
            let (kind, text) = match c {
                c if c.is_whitespace() => continue,
                '-' if self.eat('-') => {
                    while self.next().is_some_and(|c| c != '\n') {}
                    continue;
                }
                '/' if self.eat('*') => {
                    self.comment()?;
                    continue;
                }
                ';' => (TokenKind::End, String::from(c)),
                '"' => (TokenKind::Quoted, self.quoted(c)?),
                '\'' => (TokenKind::Literal, self.quoted(c)?),
                c if is_word(c) => {
                    let mut word = String::from(c);
                    while let Some(c) = self.peek().filter(|c| is_word(*c) || *c == '-') {
                        word.push(c);
                        self.next();
                    }
                    (TokenKind::Word, word)
                }
                c => (TokenKind::Other, String::from(c)),
            };
            if text.len() > NAME && kind != TokenKind::Literal {
                return Err(syntax("name too long"));
            }
            return Ok(Some(Token { kind, text }));
        }
    }

    /// To the end of a comment that has begun; comments nest.
    fn comment(&mut self) -> Result<(), Visible> {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.next() {
                Some('*') if self.eat('/') => depth -= 1,
                Some('/') if self.eat('*') => depth += 1,
                Some(_other) => {}
                None => return Err(syntax("unterminated comment")),
            }
        }
        Ok(())
    }

    /// To the end of a quotation that has begun; the quote is doubled inside.
    fn quoted(&mut self, quote: char) -> Result<String, Visible> {
        let mut text = String::new();
        loop {
            match self.next() {
                Some(c) if c != quote => text.push(c),
                Some(_quote) if self.eat(quote) => text.push(quote),
                Some(_quote) => return Ok(text),
                None => return Err(syntax("unterminated quoted string")),
            }
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.')
}

/// `[FOR database] text` behind EXPLAIN ROUTE. The text is not read here: it is SQL.
fn explain_route(lexer: &Lexer<'_>) -> Result<Command, Visible> {
    let mut ahead = lexer.clone();
    let mut database = None;
    let mut sql_at = lexer.at;
    if let Ok(Some(keyword)) = ahead.token()
        && keyword.is("FOR")
    {
        let name = ahead.token()?;
        let name = name.as_ref().and_then(Token::name);
        let name = name.ok_or_else(|| syntax("EXPLAIN ROUTE FOR needs the name of a database"))?;
        database = Some(name.to_owned());
        sql_at = ahead.at;
    }
    let sql = lexer.text.get(sql_at..).unwrap_or_default();
    let sql = sql.trim().trim_end_matches(';').trim_end();
    if sql.is_empty() {
        return Err(syntax("EXPLAIN ROUTE needs a statement"));
    }
    Ok(Command::ExplainRoute {
        database,
        sql: sql.to_owned(),
    })
}

fn command(tokens: &[Token], shown: &str) -> Result<Command, Visible> {
    let invalid = || {
        let shown: String = shown.chars().take(100).collect();
        syntax(format!("invalid command '{shown}', use SHOW HELP;"))
            .hint(format!("SHOW takes {}.", show_names()))
    };
    let Some((first, rest)) = tokens.split_first() else {
        return Err(invalid());
    };
    let act = |action, tag| Ok(Command::Act { action, tag });
    let ignored = |tag| {
        Ok(Command::Ignored {
            tag,
            block: Block::Keep,
        })
    };
    // The optional database of PAUSE and the like.
    let database = || match rest {
        [] => Ok(None),
        [name] => name
            .name()
            .map(|name| Some(name.to_owned()))
            .ok_or_else(invalid),
        _ => Err(invalid()),
    };
    let keyword = match first.kind {
        TokenKind::Word => first.text.to_ascii_uppercase(),
        TokenKind::Quoted | TokenKind::Literal | TokenKind::End | TokenKind::Other => {
            return Err(invalid());
        }
    };
    match &*keyword {
        "SHOW" => show(rest).ok_or_else(invalid),
        "SELECT" => select(rest).ok_or_else(invalid),
        "PAUSE" => act(Action::Pause(database()?), "PAUSE"),
        "RESUME" => act(Action::Resume(database()?), "RESUME"),
        "WAIT_CLOSE" => act(Action::WaitClose(database()?), "WAIT_CLOSE"),
        "SUSPEND" => Err(Visible::error(
            Fault::Client,
            SqlState::FEATURE_NOT_SUPPORTED,
            "SUSPEND is not supported",
        )
        .hint("PAUSE closes the server connections and holds requests; clients stay connected.")),
        "RECONNECT" => act(Action::Reconnect(database()?), "RECONNECT"),
        "RELOAD" if rest.is_empty() => act(Action::Reload, "RELOAD"),
        "ENABLE" | "DISABLE" => {
            let enabled = keyword == "ENABLE";
            let tag = if enabled { "ENABLE" } else { "DISABLE" };
            match rest {
                [node, name] if node.is("NODE") => {
                    let name = name.name().ok_or_else(invalid)?.to_owned();
                    act(Action::SetNode { name, enabled }, tag)
                }
                [_database] => Err(syntax(format!("{tag} needs NODE and the name of a node"))
                    .hint("PAUSE and RESUME take the name of a database.")),
                _ => Err(invalid()),
            }
        }
        "SWITCHOVER" => match rest {
            [to, name] if to.is("TO") => {
                let name = name.name().ok_or_else(invalid)?.to_owned();
                act(Action::Switchover(name), "SWITCHOVER")
            }
            _ => Err(syntax("SWITCHOVER needs TO and the name of a node")),
        },
        "FAILOVER" => {
            let (rest, forced) = match rest {
                [rest @ .., last] if last.is("FORCE") => (rest, true),
                rest => (rest, false),
            };
            let to = match rest {
                [] => None,
                [to, name] if to.is("TO") => Some(name.name().ok_or_else(invalid)?.to_owned()),
                _ => {
                    return Err(syntax(
                        "FAILOVER takes TO and the name of a node, and FORCE",
                    ));
                }
            };
            act(Action::Failover { to, forced }, "FAILOVER")
        }
        "KILL" | "KILL_CLIENT" => match rest {
            [target] => {
                let name = target.name().ok_or_else(invalid)?;
                let id = name
                    .parse()
                    .ok()
                    .filter(|_id| target.kind == TokenKind::Word);
                match id {
                    Some(id) => act(Action::KillClient(id), "KILL"),
                    None if keyword == "KILL" => act(Action::KillDatabase(name.to_owned()), "KILL"),
                    None => Err(syntax("KILL_CLIENT needs an id from SHOW CLIENTS")),
                }
            }
            [] => Err(syntax(
                "KILL needs a database, or a client's id from SHOW CLIENTS",
            )),
            _ => Err(invalid()),
        },
        "SHUTDOWN" => {
            let how = match rest {
                [] => Shutdown::Now,
                [how] if how.is("WAIT_FOR_SERVERS") => Shutdown::WaitForServers,
                [how] if how.is("WAIT_FOR_CLIENTS") => Shutdown::WaitForClients,
                _ => return Err(invalid()),
            };
            act(Action::Shutdown(how), "SHUTDOWN")
        }
        "SET" if rest.first().is_some_and(|token| token.is("WEIGHT")) => {
            let weight = match rest {
                [_, node, equals, weight] if equals.text == "=" => Some((node, weight)),
                [_, node, weight] => Some((node, weight)),
                _ => None,
            };
            let told = || {
                let weight = weight.and_then(|(_, weight)| weight.text.parse().ok());
                weight.filter(|weight| *weight <= MOST_WEIGHT)
            };
            let name = weight.and_then(|(node, _)| node.name());
            let (Some(name), Some(weight)) = (name, told()) else {
                return Err(syntax(format!(
                    "SET WEIGHT needs a node and a number from 0 to {MOST_WEIGHT}: SET WEIGHT pg2 = 50"
                )));
            };
            let name = name.to_owned();
            act(Action::SetWeight { name, weight }, "SET")
        }
        "SET" => {
            set(rest).ok_or_else(invalid)??;
            ignored("SET")
        }
        "RESET" => ignored("RESET"),
        "DISCARD" => ignored("DISCARD ALL"),
        "DEALLOCATE" => ignored("DEALLOCATE"),
        "UNLISTEN" => ignored("UNLISTEN"),
        "CLOSE" => ignored("CLOSE CURSOR"),
        "BEGIN" => Ok(Command::Ignored {
            tag: "BEGIN",
            block: Block::Begin,
        }),
        "START" => Ok(Command::Ignored {
            tag: "START TRANSACTION",
            block: Block::Begin,
        }),
        "COMMIT" | "END" => Ok(Command::Ignored {
            tag: "COMMIT",
            block: Block::End,
        }),
        "SAVEPOINT" => ignored("SAVEPOINT"),
        "RELEASE" => ignored("RELEASE"),
        "ROLLBACK" if rest.iter().any(|token| token.is("TO")) => ignored("ROLLBACK"),
        "ROLLBACK" | "ABORT" => Ok(Command::Ignored {
            tag: "ROLLBACK",
            block: Block::End,
        }),
        _ => Err(invalid()),
    }
}

/// Whether a SET may be passed over: drivers set up any session they open. `None` when it isn't
/// one; an error when it is more than a driver's habit, because somebody may mean it.
fn set(rest: &[Token]) -> Option<Result<(), Visible>> {
    let scoped = rest.split_first()?;
    let (name, value) = match scoped {
        (scope, rest) if scope.is("SESSION") || scope.is("LOCAL") => rest.split_first()?,
        unscoped => unscoped,
    };
    let name = name.name()?;
    value.first()?;
    if DRIVERS_SET
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name))
    {
        return Some(Ok(()));
    }
    let error = Visible::error(
        Fault::Client,
        SqlState::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    );
    Some(Err(error.hint(
        "pgsplit's settings are changed in its configuration; RELOAD applies them.",
    )))
}

fn show(rest: &[Token]) -> Option<Command> {
    let name = match rest {
        [name] => name.name()?.to_owned(),
        [time, zone] if time.is("TIME") && zone.is("ZONE") => "TimeZone".to_owned(),
        [transaction, isolation, level]
            if transaction.is("TRANSACTION") && isolation.is("ISOLATION") && level.is("LEVEL") =>
        {
            "transaction_isolation".to_owned()
        }
        _ => return None,
    };
    let topic = Show::ALL
        .iter()
        .find(|topic| topic.name.eq_ignore_ascii_case(&name));
    if let Some(topic) = topic {
        return Some(Command::Show(topic.show));
    }
    let mut parameters = PARAMETERS.iter().chain(&MORE_PARAMETERS);
    let (column, value) = parameters.find(|(column, _value)| column.eq_ignore_ascii_case(&name))?;
    Some(Command::Value(Value::Fixed {
        column,
        value,
        tag: "SHOW",
    }))
}

/// The few SELECTs that drivers send unasked.
fn select(rest: &[Token]) -> Option<Command> {
    let text: String = rest
        .iter()
        .map(|token| token.text.to_ascii_lowercase())
        .collect();
    let text = text.strip_prefix("pg_catalog.").unwrap_or(&text);
    let value = match text {
        "version()" => Value::Version,
        "pg_is_in_recovery()" => Value::NotInRecovery,
        "current_database()" => Value::CurrentDatabase,
        "current_user" | "session_user" | "user" => Value::CurrentUser,
        "pg_advisory_unlock_all()" => Value::Fixed {
            column: "pg_advisory_unlock_all",
            value: "",
            tag: "SELECT 1",
        },
        "current_schema()" => Value::Fixed {
            column: "current_schema",
            value: "public",
            tag: "SELECT 1",
        },
        _ => return None,
    };
    Some(Command::Value(value))
}

/// The tables' names, for a hint.
fn show_names() -> String {
    Show::ALL.map(|topic| topic.name).join(", ")
}

fn syntax(message: impl Into<std::borrow::Cow<'static, str>>) -> Visible {
    Visible::error(Fault::Client, SqlState::SYNTAX_ERROR, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn act(action: Action, tag: &'static str) -> Command {
        Command::Act { action, tag }
    }

    #[test]
    fn commands_are_read_in_any_case_and_with_or_without_semicolon() {
        let some = |name: &str| Some(name.to_owned());
        let explain = |database: Option<&str>, sql: &str| Command::ExplainRoute {
            database: database.map(str::to_owned),
            sql: sql.to_owned(),
        };
        let weight = |name: &str, weight| Action::SetWeight {
            name: name.to_owned(),
            weight,
        };
        let node = |name: &str, enabled| Action::SetNode {
            name: name.to_owned(),
            enabled,
        };
        let failover = |to: Option<&str>, forced| Action::Failover {
            to: to.map(str::to_owned),
            forced,
        };
        let cases = [
            ("SHOW POOLS", Command::Show(Show::Pools)),
            ("  show pools ; ", Command::Show(Show::Pools)),
            (
                "/* x; */ Show\nStats_Totals -- ;",
                Command::Show(Show::StatsTotals),
            ),
            ("PAUSE", act(Action::Pause(None), "PAUSE")),
            (
                "WAIT_CLOSE app",
                act(Action::WaitClose(some("app")), "WAIT_CLOSE"),
            ),
            ("pause App-1;", act(Action::Pause(some("App-1")), "PAUSE")),
            (
                "RESUME \"a \"\"b\"",
                act(Action::Resume(some("a \"b")), "RESUME"),
            ),
            (
                "RECONNECT app",
                act(Action::Reconnect(some("app")), "RECONNECT"),
            ),
            ("RELOAD;", act(Action::Reload, "RELOAD")),
            ("DISABLE NODE pg2", act(node("pg2", false), "DISABLE")),
            ("SET WEIGHT pg2 = 50", act(weight("pg2", 50), "SET")),
            ("set weight \"a b\" 0", act(weight("a b", 0), "SET")),
            ("enable node \"PG 2\"", act(node("PG 2", true), "ENABLE")),
            (
                "switchover to pg2;",
                act(Action::Switchover("pg2".into()), "SWITCHOVER"),
            ),
            ("FAILOVER", act(failover(None, false), "FAILOVER")),
            (
                "failover to \"PG 2\" force",
                act(failover(Some("PG 2"), true), "FAILOVER"),
            ),
            ("KILL app", act(Action::KillDatabase("app".into()), "KILL")),
            ("KILL 12", act(Action::KillClient(12), "KILL")),
            (
                "KILL \"12\"",
                act(Action::KillDatabase("12".into()), "KILL"),
            ),
            ("KILL_CLIENT 7", act(Action::KillClient(7), "KILL")),
            ("SHUTDOWN", act(Action::Shutdown(Shutdown::Now), "SHUTDOWN")),
            (
                "shutdown wait_for_clients",
                act(Action::Shutdown(Shutdown::WaitForClients), "SHUTDOWN"),
            ),
            ("EXPLAIN ROUTE SELECT 1;", explain(None, "SELECT 1")),
            (
                "explain route for App select ';' ; update t set x = 1;",
                explain(Some("App"), "select ';' ; update t set x = 1"),
            ),
            ("EXPLAIN ROUTE SELECT $$'$$", explain(None, "SELECT $$'$$")),
            ("EXPLAIN ROUTE \"", explain(None, "\"")),
            (
                "EXPLAIN ROUTE /* pgsplit: primary */ SELECT 1",
                explain(None, "/* pgsplit: primary */ SELECT 1"),
            ),
            ("SELECT Version( )", Command::Value(Value::Version)),
        ];
        for (text, command) in cases {
            assert_eq!(parse(text).unwrap(), [command], "{text}");
        }
    }

    #[test]
    fn drivers_may_set_up_their_session_but_pgsplit_is_not_configured_so() {
        for text in [
            "SET extra_float_digits = 3",
            "set client_encoding to 'UTF8'",
            "SET NAMES 'utf8'",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET SESSION TimeZone TO 'UTC'",
            "SET TIME ZONE 'UTC'",
            "SET LOCAL statement_timeout = 0",
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        ] {
            let tag = "SET";
            let block = Block::Keep;
            assert_eq!(
                parse(text).unwrap(),
                [Command::Ignored { tag, block }],
                "{text}"
            );
        }
        let error = parse("SET max_size = 5").unwrap_err();
        assert_eq!(error.sqlstate, SqlState::UNDEFINED_OBJECT);
        assert!(error.hint.unwrap().contains("RELOAD"));
        for text in ["SET", "SET SESSION", "SET max_size", "SET 'x' = 1"] {
            assert_eq!(
                parse(text).unwrap_err().sqlstate,
                SqlState::SYNTAX_ERROR,
                "{text}"
            );
        }
    }

    #[test]
    fn several_commands_are_separated_by_semicolons() {
        let commands = parse(";;SHOW NODES; show version;;").unwrap();
        assert_eq!(
            commands,
            [Command::Show(Show::Nodes), Command::Show(Show::Version)]
        );
        assert!(parse(" ; ").unwrap().is_empty());
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn what_is_not_a_command_is_a_syntax_error_that_says_what_there_is() {
        for text in [
            "FOO",
            "SHOW",
            "SHOW FOO",
            "SHOW POOLS STATS",
            "SELECT * FROM pg_class",
            // Whoever checks an application's database must not take this for one.
            "SELECT 1",
            "PAUSE a b",
            "KILL",
            "DISABLE app",
            "DISABLE NODE",
            "SWITCHOVER",
            "SWITCHOVER pg2",
            "SWITCHOVER TO 'pg2'",
            "FAILOVER pg2",
            "FAILOVER TO",
            "FAILOVER TO pg2 NOW",
            "SET WEIGHT",
            "SET WEIGHT pg2",
            "SET WEIGHT pg2 = 1001",
            "SET WEIGHT pg2 = -1",
            "EXPLAIN SELECT 1",
            "EXPLAIN ROUTE",
            "EXPLAIN ROUTE FOR app",
            "EXPLAIN ROUTE FOR 'app' SELECT 1",
            "SHOW \"",
            "/* open",
            "'x'",
            "SHUTDOWN LATER",
            "SHOW POOLS; FOO",
            &format!("KILL {}", "x".repeat(NAME + 1)),
            &format!("KILL \"{}\"", "x".repeat(NAME + 1)),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.sqlstate.as_str(), "42601", "{text}");
        }
        let error = parse("SHOW POOL").unwrap_err();
        assert_eq!(error.message, "invalid command 'SHOW POOL', use SHOW HELP;");
        assert!(error.hint.unwrap().contains("POOLS"));
    }

    proptest! {
        #[test]
        fn any_text_is_commands_or_a_syntax_error(text in any::<String>()) {
            let _commands = parse(&text);
        }

        #[test]
        fn texts_like_commands_never_panic(
            text in "(?i)(show|kill|explain route|for|pause|;|\"|'|--|/\\*|\\*/|é| |\n|pools|1){0,20}",
        ) {
            let _commands = parse(&text);
        }
    }
}
