//! Prepared statements: names belong to the session, plans to server connections.
//!
//! A statement that is prepared by Parse is interned by text, parameter types and how it was read, so
//! that every session which prepares the same one shares its text and its name on the servers. The unnamed
//! statement passes as it is; the session keeps it for the case that the next Bind meets another
//! server connection.
//!
//! SQL-level PREPARE, EXECUTE and DEALLOCATE pass as they are, too, since what PostgreSQL says to
//! them quotes names. Before a request that mentions a name in this way, the connection's meaning of
//! that name is made the session's: there and the same, or not there. Both levels have one space of
//! names, as on a connection of one's own.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use super::reading::Reading;
use crate::protocol::startup::MAX_NAME;

/// A statement that some session has prepared by name.
#[derive(Debug)]
pub struct Statement {
    /// Its name on every server is made of this.
    id: u64,
    name: Box<str>,
    text: Box<[u8]>,
    /// Count and types as they stand in Parse.
    types: Box<[u8]>,
    reading: Reading,
}

impl Statement {
    /// The query text.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The declared parameter types, as they stand in Parse.
    #[must_use]
    pub fn types(&self) -> &[u8] {
        &self.types
    }

    /// How its text was read, and must be.
    #[must_use]
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Identifies it among the statements of a process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name on the servers.
    #[must_use]
    pub fn server_name(&self) -> &str {
        &self.name
    }
}

/// The name on the servers of the statement with this id.
#[must_use]
pub fn server_name(id: u64) -> String {
    format!("pgsplit_{id}")
}

/// Names that pgsplit gives statements on servers begin so.
pub const OWN_PREFIX: &[u8] = b"pgsplit_";

/// What SQL-level PREPARE has made.
#[derive(Debug, PartialEq, Eq)]
pub struct SqlStatement {
    /// The PREPARE itself.
    text: Box<[u8]>,
    /// Where in it the statement begins that it prepares.
    body: usize,
    reading: Reading,
}

/// What a name of the session's means.
#[derive(Clone, Debug)]
pub enum Named {
    /// Prepared by Parse.
    Protocol(Arc<Statement>),
    /// Prepared by PREPARE; the connection has it under the session's own name.
    Sql(Arc<SqlStatement>),
}

impl Named {
    /// The text of what it runs.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        match self {
            Self::Protocol(statement) => statement.text(),
            Self::Sql(statement) => statement.text.get(statement.body..).unwrap_or_default(),
        }
    }

    /// How its text was read, and must be.
    #[must_use]
    pub fn reading(&self) -> &Reading {
        match self {
            Self::Protocol(statement) => &statement.reading,
            Self::Sql(statement) => &statement.reading,
        }
    }

    /// The PREPARE that made it, if one did.
    #[must_use]
    pub fn prepare(&self) -> Option<&[u8]> {
        match self {
            Self::Protocol(_) => None,
            Self::Sql(statement) => Some(&statement.text),
        }
    }

    /// What a PREPARE of this text makes, whose statement begins at `body`.
    #[must_use]
    pub fn from_sql(text: &[u8], body: usize, reading: Reading) -> Self {
        Self::Sql(Arc::new(SqlStatement {
            text: text.into(),
            body,
            reading,
        }))
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Protocol(a), Self::Protocol(b)) => a.id == b.id,
            (Self::Sql(a), Self::Sql(b)) => Arc::ptr_eq(a, b) || a.reading.is_known() && a == b,
            (Self::Protocol(_), Self::Sql(_)) | (Self::Sql(_), Self::Protocol(_)) => false,
        }
    }
}

type Key = (Box<[u8]>, Box<[u8]>, Reading);

/// All named statements that some session holds.
#[derive(Debug, Default)]
pub struct Statements {
    next: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    statements: HashMap<Key, Weak<Statement>, foldhash::fast::RandomState>,
    /// When this many are known, those that no session holds any more are swept out.
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 1024;

impl Statements {
    /// The statement of this text and these types, read in this way; the same one for every session,
    /// if it is known how.
    pub fn intern(&self, text: &[u8], types: &[u8], reading: Reading) -> Arc<Statement> {
        let make = |reading| {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            Arc::new(Statement {
                id,
                name: server_name(id).into(),
                text: text.into(),
                types: types.into(),
                reading,
            })
        };
        if !reading.is_known() {
            return make(reading);
        }
        let mut known = self
            .known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let key: Key = (text.into(), types.into(), reading);
        if let Some(statement) = known.statements.get(&key).and_then(Weak::upgrade) {
            return statement;
        }
        let statement = make(key.2.clone());
        known.statements.insert(key, Arc::downgrade(&statement));
        if known.statements.len() >= known.sweep_at.max(FIRST_SWEEP) {
            known
                .statements
                .retain(|_, statement| statement.strong_count() > 0);
            known.sweep_at = known.statements.len() * 2;
        }
        statement
    }
}

/// A name and what it meant before.
type Change = (Box<[u8]>, Option<Named>);

/// A session's names.
#[derive(Debug, Default)]
pub struct Names {
    names: HashMap<Box<[u8]>, Named, foldhash::fast::RandomState>,
    /// The changes of the requests since the last Sync, oldest first: name and what it meant before.
    journal: Vec<Change>,
    /// How many of them the server has acknowledged.
    confirmed: usize,
    /// Those that DISCARD ALL has dropped since the last Sync: messages behind it may still rest on
    /// them, and fail.
    dropped: Vec<(Box<[u8]>, Named)>,
}

impl Names {
    /// What `name` means.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&Named> {
        self.names.get(told_apart(name))
    }

    /// How many names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// No names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// A Parse of `name`, to be confirmed or undone by its answer.
    pub fn prepare(&mut self, name: &[u8], statement: Arc<Statement>) {
        let name = told_apart(name);
        let before = self.names.insert(name.into(), Named::Protocol(statement));
        self.journal.push((name.into(), before));
    }

    /// A PREPARE of `name` was carried out.
    pub fn define(&mut self, name: &[u8], named: Named) {
        self.names.insert(told_apart(name).into(), named);
    }

    /// An ErrorResponse's body with the client's name for a statement in place of the servers', if it
    /// gives one. Of several names for the same statement it may be any.
    #[must_use]
    pub fn in_the_clients_words(&self, error: &[u8]) -> Option<Vec<u8>> {
        let at = memchr::memmem::find(error, OWN_PREFIX)?;
        let (before, rest) = error.split_at(at);
        let quoted = rest.iter().position(|byte| *byte == b'"')?;
        let (own, after) = rest.split_at(quoted);
        let id = own_id(own)?;
        let dropped = self.dropped.iter().map(|(name, named)| (&**name, named));
        let (name, _) = self
            .iter()
            .chain(dropped)
            .find(|(_, named)| matches!(named, Named::Protocol(statement) if statement.id == id))?;
        Some([before, name, after].concat())
    }

    /// All but those that the server hasn't acknowledged.
    pub fn settled(&self) -> impl Iterator<Item = (&[u8], &Named)> {
        let pending = self.journal.get(self.confirmed..).unwrap_or_default();
        let pending: HashSet<&[u8]> = pending.iter().map(|(changed, _)| &**changed).collect();
        self.iter().filter(move |(name, _)| !pending.contains(name))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Named)> {
        self.names.iter().map(|(name, named)| (&**name, named))
    }

    /// A Close of `name`, to be confirmed or undone by its answer.
    pub fn close(&mut self, name: &[u8]) {
        let name = told_apart(name);
        let before = self.names.remove(name);
        self.journal.push((name.into(), before));
    }

    /// The oldest change that wasn't acknowledged yet, was.
    pub fn confirm(&mut self) {
        self.confirmed += 1;
    }

    /// The request is run again from its start.
    pub fn rewind(&mut self) {
        self.confirmed = 0;
    }

    /// The request has ended well.
    pub fn settle(&mut self) {
        self.dropped.clear();
        self.journal.clear();
        self.confirmed = 0;
    }

    /// All changes that aren't acknowledged won't be carried out.
    pub fn undo(&mut self) {
        while self.journal.len() > self.confirmed
            && let Some((name, before)) = self.journal.pop()
        {
            match before {
                Some(statement) => self.names.insert(name, statement),
                None => self.names.remove(&name),
            };
        }
    }

    /// DEALLOCATE ALL or DISCARD ALL. What is prepared behind it stays.
    pub fn clear(&mut self) {
        let pending = self.journal.get_mut(self.confirmed..).unwrap_or_default();
        let mut stays: HashSet<&[u8]> = HashSet::new();
        for (name, before) in pending {
            // The first change found what is dropped now.
            if stays.insert(name) {
                *before = None;
            }
        }
        self.dropped
            .extend(self.names.extract_if(|name, _| !stays.contains(&**name)));
    }

    /// DEALLOCATE of one name; whether it was known.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        self.names.remove(told_apart(name)).is_some()
    }
}

/// What one server connection has prepared.
#[derive(Debug, Default)]
pub struct OnServer {
    /// Statement to the moment of its last use, counted in uses.
    used: HashMap<u64, u64, foldhash::fast::RandomState>,
    uses: u64,
    /// Parsed or closed since the last [`OnServer::settled`] and not acknowledged, oldest first.
    recent: Vec<Recent>,
    /// There or not: their Parse or one before it failed. Closed before they are parsed again.
    unsure: HashSet<u64, foldhash::fast::RandomState>,
    /// Sessions' own names that are there, and what they mean; `None`: it can't be told.
    named: HashMap<Box<[u8]>, Option<Named>, foldhash::fast::RandomState>,
    /// Those made since the last [`OnServer::settled`].
    recently_named: HashSet<Box<[u8]>, foldhash::fast::RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct Recent {
    id: u64,
    parsed: bool,
}

/// A look at all of a session's statements may have brought far more than the limit.
const EVICTED_AT_ONCE: usize = 16;

/// A session's own name on a server connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Absent,
    /// It means just that.
    Same,
    /// It may be there, and may mean something else.
    Other,
}

/// What must be closed on the server before a statement is parsed there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    pub evicted: Option<u64>,
    pub unsure: bool,
}

impl OnServer {
    /// Whether the statement is there; counts as a use.
    pub fn touch(&mut self, id: u64) -> bool {
        self.uses += 1;
        match self.used.get_mut(&id) {
            Some(last) => {
                *last = self.uses;
                true
            }
            None => false,
        }
    }

    /// Whether the statement is there.
    #[must_use]
    pub fn holds(&self, id: u64) -> bool {
        self.used.contains_key(&id)
    }

    /// The statement is parsed there now; what to close for it when more than `limit` would be.
    pub fn insert(&mut self, id: u64, limit: usize) -> Before {
        let evicted = (self.used.len() >= limit.max(1))
            .then(|| {
                self.used
                    .iter()
                    .min_by_key(|(_, last)| **last)
                    .map(|(id, _)| *id)
            })
            .flatten();
        if let Some(evicted) = evicted {
            self.used.remove(&evicted);
            // Its Close may be skipped, as may be the Parse.
            self.recent.push(Recent {
                id: evicted,
                parsed: false,
            });
        }
        self.uses += 1;
        self.used.insert(id, self.uses);
        self.recent.push(Recent { id, parsed: true });
        // A session may have a name of its own that looks like pgsplit's.
        let name = server_name(id);
        let taken = !self.named.is_empty() && self.named.remove(name.as_bytes()).is_some();
        Before {
            evicted,
            unsure: self.unsure.remove(&id) || taken,
        }
    }

    /// Whether a session's own `name` is there, and means `wanted`.
    #[must_use]
    pub fn presence(&self, name: &[u8], wanted: Option<&Named>) -> Presence {
        if own_id(name).is_some_and(|id| self.used.contains_key(&id) || self.unsure.contains(&id)) {
            return Presence::Other;
        }
        match (self.named.get(told_apart(name)), wanted) {
            (None, _) => Presence::Absent,
            (Some(Some(there)), Some(wanted)) if there == wanted => Presence::Same,
            (Some(_), _) => Presence::Other,
        }
    }

    /// `name` is there now, meaning `named`.
    pub fn name(&mut self, name: &[u8], named: Named) {
        let name = told_apart(name);
        self.named.insert(name.into(), Some(named));
        self.recently_named.insert(name.into());
    }

    /// `name`, which is there, is rested on: no room is made by closing it.
    pub fn keep(&mut self, name: &[u8], limit: usize) {
        if self.named.len() >= limit.max(1) {
            self.recently_named.insert(told_apart(name).into());
        }
    }

    /// `name` is to be made: names to close for it when more than `limit` would be there. Few at a
    /// time, and none that the request itself rests on.
    pub fn make_room(&mut self, name: &[u8], limit: usize) -> Vec<Box<[u8]>> {
        if self.named.len() < limit.max(1) || self.named.contains_key(told_apart(name)) {
            return Vec::new();
        }
        let excess = self.named.len() + 1 - limit.max(1);
        let old = self.named.keys();
        let old = old.filter(|name| !self.recently_named.contains(*name));
        let evicted: Vec<Box<[u8]>> = old.take(excess.min(EVICTED_AT_ONCE)).cloned().collect();
        for name in &evicted {
            self.named.remove(name);
            self.recently_named.insert(name.clone());
        }
        evicted
    }

    /// The statement is to be parsed again.
    pub fn doubt_shared(&mut self, id: u64) {
        if self.used.remove(&id).is_some() {
            self.unsure.insert(id);
        }
    }

    /// `name` may be there.
    pub fn doubt(&mut self, name: &[u8]) {
        let name = told_apart(name);
        self.named.insert(name.into(), None);
        self.recently_named.insert(name.into());
    }

    /// A PREPARE of `name` was carried out.
    pub fn defined(&mut self, name: &[u8], named: Named) {
        self.named.insert(told_apart(name).into(), Some(named));
    }

    /// `name` isn't there any more, unless its Close is skipped.
    pub fn unname(&mut self, name: &[u8]) {
        let name = told_apart(name);
        if self.named.remove(name).is_some() {
            self.recently_named.insert(name.into());
        }
        if let Some(id) = own_id(name)
            && (self.used.remove(&id).is_some() | self.unsure.remove(&id))
        {
            self.recent.push(Recent { id, parsed: false });
        }
    }

    /// Sessions' own names that may be there.
    pub fn names(&self) -> impl Iterator<Item = (&[u8], Option<&Named>)> {
        self.named
            .iter()
            .map(|(name, named)| (&**name, named.as_ref()))
    }

    /// Statements under pgsplit's names that may be there; they aren't any more, unless their Close
    /// is skipped.
    pub fn take_all(&mut self) -> Vec<u64> {
        let all: Vec<u64> = self.used.keys().chain(&self.unsure).copied().collect();
        self.used.clear();
        self.unsure.clear();
        let closed = |&id| Recent { id, parsed: false };
        self.recent.extend(all.iter().map(closed));
        all
    }

    /// The oldest Parse that wasn't acknowledged yet, was, and with it what was closed before it.
    pub fn parsed(&mut self) {
        if let Some(at) = self.recent.iter().position(|recent| recent.parsed) {
            self.recent.drain(..=at);
        }
    }

    /// All that was sent has been answered well.
    pub fn settled(&mut self) {
        self.recent.clear();
        self.recently_named.clear();
    }

    /// An error was answered: what was parsed since the last success may or may not be there.
    pub fn failed(&mut self) {
        for Recent { id, .. } in self.recent.drain(..) {
            self.used.remove(&id);
            self.unsure.insert(id);
        }
        for name in self.recently_named.drain() {
            self.named.insert(name, None);
        }
    }

    /// Plans made here may be out of date: each is closed and parsed again when it is next needed.
    pub fn doubt_all(&mut self) {
        self.unsure.extend(self.used.drain().map(|(id, _)| id));
        self.recent.clear();
        self.named.values_mut().for_each(|named| *named = None);
    }

    /// The server has dropped all; what it hasn't acknowledged may have been made behind that.
    pub fn clear(&mut self) {
        self.used.clear();
        self.unsure.clear();
        self.unsure
            .extend(self.recent.iter().map(|recent| recent.id));
        self.named.clear();
        for name in &self.recently_named {
            self.named.insert(name.clone(), None);
        }
    }
}

/// What servers tell a name by: its first 63 bytes, whatever the encoding (`src/backend/commands/prepare.c`
/// keeps names in a hash table with string keys of `NAMEDATALEN`).
fn told_apart(name: &[u8]) -> &[u8] {
    name.get(..MAX_NAME).unwrap_or(name)
}

/// The id in a name that is, or looks like, one of pgsplit's on servers.
fn own_id(name: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(name.strip_prefix(OWN_PREFIX)?).ok()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::settings::Tracker;

    fn reading(text: &[u8]) -> Reading {
        Reading::of(text, &Tracker::new(Arc::default()), false)
    }

    fn intern(statements: &Statements, text: &[u8], types: &[u8]) -> Arc<Statement> {
        statements.intern(text, types, reading(text))
    }

    fn from_sql(text: &[u8], body: usize) -> Named {
        Named::from_sql(text, body, reading(text))
    }

    #[test]
    fn a_text_that_is_read_otherwise_is_another_statement() {
        let statements = Statements::default();
        let text = b"select date '01/02/2026'";
        let a = intern(&statements, text, b"\0\0");
        let unknown = || statements.intern(text, b"\0\0", Reading::unknown());
        let ids = [a.id(), unknown().id(), unknown().id()];
        assert_eq!(ids, [0, 1, 2]);
        let sql = |reading| Named::from_sql(b"prepare a as select ''", 13, reading);
        let shared = sql(Reading::unknown());
        assert!(shared == shared.clone());
        assert!(sql(Reading::unknown()) != sql(Reading::unknown()));
    }

    #[test]
    fn the_same_text_and_types_are_the_same_statement() {
        let statements = Statements::default();
        let a = intern(&statements, b"select $1", b"\0\0");
        let b = intern(&statements, b"select $1", b"\0\0");
        let c = intern(&statements, b"select $1", b"\0\x01\0\0\0\x17");
        assert!(Arc::ptr_eq(&a, &b));
        assert_ne!(a.id(), c.id());
    }

    #[test]
    fn statements_that_no_session_holds_are_swept_out() {
        let statements = Statements::default();
        for i in 0..10_000 {
            drop(intern(
                &statements,
                format!("select {i}").as_bytes(),
                b"\0\0",
            ));
        }
        assert!(statements.known.lock().unwrap().statements.len() <= FIRST_SWEEP);
    }

    #[test]
    fn what_was_not_carried_out_is_undone() {
        let statements = Statements::default();
        let mut names = Names::default();
        names.prepare(b"a", intern(&statements, b"select 1", b"\0\0"));
        names.confirm();
        names.close(b"a");
        names.prepare(b"a", intern(&statements, b"select 2", b"\0\0"));
        names.prepare(b"b", intern(&statements, b"select 3", b"\0\0"));
        names.undo();
        assert_eq!(names.get(b"a").unwrap().text(), b"select 1");
        assert!(names.get(b"b").is_none());
    }

    #[test]
    fn what_is_prepared_behind_a_discard_stays() {
        let statements = Statements::default();
        let mut names = Names::default();
        names.prepare(b"a", intern(&statements, b"select 1", b"\0\0"));
        names.confirm();
        names.close(b"a");
        names.prepare(b"a", intern(&statements, b"select 2", b"\0\0"));
        names.clear();
        assert_eq!(names.get(b"a").unwrap().text(), b"select 2");
        names.undo();
        assert!(names.get(b"a").is_none());

        let mut on = OnServer::default();
        let _nothing = on.insert(1, 9);
        on.parsed();
        let _nothing = on.insert(2, 9);
        on.clear();
        assert!(!on.touch(1) && !on.touch(2));
        assert!(on.insert(2, 9).unsure);
    }

    #[test]
    fn the_least_recently_used_leaves_the_server() {
        let mut on = OnServer::default();
        assert_eq!(on.insert(1, 2), Before::default());
        assert_eq!(on.insert(2, 2), Before::default());
        assert!(on.touch(1));
        assert_eq!(on.insert(3, 2).evicted, Some(2));
        assert!(on.touch(1) && on.touch(3) && !on.touch(2));
    }

    #[test]
    fn after_an_error_what_was_parsed_is_closed_before_it_is_parsed_again() {
        let mut on = OnServer::default();
        let _nothing = on.insert(1, 9);
        on.settled();
        let _nothing = on.insert(2, 9);
        on.failed();
        assert!(on.touch(1) && !on.touch(2));
        assert!(on.insert(2, 9).unsure);
    }

    #[test]
    fn a_sessions_own_name_is_there_absent_or_something_else() {
        let mut on = OnServer::default();
        let a = from_sql(b"prepare a as select 1", 13);
        let same = from_sql(b"prepare a as select 1", 13);
        let b = from_sql(b"prepare a as select 2", 13);
        assert_eq!(a.text(), b"select 1");
        assert_eq!(on.presence(b"a", Some(&a)), Presence::Absent);
        on.name(b"a", a.clone());
        on.settled();
        assert_eq!(on.presence(b"a", Some(&same)), Presence::Same);
        assert_eq!(on.presence(b"a", Some(&b)), Presence::Other);
        assert_eq!(on.presence(b"a", None), Presence::Other);
        assert_eq!(*on.make_room(b"b", 1), [b"a".as_slice().into()]);
        on.name(b"b", b);
        on.failed();
        assert_eq!(on.presence(b"b", None), Presence::Other);
        on.unname(b"b");
        assert_eq!(on.presence(b"b", None), Presence::Absent);
    }

    #[test]
    fn there_are_no_more_names_than_allowed() {
        let mut on = OnServer::default();
        for number in 0..9 {
            let name = format!("n{number}");
            let evicted = on.make_room(name.as_bytes(), 3);
            assert_eq!(evicted.len(), usize::from(number >= 3));
            on.defined(name.as_bytes(), from_sql(b"prepare n as select 1", 13));
            on.settled();
        }
        assert_eq!(on.names().count(), 3);
        assert!(on.make_room(b"n8", 3).is_empty());
    }

    #[test]
    fn what_a_look_at_all_has_brought_is_closed_a_few_at_a_time() {
        let mut on = OnServer::default();
        let prepare = |number: u32| from_sql(b"prepare n as select 1", number as usize);
        for number in 0..10_000 {
            on.name(format!("n{number}").as_bytes(), prepare(number));
        }
        assert!(
            on.make_room(b"another", 3).is_empty(),
            "all are of this request"
        );
        on.settled();
        let mut closed = 0;
        for number in 0..1000 {
            let name = format!("m{number}");
            closed += on.make_room(name.as_bytes(), 3).len();
            on.name(name.as_bytes(), prepare(number));
            on.settled();
        }
        assert_eq!(on.names().count(), 10_000 + 1000 - closed);
        assert!(on.names().count() <= 3);
    }

    #[test]
    fn a_name_made_behind_discard_all_stays_in_doubt_when_that_is_answered() {
        let mut on = OnServer::default();
        on.doubt(b"s");
        on.clear();
        assert_eq!(on.presence(b"s", None), Presence::Other);
        on.settled();
        on.clear();
        assert_eq!(on.presence(b"s", None), Presence::Absent);
    }

    #[test]
    fn a_name_that_looks_like_pgsplits_own_never_means_its_statement() {
        let mut on = OnServer::default();
        let _nothing = on.insert(5, 9);
        assert_eq!(on.presence(b"pgsplit_5", None), Presence::Other);
        on.unname(b"pgsplit_5");
        on.defined(b"pgsplit_5", from_sql(b"prepare pgsplit_5 as select 1", 21));
        assert!(!on.touch(5));
        assert!(on.insert(5, 9).unsure);
    }
}
