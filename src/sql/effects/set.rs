//! SET, RESET, SHOW and `set_config`.

use super::transaction::modes;
use crate::sql::{
    Begin, Effect, Lexing, Scope, SettingValue,
    lexer::{Cursor, TokenKind},
};

/// A setting as it is named in SET, RESET and SHOW.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sql) enum Setting {
    All,
    Server(Box<str>),
    /// `pgsplit.…`, without that prefix.
    Own(Box<str>),
}

/// Behind SET.
pub(super) fn set(at: &mut Cursor<'_>, lexing: Lexing) -> Option<Effect> {
    if at.at_word("constraints") && !assigned_next(at) {
        return Some(Effect::None);
    }
    let mut ahead = at.clone();
    let mut scope = Scope::Session;
    match ahead.one_of(&["session", "local"]) {
        Some("local") if !assigns(&ahead) => {
            scope = Scope::Local;
            *at = ahead;
        }
        // SESSION may also begin SESSION AUTHORIZATION and SESSION CHARACTERISTICS.
        Some("session")
            if !assigns(&ahead)
                && !ahead.at_word("authorization")
                && (!ahead.at_word("characteristics") || assigned_next(&ahead)) =>
        {
            *at = ahead;
        }
        _ => {}
    }
    let value = |name: &str, value: SettingValue| Effect::Set {
        name: name.into(),
        value,
        scope,
    };
    let ended =
        |at: &Cursor<'_>, effect: Effect| Some(if at.done() { effect } else { Effect::None });

    if at.words(&["session", "characteristics", "as", "transaction"]) {
        let modes = modes(at, Begin::default()).filter(|&m| m != Begin::default());
        return match (modes, scope) {
            (Some(modes), Scope::Session) => Some(Effect::SessionCharacteristics(modes)),
            (Some(_), Scope::Local) => None,
            (None, _) => Some(Effect::None),
        };
    }
    if at.words(&["session", "authorization"]) {
        return match one_or_default(at, lexing)? {
            Some(who) => ended(at, value("session_authorization", who)),
            None => Some(Effect::None),
        };
    }
    if at.words(&["transaction", "snapshot"]) {
        return Some(Effect::SetTransaction(Begin::default()));
    }
    if at.at_word("transaction") && !assigned_next(at) {
        at.take();
        let modes = modes(at, Begin::default()).filter(|&m| m != Begin::default());
        return Some(modes.map_or(Effect::None, Effect::SetTransaction));
    }
    if at.words(&["time", "zone"]) {
        let zone = zone(at, lexing)?;
        return ended(at, value("timezone", zone));
    }
    if at.words(&["xml", "option"]) {
        return Some(match at.one_of(&["document", "content"]) {
            Some(word) => value("xmloption", SettingValue::Sql(word.into())),
            None => Effect::None,
        });
    }
    if !assigned_next(at) {
        if at.word("names") {
            let encoding = if at.done() {
                Some(SettingValue::Default)
            } else {
                one_or_default(at, lexing)?
            };
            return match encoding {
                Some(encoding) => ended(at, value("client_encoding", encoding)),
                None => Some(Effect::None),
            };
        }
        for (word, name) in [("role", "role"), ("schema", "search_path")] {
            if at.word(word) {
                return match one_or_default(at, lexing)? {
                    Some(to) => ended(at, value(name, to)),
                    None => Some(Effect::None),
                };
            }
        }
    }

    let Some(setting) = name(at)? else {
        return Some(Effect::None);
    };
    if at.words(&["from", "current"]) {
        return None;
    }
    if !(at.word("to") || at.operator("=")) {
        return Some(Effect::None);
    }
    match setting {
        Setting::Own(key) => {
            let values = if at.word("default") {
                None
            } else {
                Some(own_values(at, lexing)?)
            };
            ended(
                at,
                Effect::OwnSet {
                    key,
                    value: values.map(Into::into),
                    scope,
                },
            )
        }
        Setting::Server(name) => {
            if at.word("default") {
                return ended(at, value(&name, SettingValue::Default));
            }
            let Some(sql) = values(at, lexing)? else {
                return Some(Effect::None);
            };
            ended(at, value(&name, SettingValue::Sql(sql.into())))
        }
        Setting::All => Some(Effect::None),
    }
}

/// Behind RESET.
pub(super) fn reset(at: &mut Cursor<'_>) -> Option<Effect> {
    Some(match setting_name(at)? {
        Some(Setting::All) => Effect::ResetAll,
        Some(Setting::Server(name)) => Effect::Set {
            name,
            value: SettingValue::Default,
            scope: Scope::Session,
        },
        Some(Setting::Own(key)) => Effect::OwnSet {
            key,
            value: None,
            scope: Scope::Session,
        },
        None => Effect::None,
    })
}

/// Behind SHOW.
pub(super) fn show(at: &mut Cursor<'_>) -> Option<Effect> {
    Some(match setting_name(at)? {
        Some(Setting::Own(key)) => Effect::OwnShow(key),
        _ => Effect::None,
    })
}

/// All of what follows RESET or SHOW. `None`: it can't be told which name it is; `Some(None)`: it
/// is no name.
pub(in crate::sql) fn setting_name(at: &mut Cursor<'_>) -> Option<Option<Setting>> {
    let server = |name: &str| Some(Setting::Server(name.into()));
    let setting = if at.word("all") {
        Some(Setting::All)
    } else if at.words(&["time", "zone"]) {
        server("timezone")
    } else if at.words(&["transaction", "isolation", "level"]) {
        server("transaction_isolation")
    } else if at.words(&["session", "authorization"]) {
        server("session_authorization")
    } else {
        name(at)?
    };
    Some(setting.filter(|_| at.done()))
}

/// `SELECT [pg_catalog.]set_config(name, value, true) [AS label], …`, where names and values are
/// strings, NULL or parameters, perhaps with a cast to text.
pub(super) fn is_local_config(statement: &[u8], lexing: Lexing) -> bool {
    let mut at = Cursor::new(statement, lexing);
    at.word("select") && local_configs(&mut at, lexing).is_some()
}

fn local_configs(at: &mut Cursor<'_>, lexing: Lexing) -> Option<()> {
    fn wanted(found: bool) -> Option<()> {
        found.then_some(())
    }
    loop {
        let mut function = at.name()?;
        if function == "pg_catalog" && at.punct(TokenKind::Dot) {
            function = at.name()?;
        }
        wanted(function == "set_config" && at.punct(TokenKind::LeftParen))?;
        for _ in 0..2 {
            if !at.punct(TokenKind::Param) && !at.word("null") {
                at.string(lexing)?;
            }
            if at.punct(TokenKind::Cast) {
                wanted(at.word("text"))?;
            }
            wanted(at.punct(TokenKind::Comma))?;
        }
        wanted(at.word("true") && at.punct(TokenKind::RightParen))?;
        if at.word("as") {
            at.name()?;
        }
        if at.done() {
            return Some(());
        }
        wanted(at.punct(TokenKind::Comma))?;
    }
}

/// The statement has a call of `set_config`, or may have one.
pub(super) fn mentions_set_config(mut at: Cursor<'_>) -> bool {
    while let Some(token) = at.peek() {
        let found = match token.kind {
            TokenKind::Word => at.at_word("set_config"),
            TokenKind::Quoted => at.bytes() == b"\"set_config\"",
            TokenKind::UnicodeQuoted => true,
            _ => false,
        };
        if found {
            return true;
        }
        at.take();
    }
    false
}

/// TO or `=` is next.
fn assigns(at: &Cursor<'_>) -> bool {
    at.at_word("to") || at.at_operator("=")
}

/// TO or `=` is next but one: so the next word is a setting's name.
fn assigned_next(at: &Cursor<'_>) -> bool {
    let mut ahead = at.clone();
    ahead.take();
    assigns(&ahead)
}

/// A setting's name. Settings' names are compared without regard to case, however they are quoted.
fn name(at: &mut Cursor<'_>) -> Option<Option<Setting>> {
    if !(at.at(TokenKind::Word) || at.at(TokenKind::Quoted) || at.at(TokenKind::UnicodeQuoted)) {
        return Some(None);
    }
    let mut name = at.name()?.to_ascii_lowercase();
    while at.punct(TokenKind::Dot) {
        name.push('.');
        name.push_str(&at.name()?.to_ascii_lowercase());
    }
    Some(Some(match name.strip_prefix(OWN) {
        Some(key) => Setting::Own(key.into()),
        None => Setting::Server(current_name(&name).into()),
    }))
}

/// The name that the server uses for an old one.
pub(super) fn current_name(name: &str) -> &str {
    match name {
        "sort_mem" => "work_mem",
        "vacuum_mem" => "maintenance_work_mem",
        _ => name,
    }
}

/// One value or DEFAULT. `None`: it can't be told; `Some(None)`: neither.
fn one_or_default(at: &mut Cursor<'_>, lexing: Lexing) -> Option<Option<SettingValue>> {
    if at.word("default") {
        return Some(Some(SettingValue::Default));
    }
    Some(element(at, lexing)?.map(|sql| SettingValue::Sql(sql.into())))
}

/// Values separated by commas, as SQL.
fn values(at: &mut Cursor<'_>, lexing: Lexing) -> Option<Option<String>> {
    let mut sql = String::new();
    loop {
        let Some(element) = element(at, lexing)? else {
            return Some(None);
        };
        sql.push_str(&element);
        if !at.punct(TokenKind::Comma) {
            return Some(Some(sql));
        }
        sql.push_str(", ");
    }
}

/// One value as SQL. `None`: it can't be told; `Some(None)`: no value is next.
fn element(at: &mut Cursor<'_>, lexing: Lexing) -> Option<Option<String>> {
    let Some(token) = at.peek() else {
        return Some(None);
    };
    Some(Some(match token.kind {
        // Not cut to a name's length: the server does that again, with a notice.
        TokenKind::Word => {
            let word = std::str::from_utf8(at.bytes()).ok()?.to_ascii_lowercase();
            at.take();
            word
        }
        TokenKind::Quoted => {
            let quoted = std::str::from_utf8(at.bytes()).ok()?.to_owned();
            at.take();
            quoted
        }
        TokenKind::UnicodeQuoted => quoted(&at.name()?),
        TokenKind::Integer | TokenKind::Decimal => number(at, "")?,
        TokenKind::Operator => {
            let sign = match at.bytes() {
                b"-" => "-",
                b"+" => "",
                _ => return Some(None),
            };
            at.take();
            if !(at.at(TokenKind::Integer) || at.at(TokenKind::Decimal)) {
                return Some(None);
            }
            number(at, sign)?
        }
        TokenKind::String
        | TokenKind::EscapeString
        | TokenKind::UnicodeString
        | TokenKind::DollarString => literal(&at.string(lexing)?),
        _ => return Some(None),
    }))
}

fn number(at: &mut Cursor<'_>, sign: &str) -> Option<String> {
    let digits = std::str::from_utf8(at.bytes()).ok()?;
    at.take();
    Some(format!("{sign}{digits}"))
}

/// The values of a `SET pgsplit.…` without quotes.
fn own_values(at: &mut Cursor<'_>, lexing: Lexing) -> Option<String> {
    let mut text = String::new();
    loop {
        let token = at.peek()?;
        match token.kind {
            TokenKind::Quoted | TokenKind::UnicodeQuoted => text.push_str(&at.name()?),
            TokenKind::String
            | TokenKind::EscapeString
            | TokenKind::UnicodeString
            | TokenKind::DollarString => text.push_str(&at.string(lexing)?),
            _ => text.push_str(&element(at, lexing)??),
        }
        if !at.punct(TokenKind::Comma) {
            return Some(text);
        }
        text.push_str(", ");
    }
}

/// Behind TIME ZONE: as SQL that `SET timezone TO …` accepts, which has no INTERVAL.
fn zone(at: &mut Cursor<'_>, lexing: Lexing) -> Option<SettingValue> {
    if at.word("local") || at.word("default") {
        return Some(SettingValue::Default);
    }
    if !at.word("interval") {
        return Some(SettingValue::Sql(element(at, lexing)??.into()));
    }
    let offset = at.string(lexing)?;
    at.words(&["hour", "to", "minute"]);
    // Hours and minutes mean the same with and without a qualifier; other forms don't.
    let digits = offset.strip_prefix(['-', '+']).unwrap_or(&offset);
    let (hours, minutes) = digits.split_once(':')?;
    let two = |part: &str| matches!(part.len(), 1 | 2) && part.bytes().all(|b| b.is_ascii_digit());
    if !(at.done() && two(hours) && two(minutes)) {
        return None;
    }
    let interval = format!("INTERVAL {}", literal(&offset));
    Some(SettingValue::Sql(literal(&interval).into()))
}

/// A list of names as a setting's text, `a, "B"`, as SQL that names the same.
pub(super) fn name_list(text: &str) -> Option<String> {
    let mut names = Vec::new();
    let mut rest = text.trim_ascii();
    if rest.is_empty() {
        return Some(literal(""));
    }
    loop {
        let (name, after) = if let Some(inner) = rest.strip_prefix('"') {
            let mut end = inner.find('"')?;
            while inner.get(end + 1..)?.starts_with('"') {
                end += 2 + inner.get(end + 2..)?.find('"')?;
            }
            (
                inner.get(..end)?.replace("\"\"", "\""),
                inner.get(end + 1..)?,
            )
        } else {
            let end = rest.find([',', ' ', '\t', '\n', '\r', '\x0b', '\x0c']);
            let (name, after) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
            // Refused by the server.
            if name.is_empty() {
                return None;
            }
            (name.to_ascii_lowercase(), after)
        };
        names.push(quoted_or_empty(&name));
        rest = after.trim_ascii_start();
        if rest.is_empty() {
            return Some(names.join(", "));
        }
        rest = rest.strip_prefix(',')?.trim_ascii_start();
    }
}

fn quoted_or_empty(name: &str) -> String {
    if name.is_empty() {
        literal("")
    } else {
        quoted(name)
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant that reads the same whatever `standard_conforming_strings` is.
pub(super) fn literal(value: &str) -> String {
    let value = value.replace('\'', "''");
    if value.contains('\\') {
        format!("E'{}'", value.replace('\\', "\\\\"))
    } else {
        format!("'{value}'")
    }
}

pub(super) const OWN: &str = "pgsplit.";
