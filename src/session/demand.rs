//! What a request asks of a transaction that is, or may begin, on a replica.
//!
//! Only what is known to leave nothing behind in the server, or a setting or savepoint that can be
//! made again, is [`Needs::Repeatable`].

use super::{
    Session,
    prepared::Named,
    replay::{Change, Message, Replay},
    request::{End, Portals, Request, Resolved, Work},
    settings::Settings,
};
use crate::{
    protocol::{
        frame::{HEADER, Header},
        frontend::{Bind, Execute, Parse, tag},
    },
    routing::may_be_vouched_for,
    sql::{
        self, Access, Begin, Class, Effect, Hint, Isolation, Kind, Lexing, SettingValue, Traits,
        Why,
    },
};

/// See the module's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    pub needs: Needs,
    /// A statement of it takes a snapshot.
    pub queries: bool,
    /// It ends its transaction and begins another with the same modes.
    pub chains: bool,
    /// It rolls back what has failed before it does anything else.
    pub recovers: bool,
    /// The modes of the transaction that it begins.
    pub begins: Option<Begin>,
    /// What it adds to a [`Replay`].
    pub changes: Vec<Change>,
}

/// Of which server the transaction may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Whichever it is on: COMMIT, or what that server refuses.
    Nothing,
    /// Any, also when it goes on elsewhere afterwards.
    Repeatable,
    /// It tells when the transaction began, which it does later elsewhere.
    Time,
    /// Something of it stays in the server, or it can't be sent again: a cursor, a portal.
    Server,
    /// The primary; a replica refuses it as the primary does in a READ ONLY transaction.
    Write,
    Primary,
}

impl Needs {
    pub(super) fn is_primary(self) -> bool {
        matches!(self, Self::Write | Self::Primary)
    }
}

impl Demand {
    fn of(needs: Needs) -> Self {
        Self {
            needs,
            queries: false,
            chains: false,
            recovers: false,
            begins: None,
            changes: Vec::new(),
        }
    }

    /// What a class alone tells.
    #[must_use]
    pub fn of_class(class: Class) -> Self {
        let vouched = class.hint == Some(Hint::Replica);
        let needs = match class.access {
            Access::Primary(why) if vouched && may_be_vouched_for(why) => {
                if class.traits.has(Traits::OBSERVE) {
                    Needs::Server
                } else {
                    Needs::Repeatable
                }
            }
            // Of several statements one may end the transaction.
            Access::Primary(Why::Write | Why::RowLock | Why::Into | Why::Ddl)
                if class.kind == Kind::Single =>
            {
                Needs::Write
            }
            Access::Primary(_) => Needs::Primary,
            Access::Read | Access::Anywhere if class.hint == Some(Hint::Primary) => Needs::Primary,
            Access::Read if class.traits.has(Traits::TRANSACTION_TIME) && !vouched => Needs::Time,
            Access::Read => Needs::Repeatable,
            Access::Anywhere if class.traits.has(Traits::PURE_READ) => Needs::Repeatable,
            Access::Anywhere => Needs::Server,
        };
        Self {
            queries: class.access != Access::Anywhere,
            ..Self::of(needs)
        }
    }

    /// What a request asks. `frames`: its bytes; `replay`: of the transaction that it is part of.
    #[must_use]
    pub fn of_request(
        request: &Request,
        frames: &[u8],
        session: &Session,
        resolved: &mut Resolved,
        replay: Option<&Replay>,
    ) -> Self {
        let class = request.class;
        let mut demand = Self::of_class(class);
        if request.oversize || request.end == End::Open {
            demand.needs = Needs::Primary;
            return demand;
        }
        if class.traits.has(Traits::EFFECTS) && class.hint != Some(Hint::Primary) {
            let mut reader = Reader {
                class,
                lexing: session.lexing,
                base: session.settings.base(),
                replay,
                demand,
                executed: false,
            };
            match request.query.clone() {
                Some(range) => reader.simple(frames.get(range).unwrap_or_default()),
                None => reader.extended(frames, session, resolved),
            }
            demand = reader.demand;
        }
        let kept = request.portals == Portals::Kept
            || request.end == End::Flush && request.work == Work::Runs;
        if kept
            && matches!(
                demand.needs,
                Needs::Nothing | Needs::Repeatable | Needs::Time
            )
        {
            demand.needs = Needs::Server;
        }
        demand
    }
}

/// Goes through a request's statements.
struct Reader<'a> {
    class: Class,
    lexing: Lexing,
    /// What RESET goes back to.
    base: &'a Settings,
    replay: Option<&'a Replay>,
    demand: Demand,
    /// A statement has been executed before.
    executed: bool,
}

/// A statement's text and types, as they stand in Parse.
#[derive(Clone)]
struct Statement {
    text: Box<[u8]>,
    types: Box<[u8]>,
}

/// A statement's effects on the session.
enum Does {
    Known(Vec<Effect>),
    /// Settings of the transaction, whichever they are.
    LocalSettings,
    Unknown,
}

impl Reader<'_> {
    fn simple(&mut self, text: &[u8]) {
        let message = || Message::Query(text.into());
        match self.does(text, &[]) {
            Does::Known(effects) => {
                self.rolls_back(&effects);
                if let [effect] = effects.as_slice() {
                    self.one(effect, message());
                } else if let [Effect::Begin(modes), rest @ ..] = effects.as_slice() {
                    self.begins(*modes, rest);
                } else {
                    self.several(&effects, message());
                }
            }
            Does::LocalSettings => self.settings(message()),
            Does::Unknown => self.server(),
        }
    }

    fn extended(&mut self, frames: &[u8], session: &Session, resolved: &mut Resolved) {
        let known = |body: &[u8]| {
            let parse = Parse::read(body).ok()?;
            Some(Statement {
                text: parse.text.into(),
                types: parse.types.into(),
            })
        };
        let mut unnamed = known(resolved.unnamed(session).parse());
        let mut portals: Vec<(&[u8], Statement, Bind<'_>)> = Vec::new();
        // The statement that was prepared or described last.
        let mut last = None;
        let mut at = 0;
        while let Ok(Some(header)) = Header::parse(frames.get(at..).unwrap_or_default()) {
            let Some(body) = frames.get(at + HEADER..at + header.len) else {
                break;
            };
            at += header.len;
            let mut named = || match resolved.resolve()? {
                Named::Protocol(statement) => Some(Statement {
                    text: statement.text().into(),
                    types: statement.types().into(),
                }),
                // Its settings aren't made again under another name.
                Named::Sql(_) => None,
            };
            match header.tag {
                tag::PARSE => {
                    last = known(body);
                    if body.first() == Some(&0) {
                        unnamed.clone_from(&last);
                    } else {
                        let _the_same = named();
                    }
                }
                tag::BIND => {
                    let Ok(bind) = Bind::read(body) else { break };
                    portals.retain(|(name, ..)| *name != bind.portal);
                    let statement = if bind.statement.is_empty() {
                        unnamed.clone()
                    } else {
                        named()
                    };
                    if let Some(statement) = statement {
                        portals.push((bind.portal, statement, bind));
                    }
                }
                tag::DESCRIBE | tag::CLOSE if body.first() == Some(&b'S') => {
                    last = if body.get(1) == Some(&0) {
                        unnamed.clone()
                    } else {
                        named()
                    };
                }
                tag::EXECUTE => {
                    let Ok(execute) = Execute::read(body) else {
                        break;
                    };
                    match portals.iter().find(|(name, ..)| *name == execute.portal) {
                        Some((_, statement, bind)) => self.executed(statement, bind),
                        None => self.server(),
                    }
                    self.executed = true;
                }
                _ => {}
            }
        }
        resolved.rewind();
        if let Some(statement) = last
            && !self.executed
            && self.is_settings(&statement.text)
        {
            self.made_again();
        }
    }

    fn executed(&mut self, statement: &Statement, bind: &Bind<'_>) {
        let message = Message::Extended {
            text: statement.text.clone(),
            types: statement.types.clone(),
            values: bind.rest.into(),
        };
        match self.does(&statement.text, &bind.parameters().unwrap_or_default()) {
            Does::Known(effects) => {
                self.rolls_back(&effects);
                match effects.as_slice() {
                    [effect] => self.one(effect, message),
                    [] => {}
                    _ => self.server(),
                }
            }
            Does::LocalSettings => self.settings(message),
            Does::Unknown => self.server(),
        }
    }

    fn does(&self, text: &[u8], bound: &sql::Bound<'_>) -> Does {
        match sql::effects_bound(text, self.lexing, bound) {
            Some(effects) => Does::Known(effects),
            None if sql::sets_only_local(text, self.lexing) => Does::LocalSettings,
            None => Does::Unknown,
        }
    }

    fn is_settings(&self, text: &[u8]) -> bool {
        match self.does(text, &[]) {
            Does::LocalSettings => true,
            Does::Known(effects) => match effects.as_slice() {
                [effect] => self.sets(effect),
                _ => false,
            },
            Does::Unknown => false,
        }
    }

    /// It sets something to what it would be set to on any server: RESET does where a connection's own
    /// value is the session's.
    fn sets(&self, effect: &Effect) -> bool {
        match effect {
            Effect::Set { value, name, .. } => {
                *value != SettingValue::Default || self.base.get(name).is_none()
            }
            _ => false,
        }
    }

    /// One statement.
    fn one(&mut self, effect: &Effect, message: Message) {
        match effect {
            Effect::None => self.query(),
            Effect::Set { .. } if self.sets(effect) => self.settings(message),
            Effect::SessionCharacteristics(_) => self.settings(message),
            Effect::Savepoint(name) => {
                let change = Change::Savepoint(name.clone(), message);
                self.changes(change);
            }
            Effect::RollbackTo(name) => self.changes(Change::RollbackTo(name.clone())),
            Effect::Release(name) => self.changes(Change::Release(name.clone())),
            Effect::SetTransaction(modes) => self.set_transaction(*modes, message),
            Effect::Begin(modes) if !self.executed => self.begins(*modes, &[]),
            // Behind another transaction, which it isn't part of.
            Effect::Begin(_) => self.demand.needs = Needs::Primary,
            Effect::Commit { chain: false } | Effect::Rollback { chain: false } => self.ends(),
            // In a failed transaction, the only one for which this counts.
            Effect::Commit { chain: true } | Effect::Rollback { chain: true } => {
                self.demand.chains = true;
                self.server();
            }
            _ => self.server(),
        }
    }

    /// Statements of one text: they are made again together, so only if all are settings or reads.
    fn several(&mut self, effects: &[Effect], message: Message) {
        let set = |effect: &Effect| self.sets(effect);
        let read = |effect: &Effect| *effect == Effect::None && self.reads_only();
        if effects.iter().all(|effect| set(effect) || read(effect))
            && !self.class.traits.has(Traits::COPY)
        {
            self.settings(message);
        } else {
            self.server();
        }
    }

    /// No statement of it belongs on the primary.
    fn reads_only(&self) -> bool {
        !matches!(self.class.access, Access::Primary(_)) || self.class.hint == Some(Hint::Replica)
    }

    fn query(&mut self) {
        // One statement of a request belongs on the primary: it may be this one.
        if !self.reads_only() {
            self.server();
        }
    }

    fn settings(&mut self, message: Message) {
        self.changes(Change::Settings(message));
    }

    fn changes(&mut self, change: Change) {
        self.demand.changes.push(change);
        self.made_again();
    }

    fn rolls_back(&mut self, effects: &[Effect]) {
        let first = effects.first();
        if !self.executed && matches!(first, Some(Effect::RollbackTo(_) | Effect::Rollback { .. }))
        {
            self.demand.recovers = true;
        }
    }

    /// Nothing but settings and savepoints are made: the function that sets is what kept the text
    /// from replicas.
    fn made_again(&mut self) {
        let by_function = matches!(self.class.access, Access::Primary(Why::Function));
        if by_function && self.class.kind == Kind::Single {
            self.demand.needs = Needs::Repeatable;
        }
    }

    fn set_transaction(&mut self, modes: Begin, message: Message) {
        let settled = self.replay.is_some_and(|replay| replay.queried);
        let read_only = self.replay.is_some_and(|replay| replay.read_only);
        let one_snapshot = matches!(
            modes.isolation,
            Some(Isolation::RepeatableRead | Isolation::Serializable)
        );
        let writes = modes.read_only == Some(false);
        self.demand.queries = false;
        if settled && (one_snapshot && !writes || read_only && writes) {
            // Too late, says any server.
            self.demand.needs = Needs::Nothing;
        } else if one_snapshot || writes || modes == Begin::default() {
            self.demand.needs = Needs::Primary;
        } else {
            self.changes(Change::Settings(message));
        }
    }

    /// BEGIN, at the front of what opens a transaction. One text can't be made again in parts, so
    /// only modes and reads may follow.
    fn begins(&mut self, modes: Begin, rest: &[Effect]) {
        if self.replay.is_some() {
            // Within a transaction it only warns, but for its modes.
            if modes.read_only == Some(false) || modes.isolation.is_some() || !rest.is_empty() {
                self.demand.needs = Needs::Primary;
            } else {
                self.server();
            }
            return;
        }
        let merged = rest.iter().try_fold(modes, |modes, effect| match effect {
            Effect::SetTransaction(more) => Some(modes.merged(*more)),
            Effect::None => Some(modes),
            _ => None,
        });
        match merged {
            Some(modes) => self.demand.begins = Some(modes),
            None => {
                self.demand.begins = Some(modes);
                self.server();
            }
        }
    }

    fn ends(&mut self) {
        if self.class.kind == Kind::Several || self.executed {
            // What follows it is another transaction's.
            return;
        }
        if matches!(self.demand.needs, Needs::Server | Needs::Repeatable) {
            self.demand.needs = Needs::Nothing;
        }
    }

    fn server(&mut self) {
        if matches!(
            self.demand.needs,
            Needs::Nothing | Needs::Repeatable | Needs::Time
        ) {
            self.demand.needs = Needs::Server;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::write,
        session::{
            prepared::Statements,
            request::{Scan, scan},
            settings::Settings,
        },
        sql::classify,
    };

    /// Without a catalogue; `set_config` is known, and `f` is a function that isn't read-safe.
    fn class(text: &[u8]) -> Class {
        let lower = text.to_ascii_lowercase();
        let has = |what: &[u8]| memchr::memmem::find(&lower, what).is_some();
        if has(b"set_config") {
            return Class::primary(Why::Function, Traits::EFFECTS.with(Traits::OBSERVE));
        }
        if has(b"f()") {
            return Class {
                hint: sql::hint(text, Lexing::default()),
                ..Class::primary(Why::Function, Traits::NONE)
            };
        }
        classify(text, Lexing::default(), None)
    }

    fn demand(bytes: &[u8], replay: Option<&Replay>) -> Demand {
        let mut session = Session::new(1, Settings::default().into(), Lexing::default());
        let (statements, mut resolved) = (Statements::default(), Resolved::default());
        let found = scan(
            bytes,
            1 << 20,
            &mut session,
            &statements,
            &mut resolved,
            |text, _form| class(text),
        );
        let Ok(Scan::Request(request)) = found else {
            panic!("{found:?}");
        };
        Demand::of_request(&request, bytes, &session, &mut resolved, replay)
    }

    fn simple(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        write::query(&mut out, text.as_bytes());
        out
    }

    fn extended(texts: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for text in texts {
            write::parse(&mut out, b"", text.as_bytes(), &[0; 2]);
            write::bind_head(&mut out, b"", b"", 6);
            out.extend_from_slice(&[0; 6]);
            write::execute(&mut out, b"");
        }
        write::sync(&mut out);
        out
    }

    #[test]
    fn statements_need_what_they_need() {
        use Needs::{Nothing, Primary, Repeatable, Server, Write};
        let replay = Replay::of(Begin::default());
        let mut queried = replay.clone();
        queried.queried = true;
        // The text, what it needs, how many changes it makes.
        let rows = [
            ("values (1)", Repeatable, 0),
            ("set work_mem = '1MB'", Repeatable, 1),
            ("set local work_mem = '1MB'", Repeatable, 1),
            ("reset all", Server, 0),
            ("savepoint s", Repeatable, 1),
            ("rollback to s", Repeatable, 1),
            ("release s", Repeatable, 1),
            ("commit", Nothing, 0),
            ("rollback", Nothing, 0),
            ("select set_config('a.b', 'c', true)", Repeatable, 1),
            (
                "select set_config($1, $2::text, true) as x, set_config('a', null, true)",
                Repeatable,
                1,
            ),
            ("select set_config($1, $2, false)", Primary, 0),
            ("select set_config('a.b', f(), true)", Primary, 0),
            ("select f()", Primary, 0),
            ("set transaction read only", Repeatable, 1),
            ("set transaction read write", Primary, 0),
            (
                "set transaction isolation level repeatable read",
                Primary,
                0,
            ),
            ("set transaction snapshot 'x'", Primary, 0),
            ("reset work_mem", Repeatable, 1),
            ("set work_mem to default", Repeatable, 1),
            ("fetch c", Server, 0),
            ("begin", Server, 0),
            ("begin read write", Primary, 0),
            ("discard plans", Server, 0),
            ("insert into t values (1)", Write, 0),
            ("create table t (a int)", Write, 0),
            ("/* pgsplit: primary */ values (1)", Primary, 0),
            ("/* pgsplit: replica */ select f()", Repeatable, 0),
            ("/* pgsplit: replica */ insert into t values (1)", Write, 0),
        ];
        for (text, needs, changes) in rows {
            for bytes in [simple(text), extended(&[text])] {
                let demand = demand(&bytes, Some(&replay));
                assert_eq!(demand.needs, needs, "{text}: {demand:?}");
                assert_eq!(demand.changes.len(), changes, "{text}: {demand:?}");
            }
        }
        // Too late, and every server says so.
        let late = simple("set transaction isolation level serializable");
        assert_eq!(demand(&late, Some(&queried)).needs, Nothing);
    }

    #[test]
    fn several_statements_need_what_the_strictest_needs() {
        let replay = Replay::of(Begin::default());
        let of = |bytes: &[u8]| {
            let demand = demand(bytes, Some(&replay));
            (demand.needs, demand.changes.len())
        };
        let read = "values (1)";
        assert_eq!(
            of(&extended(&["set a.b = '1'", read, "savepoint s"])),
            (Needs::Repeatable, 2)
        );
        assert_eq!(
            of(&extended(&[read, "insert into t values (1)"])),
            (Needs::Primary, 0)
        );
        assert_eq!(of(&extended(&[read, "reset all"])), (Needs::Server, 0));
        assert_eq!(of(&extended(&[read, "commit"])), (Needs::Repeatable, 0));
        assert_eq!(
            of(&simple("set a.b = '1'; values (1)")),
            (Needs::Repeatable, 1)
        );
        assert_eq!(
            of(&simple("set a.b = '1'; savepoint s")),
            (Needs::Server, 0)
        );
    }

    #[test]
    fn what_begins_a_transaction_has_its_modes() {
        let begins = |bytes: &[u8]| {
            let demand = demand(bytes, None);
            (demand.needs, demand.begins.map(|modes| modes.read_only))
        };
        let read = "values (1)";
        assert_eq!(
            begins(&extended(&["begin", read])),
            (Needs::Repeatable, Some(None))
        );
        assert_eq!(
            begins(&simple("begin read only; values (1)")),
            (Needs::Repeatable, Some(Some(true)))
        );
        assert_eq!(begins(&extended(&[read, "begin"])).0, Needs::Primary);
    }

    #[test]
    fn portals_that_outlive_their_request_stay_in_the_server() {
        let mut named = Vec::new();
        write::parse(&mut named, b"", b"values (1)", &[0; 2]);
        write::bind_head(&mut named, b"portal", b"", 6);
        named.extend_from_slice(&[0; 6]);
        write::execute(&mut named, b"portal");
        write::sync(&mut named);
        let replay = Replay::of(Begin::default());
        assert_eq!(demand(&named, Some(&replay)).needs, Needs::Server);
        // A BEGIN returns no rows, whatever its limit.
        for (text, needs) in [
            ("begin read only", Needs::Repeatable),
            ("values (1)", Needs::Server),
        ] {
            let mut limited = Vec::new();
            write::parse(&mut limited, b"s", text.as_bytes(), &[0; 2]);
            write::bind_head(&mut limited, b"", b"s", 6);
            limited.extend_from_slice(&[0; 6]);
            write::frame(&mut limited, tag::EXECUTE, |out| {
                out.extend_from_slice(b"\0\0\0\0\x02");
            });
            limited.extend_from_slice(&extended(&["values (2)"]));
            assert_eq!(demand(&limited, None).needs, needs, "{text}");
        }
    }
}
