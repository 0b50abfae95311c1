//! A session's settings as data: what a server connection must be brought to, and how.
//!
//! A [`Settings`] is immutable and shared: sessions with the same settings hold the same one, a
//! savepoint costs a pointer, and "does this connection fit?" is mostly a comparison of pointers.
//! It holds only what differs from a fresh server connection of the same user and database.

use std::{fmt::Write as _, sync::Arc};

use super::datestyle::DateStyle;
use super::reading;
use super::savepoints::Savepoints;
use super::spelling::{quoted_name, set};
use crate::sql::{Effect, Scope, SettingValue};

/// How a value is set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// As the client's SET wrote it behind TO.
    Sql(Box<str>),
    /// As plain text: from the startup packet, or read back from a server.
    Text(Box<str>),
}

impl Value {
    /// The value's text, where its spelling is the text itself or simply quoted.
    fn plain(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Sql(sql) => {
                let text = sql
                    .strip_prefix('\'')
                    .and_then(|rest| rest.strip_suffix('\''))
                    .unwrap_or(sql);
                (!text.contains(['\'', '\\', '"', ','])).then_some(text)
            }
        }
    }
}

impl Value {
    fn datestyle(&self) -> Option<DateStyle> {
        let (Self::Sql(text) | Self::Text(text)) = self;
        DateStyle::read(text)
    }
}

/// Settings that differ from a fresh connection's, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    entries: Vec<(Box<str>, Value)>,
}

/// Settings that no connection is brought to: they end with their transaction, whatever the SET says,
/// or (`seed`) act once.
const UNTRACKED: [&str; 4] = [
    "transaction_isolation",
    "transaction_read_only",
    "transaction_deferrable",
    "seed",
];
pub(super) const SESSION_AUTHORIZATION: &str = "session_authorization";
pub(super) const ROLE: &str = "role";
const DATESTYLE: &str = "datestyle";

impl Settings {
    /// Those of a startup packet; the last of a name counts.
    #[must_use]
    pub fn from_startup(parameters: &[(Box<str>, Box<str>)]) -> Self {
        let mut settings = Self::default();
        for (name, value) in parameters {
            let name = name.to_ascii_lowercase().into_boxed_str();
            settings.insert(name, Value::Text(value.clone()));
        }
        settings
    }

    fn insert(&mut self, name: Box<str>, value: Value) {
        match self
            .entries
            .binary_search_by(|(known, _)| (**known).cmp(&name))
        {
            Ok(at) => {
                if let Some(entry) = self.entries.get_mut(at) {
                    entry.1 = value;
                }
            }
            Err(at) => self.entries.insert(at, (name, value)),
        }
    }

    /// The value of `name`, when it is set here.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self
            .entries
            .binary_search_by(|(known, _)| (**known).cmp(name))
            .ok()?;
        self.entries.get(at).map(|(_, value)| value)
    }

    /// Nothing differs from a fresh connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Of these, those whose name counts.
    #[must_use]
    pub fn only(&self, counts: impl Fn(&str) -> bool) -> Self {
        let counting = self.entries.iter().filter(|(name, _)| counts(name));
        Self {
            entries: counting.cloned().collect(),
        }
    }

    /// The statements that set these for a transaction, where they stand at their defaults.
    pub fn write_local(&self, sql: &mut String) {
        for (name, value) in &self.entries {
            set(sql, name, value, Scope::Local);
        }
    }

    /// The statements that set again what this effect resets, if these are what a startup packet asked
    /// for: a server connection goes back to its own defaults.
    #[must_use]
    pub fn restore(&self, effect: &Effect) -> Vec<String> {
        let (of, scope) = match effect {
            Effect::Set {
                name,
                value: SettingValue::Default,
                scope,
            } => (Some(&**name), *scope),
            Effect::ResetAll | Effect::DiscardAll => (None, Scope::Session),
            _ => return Vec::new(),
        };
        let whole = *effect == Effect::DiscardAll;
        let resets = |name: &str| match of {
            Some(SESSION_AUTHORIZATION) if name == ROLE => true,
            Some(of) => name == of,
            None => whole || !is_identity(name),
        };
        let reset = self.entries.iter().filter(|(name, _)| resets(name));
        reset
            .map(|(name, value)| {
                let mut sql = String::new();
                set(&mut sql, name, value, scope);
                sql
            })
            .collect()
    }

    /// With what a startup packet asked for where nothing is known: something has reset it, and a
    /// server connection goes back to its own defaults.
    #[must_use]
    pub fn over(mut self, base: &Self) -> Self {
        for (name, value) in &base.entries {
            if self.get(name).is_none() && !is_identity(name) {
                self.insert(name.clone(), value.clone());
            }
        }
        self
    }

    /// With `name` set, or as it was in `base`.
    #[must_use]
    pub fn with(&self, base: &Self, name: &str, to: &SettingValue) -> Self {
        let mut changed = self.clone();
        let value = match to {
            SettingValue::Default => base.get(name).cloned(),
            SettingValue::Sql(sql) => Some(self.value(name, sql)),
        };
        match value {
            Some(value) => changed.insert(name.into(), value),
            None => changed.entries.retain(|(known, _)| **known != *name),
        }
        // SET SESSION AUTHORIZATION also resets the role (PostgreSQL manual, "SET SESSION AUTHORIZATION").
        if name == SESSION_AUTHORIZATION {
            match base.get(ROLE).filter(|_| *to == SettingValue::Default) {
                Some(role) => changed.insert(ROLE.into(), role.clone()),
                None => changed.entries.retain(|(known, _)| &**known != ROLE),
            }
        }
        changed
    }

    /// What `name` is once it was set to this.
    fn value(&self, name: &str, sql: &str) -> Value {
        let read = (name == DATESTYLE).then(|| DateStyle::read(sql)).flatten();
        match read {
            None => Value::Sql(sql.into()),
            Some(new) => Value::Text(new.over(self.get(name).and_then(Value::datestyle)).text()),
        }
    }

    /// As after RESET ALL, which leaves role and session authorization alone.
    #[must_use]
    pub fn reset_all(&self, base: &Self) -> Self {
        let mut reset = base.clone();
        for name in [SESSION_AUTHORIZATION, ROLE] {
            match self.get(name) {
                Some(value) => reset.insert(name.into(), value.clone()),
                None => reset.entries.retain(|(known, _)| &**known != name),
            }
        }
        reset
    }

    /// What a look at the backend found, as plain text.
    #[must_use]
    pub fn from_observed(observed: impl IntoIterator<Item = (Box<str>, Box<str>)>) -> Self {
        let mut settings = Self::default();
        for (mut name, value) in observed {
            // pg_settings has DateStyle and the like: one setting has one name here.
            name.make_ascii_lowercase();
            if !UNTRACKED.contains(&&*name) {
                settings.insert(name, Value::Text(value));
            }
        }
        settings
    }

    /// These observed settings, with those that have a prefix: as they were tracked, unless `custom`,
    /// which gives those that were asked for, tells another value. A setting that was never set reads
    /// as none or, where the connection has known it before, as empty.
    #[must_use]
    pub fn reconciled(
        mut self,
        tracked: &Self,
        custom: impl IntoIterator<Item = (Box<str>, Option<Box<str>>)>,
    ) -> Self {
        for (name, value) in &tracked.entries {
            if name.contains('.') {
                self.insert(name.clone(), value.clone());
            }
        }
        for (name, value) in custom {
            let known = tracked.get(&name);
            match value {
                Some(value) if known.is_some_and(|known| known.plain() == Some(&*value)) => {}
                Some(value) if known.is_none() && value.is_empty() => {}
                Some(value) => self.insert(name, Value::Text(value)),
                None => self.entries.retain(|(known, _)| *known != name),
            }
        }
        self
    }

    /// Names of those that have a prefix.
    pub fn custom(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .map(|(name, _)| &**name)
            .filter(|name| name.contains('.'))
    }

    /// A role or session authorization is set: a failure to carry it over must not go unnoticed.
    #[must_use]
    pub fn changes_identity(&self) -> bool {
        self.get(ROLE).is_some() || self.get(SESSION_AUTHORIZATION).is_some()
    }

    /// The statements that bring a connection from `self` to `to`; `None` when there are none.
    #[must_use]
    pub fn statements_to(&self, to: &Self) -> Option<String> {
        if self == to {
            return None;
        }
        let mut sql = String::new();
        // Back to the login's own identity first: it is the one that may set everything else.
        for name in [ROLE, SESSION_AUTHORIZATION] {
            if self.get(name).is_some() && self.get(name) != to.get(name)
                || name == ROLE
                    && self.get(ROLE).is_some()
                    && self.get(SESSION_AUTHORIZATION) != to.get(SESSION_AUTHORIZATION)
            {
                sql.push_str(if name == ROLE {
                    "RESET ROLE;"
                } else {
                    "RESET SESSION AUTHORIZATION;"
                });
            }
        }
        for (name, _) in &self.entries {
            if to.get(name).is_none() && !is_identity(name) {
                let _infallible = write!(sql, "RESET {};", quoted_name(name));
            }
        }
        for (name, value) in &to.entries {
            if self.get(name) != Some(value) && !is_identity(name) {
                // The part that isn't named is that of a fresh connection.
                let partial =
                    &**name == DATESTYLE && !value.datestyle().is_some_and(DateStyle::is_whole);
                if partial && self.get(name).is_some() {
                    let _infallible = write!(sql, "RESET {};", quoted_name(name));
                }
                set(&mut sql, name, value, Scope::Session);
            }
        }
        let reauthorized = self.get(SESSION_AUTHORIZATION) != to.get(SESSION_AUTHORIZATION);
        for name in [SESSION_AUTHORIZATION, ROLE] {
            if let Some(value) = to.get(name)
                && (self.get(name) != Some(value) || reauthorized)
            {
                set(&mut sql, name, value, Scope::Session);
            }
        }
        Some(sql)
    }

    /// A connection in any state is brought here by these.
    #[must_use]
    pub fn statements_from_unknown(&self) -> String {
        let mut sql = String::from("RESET ROLE;RESET SESSION AUTHORIZATION;RESET ALL;");
        if let Some(rest) = Self::default().statements_to(self) {
            sql.push_str(&rest);
        }
        sql
    }
}

fn is_identity(name: &str) -> bool {
    name == ROLE || name == SESSION_AUTHORIZATION
}

/// A session's settings through transactions, savepoints and rollbacks.
///
/// Only what outlives its transaction is tracked: SET LOCAL is the server's own business, since a
/// transaction stays on its connection. That there was one is known, for what is read in it ([`reading`]).
#[derive(Debug)]
pub struct Tracker {
    base: Arc<Settings>,
    /// As they are now, in the open transaction if there is one.
    current: Arc<Settings>,
    /// What a rollback returns to, while a transaction has changed something or has savepoints.
    open: Option<Box<Open>>,
    /// Something may have been set since the session began.
    changed: bool,
}

#[derive(Debug)]
struct Open {
    /// As before the transaction.
    before: Arc<Settings>,
    /// As when each savepoint was set.
    savepoints: Savepoints<Arc<Settings>>,
    /// Something that decides what literals mean was set until its end.
    local_literals: bool,
}

impl Tracker {
    /// A session that starts with what its startup packet asked for.
    #[must_use]
    pub fn new(base: Arc<Settings>) -> Self {
        Self {
            current: Arc::clone(&base),
            base,
            open: None,
            changed: false,
        }
    }

    /// As they are now.
    #[must_use]
    pub fn current(&self) -> &Arc<Settings> {
        &self.current
    }

    /// Something may have been set since the session began.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// As they were before the open transaction, if there is one: what a server connection must
    /// have when it begins.
    #[must_use]
    pub fn outside(&self) -> &Arc<Settings> {
        self.open
            .as_ref()
            .map_or(&self.current, |open| &open.before)
    }

    /// What decides how literals are read is set until the end of the open transaction.
    #[must_use]
    pub fn has_local_literals(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.local_literals)
    }

    /// As the startup packet asked.
    #[must_use]
    pub fn base(&self) -> &Arc<Settings> {
        &self.base
    }

    /// The startup packet asked for a value of what a ParameterStatus names so.
    #[must_use]
    pub fn asks_for(&self, name: &[u8]) -> bool {
        let mut entries = self.base.entries.iter();
        entries.any(|(asked, _)| asked.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Fresh connections have begun to differ from what the session was told at its start: what is
    /// named here is as it was told. Returns whether that could be done: not while a transaction is open.
    pub fn keep<'a>(&mut self, told: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
        if self.open.is_some() {
            return false;
        }
        self.changed = true;
        let unchanged = Arc::ptr_eq(&self.current, &self.base);
        for (name, value) in told {
            let name = name.to_ascii_lowercase();
            for settings in [&mut self.base, &mut self.current] {
                if settings.get(&name).is_none() {
                    let value = Value::Text(value.into());
                    Arc::make_mut(settings).insert(name.clone().into_boxed_str(), value);
                }
            }
        }
        if unchanged {
            self.current = Arc::clone(&self.base);
        }
        true
    }

    fn open(&mut self) -> &mut Open {
        self.changed = true;
        self.open.get_or_insert_with(|| {
            Box::new(Open {
                before: Arc::clone(&self.current),
                savepoints: Savepoints::default(),
                local_literals: false,
            })
        })
    }

    fn change(&mut self, to: Settings) {
        self.open();
        if to != *self.current {
            self.current = if to == *self.base {
                Arc::clone(&self.base)
            } else {
                Arc::new(to)
            };
        }
    }

    /// A SET or RESET succeeded.
    pub fn set(&mut self, name: &str, value: &SettingValue, scope: Scope) {
        if scope == Scope::Local && reading::is_of_literals(name) {
            self.open().local_literals = true;
        }
        if scope == Scope::Session && !UNTRACKED.contains(&name) {
            self.change(self.current.with(&self.base, name, value));
        }
    }

    /// RESET ALL succeeded.
    pub fn reset_all(&mut self) {
        self.change(self.current.reset_all(&self.base));
    }

    /// DISCARD ALL succeeded (never inside a transaction).
    pub fn discard_all(&mut self) {
        self.open = None;
        self.current = Arc::clone(&self.base);
    }

    /// A look at the backend found these, outside a transaction.
    pub fn observed(&mut self, found: &Settings) {
        self.open = None;
        if *found != *self.current {
            self.changed = true;
            self.current = Arc::new(found.clone().over(&self.base));
        }
    }

    /// SAVEPOINT succeeded.
    pub fn savepoint(&mut self, name: &str) {
        let current = Arc::clone(&self.current);
        self.open().savepoints.set(name, current);
    }

    /// ROLLBACK TO SAVEPOINT succeeded.
    pub fn rollback_to(&mut self, name: &str) {
        if let Some(open) = &mut self.open
            && let Some(settings) = open.savepoints.rollback_to(name)
        {
            self.current = Arc::clone(settings);
        }
    }

    /// RELEASE SAVEPOINT succeeded.
    pub fn release(&mut self, name: &str) {
        if let Some(open) = &mut self.open {
            open.savepoints.release(name);
        }
    }

    /// The transaction, or the implicit one of a request, ended.
    pub fn ended(&mut self, committed: bool) {
        if let Some(open) = self.open.take()
            && !committed
        {
            self.current = open.before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(text: &str) -> SettingValue {
        SettingValue::Sql(text.into())
    }

    fn tracker() -> Tracker {
        Tracker::new(Arc::new(Settings::from_startup(&[(
            "TimeZone".into(),
            "UTC".into(),
        )])))
    }

    #[test]
    fn reset_goes_back_to_the_startup_packet() {
        let mut tracker = tracker();
        tracker.set("timezone", &sql("'Asia/Tokyo'"), Scope::Session);
        tracker.set("work_mem", &sql("'1MB'"), Scope::Session);
        tracker.ended(true);
        tracker.reset_all();
        tracker.ended(true);
        assert!(Arc::ptr_eq(tracker.current(), tracker.base()));
    }

    #[test]
    fn what_was_told_is_kept_beneath_what_was_set() {
        let mut tracker = tracker();
        tracker.set("intervalstyle", &sql("iso_8601"), Scope::Session);
        let told = || [("TimeZone", "Asia/Tokyo"), ("IntervalStyle", "postgres")].into_iter();
        assert!(!tracker.keep(told()), "not inside a transaction");
        tracker.ended(true);
        assert!(tracker.keep(told()));
        let text = |settings: &Settings, name: &str| settings.get(name).cloned();
        let value = |text: &str| Some(Value::Text(text.into()));
        assert_eq!(text(tracker.current(), "timezone"), value("UTC"));
        assert_eq!(
            text(tracker.current(), "intervalstyle"),
            Some(Value::Sql("iso_8601".into()))
        );
        tracker.reset_all();
        assert_eq!(text(tracker.current(), "intervalstyle"), value("postgres"));
        assert!(Arc::ptr_eq(tracker.current(), tracker.base()));
    }

    #[test]
    fn rollback_restores_and_rollback_to_restores_the_savepoints_settings() {
        let mut tracker = tracker();
        tracker.set("a", &sql("1"), Scope::Session);
        tracker.savepoint("s");
        tracker.set("a", &sql("2"), Scope::Session);
        tracker.set("b", &sql("2"), Scope::Local);
        tracker.rollback_to("s");
        assert_eq!(tracker.current().get("a"), Some(&Value::Sql("1".into())));
        assert_eq!(tracker.current().get("b"), None);
        tracker.ended(false);
        assert_eq!(tracker.current().get("a"), None);
    }

    #[test]
    fn what_a_look_finds_and_what_a_text_sets_is_the_same_setting() {
        let found = Settings::from_observed([("DateStyle".into(), "ISO, MDY".into())]);
        let set = found.with(&Settings::default(), "datestyle", &sql("german"));
        assert_eq!(
            found.statements_to(&set).unwrap(),
            "SET \"datestyle\" TO 'German, DMY';"
        );
        assert_eq!(
            set.statements_to(&Settings::default()).unwrap(),
            "RESET \"datestyle\";"
        );
    }

    #[test]
    fn a_date_style_set_in_parts_is_whole_on_every_connection() {
        let base = Settings::default();
        let order = base.with(&base, "datestyle", &sql("dmy"));
        let both = order.with(&base, "datestyle", &sql("iso"));
        assert_eq!(
            base.statements_to(&both).unwrap(),
            "SET \"datestyle\" TO 'ISO, DMY';"
        );
        // The style is a fresh connection's.
        assert_eq!(
            both.statements_to(&order).unwrap(),
            "RESET \"datestyle\";SET \"datestyle\" TO 'DMY';"
        );
    }

    #[test]
    fn statements_set_what_differs_and_reset_what_is_gone() {
        let from = Settings::default().with(&Settings::default(), "a", &sql("1"));
        let to = Settings::default().with(&Settings::default(), "app.b", &sql("'x'"));
        assert_eq!(
            from.statements_to(&to).unwrap(),
            "RESET \"a\";SET \"app\".\"b\" TO 'x';"
        );
        assert_eq!(from.statements_to(&from.clone()), None);
    }

    #[test]
    fn identity_is_left_first_and_taken_last() {
        let none = Settings::default();
        let role = none.with(&none, "role", &sql("alice"));
        let both = none
            .with(&none, "work_mem", &sql("'1MB'"))
            .with(&none, "role", &sql("bob"));
        assert_eq!(
            role.statements_to(&both).unwrap(),
            "RESET ROLE;SET \"work_mem\" TO '1MB';SET \"role\" TO bob;"
        );
        assert_eq!(
            both.statements_to(&none).unwrap(),
            "RESET ROLE;RESET \"work_mem\";"
        );
    }
}
