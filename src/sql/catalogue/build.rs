//! Takes the rows of [`super::QUERIES`] and derives the [`Catalogue`].

use std::collections::{HashMap, HashSet};

use super::{
    Catalogue, QueryId, Untold,
    body::{Body, Reference},
    builtin::{self, Volatility},
    flags::{Bad, Flags},
    resolve::{self, Space},
    setters,
};
use crate::sql::Tables;

/// A kind of object and its oid.
pub(super) type Id = (Space, u32);

/// An object that a name may mean.
#[derive(Debug, Default)]
pub(super) struct Object {
    pub(super) name: Box<[u8]>,
    /// Why it isn't read-safe, with a word on it where its marking doesn't tell.
    pub(super) bad: Option<Bad>,
    pub(super) detail: Option<Box<str>>,
    /// Of functions: can be called with one argument.
    pub(super) attribute: bool,
    /// Of trigger functions, and of relations by their rules: may change session state unseen.
    pub(super) session: Option<&'static str>,
    pub(super) references: Box<[(Reference, Box<[u8]>)]>,
    /// Of relations: a table, and nothing but triggers happens besides when it is written to.
    pub(super) table: bool,
    /// What it reads or writes besides what it rests on and refers to.
    pub(super) tables: Tables,
    /// Of functions: writes.
    pub(super) writes: bool,
    pub(super) sets: Sets,
}

/// How a function may set settings whose names are made at run time.
#[derive(Debug, Default)]
pub(super) enum Sets {
    /// Only by what it refers to.
    #[default]
    Otherwise,
    Itself,
    /// It runs SQL that is made at run time: by whatever is a word of its source.
    Mentions(Box<[Vec<u8>]>),
}

/// Collects rows. Rows that can't be understood count as the worst that they could mean.
#[derive(Debug, Default)]
pub struct CatalogueBuilder {
    pub(super) objects: HashMap<Id, Object>,
    /// Names of PostgreSQL's own objects that are only known to exist.
    pub(super) known: Vec<(Box<[u8]>, Flags)>,
    /// From an object to what it rests on.
    pub(super) edges: Vec<(Id, Id)>,
    /// From a relation to its triggers' functions, and to others that a write to it calls.
    pub(super) triggers: Vec<(u32, u32)>,
    /// Objects that do something not read-safe themselves.
    pub(super) marked: Vec<(Id, &'static str)>,
    /// Settings with a prefix that functions' sources set.
    pub(super) settings: Untold,
    pub(super) isolations: Vec<DefaultIsolation>,
    /// A table, and one that inherits from it.
    pub(super) heirs: Vec<(u32, u32)>,
    /// A table, and one whose rows follow when a key of it changes.
    pub(super) cascades: Vec<(u32, u32)>,
}

/// A `default_transaction_isolation` that isn't a session's own.
#[derive(Clone, Debug)]
pub(super) struct DefaultIsolation {
    /// Of several the highest counts.
    pub(super) rank: u8,
    /// Whose; `None`: everybody's.
    pub(super) role: Option<Box<str>>,
    /// Each statement has a snapshot of its own.
    pub(super) by_statement: bool,
}

impl CatalogueBuilder {
    /// Nothing known yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One row of the answer to `query`: its columns in order. A row that doesn't have the shape
    /// that [`super::QUERIES`] asks for is left out, so that its name stays unknown.
    pub fn row(&mut self, query: QueryId, columns: &[Option<&str>]) {
        // What is missed can't make anything read-safe: names that stay unknown aren't.
        let _understood = match query {
            QueryId::Schemas => self.schema(columns),
            QueryId::Functions => self.function(columns),
            QueryId::Operators => self.operator(columns),
            QueryId::Relations => self.relation(columns),
            QueryId::Types => self.r#type(columns),
            QueryId::Edges => self.edge(columns),
            QueryId::Reached => self.reached(columns),
            QueryId::Isolations => self.isolation(columns),
            QueryId::Kin => self.kin(columns),
        };
    }

    /// Derives what is read-safe. `generation` tells this catalogue from others.
    #[must_use]
    pub fn finish(self, generation: u64) -> Catalogue {
        resolve::resolve(self, generation)
    }

    fn schema(&mut self, columns: &[Option<&str>]) -> Option<()> {
        self.known.push((bytes(text(columns, 0)?), Flags::SCHEMA));
        Some(())
    }

    fn isolation(&mut self, columns: &[Option<&str>]) -> Option<()> {
        let value = text(columns, 2).map(str::to_ascii_lowercase);
        self.isolations.push(DefaultIsolation {
            rank: text(columns, 0)?.parse().ok()?,
            role: text(columns, 1).map(Into::into),
            by_statement: matches!(
                value.as_deref(),
                Some("read committed" | "read uncommitted")
            ),
        });
        Some(())
    }

    fn kin(&mut self, columns: &[Option<&str>]) -> Option<()> {
        let pair = (oid(columns, 1)?, oid(columns, 2)?);
        match text(columns, 0)? {
            "i" => self.heirs.push(pair),
            _ => self.cascades.push(pair),
        }
        Some(())
    }

    fn function(&mut self, columns: &[Option<&str>]) -> Option<()> {
        let id = (Space::Function, oid(columns, 0)?);
        let name = text(columns, 1)?;
        let origin = text(columns, 2)?;
        let kind = text(columns, 3)?;
        let volatility = match text(columns, 4)? {
            "i" => Volatility::Immutable,
            "s" => Volatility::Stable,
            _ => Volatility::Volatile,
        };
        let language = text(columns, 5)?;
        let source = text(columns, 8);
        let mut object = Object {
            name: bytes(name),
            attribute: text(columns, 6)? == "true",
            ..Object::default()
        };
        let trigger = text(columns, 7)? == "true";
        let aggregate = kind == "a";
        if origin == "b" {
            object.bad = builtin::function(name, volatility);
            if object.bad.is_some() && !builtin::touches_no_table(name) {
                object.tables = Tables::ALL;
            }
        } else if aggregate {
            // Its marking says nothing; what it rests on does.
        } else if matches!(language, "c" | "internal") {
            object.bad = match origin.strip_prefix("e:") {
                Some(extension) => {
                    object.detail = Some(format!("a function of extension {extension}").into());
                    builtin::extension_function(extension, name, volatility)
                }
                None => {
                    object.session = Some("its source can't be looked into");
                    Some(Bad::FUNCTION)
                }
            };
            if object.bad.is_some() {
                object.tables = Tables::ALL;
            }
        } else {
            if volatility == Volatility::Volatile {
                // What it does to the session is told by its source.
                object.bad = Some(Bad::QUIET_FUNCTION);
                object.detail = Some("marked VOLATILE".into());
            }
            self.source(&mut object, source, language);
        }
        if kind == "p" {
            object.bad = Some(Bad::FUNCTION);
        }
        if trigger {
            object.bad = object.bad.or(Some(Bad::FUNCTION));
        }
        self.objects.insert(id, object);
        Some(())
    }

    /// Reads what a user's function does.
    fn source(&mut self, object: &mut Object, source: Option<&str>, language: &str) {
        let Some(source) = source else {
            if object.bad.is_none() {
                object.bad = Some(Bad::FUNCTION);
                object.detail =
                    Some(format!("its source in {language} can't be looked into").into());
            }
            object.session = Some("its source can't be looked into");
            object.tables = Tables::ALL;
            if let Some(bad) = &mut object.bad {
                bad.observe = true;
            }
            return;
        };
        let body = Body::read(source);
        if let Some(why) = body.suspicious
            && object.bad.is_none()
        {
            object.bad = Some(Bad::FUNCTION);
            object.detail = Some(format!("not marked VOLATILE, but its source {why}").into());
        }
        object.session = body.session;
        object.writes = body.writes;
        if body.untold {
            object.tables = Tables::ALL;
        }
        self.settings.see(source.as_bytes());
        let mut own = Untold::default();
        own.see(source.as_bytes());
        if own.others {
            object.sets = Sets::Itself;
        } else if body.dynamic {
            let words: HashSet<Vec<u8>> = setters::words(source.as_bytes()).collect();
            object.sets = Sets::Mentions(words.into_iter().collect());
        }
        if let Some(bad) = &mut object.bad {
            bad.observe |= object.session.is_some();
        }
        object.references = body.references.into_iter().collect();
    }

    fn operator(&mut self, columns: &[Option<&str>]) -> Option<()> {
        let name = bytes(text(columns, 1)?);
        let Some(oid) = oid(columns, 0) else {
            self.known.push((name, Flags::OPERATOR));
            return Some(());
        };
        let id = (Space::Operator, oid);
        self.functions_of(id, columns, 2);
        self.objects.insert(
            id,
            Object {
                name,
                ..Object::default()
            },
        );
        Some(())
    }

    fn relation(&mut self, columns: &[Option<&str>]) -> Option<()> {
        let id = (Space::Relation, oid(columns, 0)?);
        let name = text(columns, 1)?;
        let kind = text(columns, 2)?;
        let unlogged = text(columns, 3)? != "p";
        let own = text(columns, 4)? == "true";
        let catalogue = text(columns, 5)? == "true" || text(columns, 5)? == "t";
        let (local, detail) = match kind {
            "r" | "p" | "m" if unlogged => (true, "unlogged"),
            "r" | "p" | "m" => (false, ""),
            "S" => (true, "a sequence"),
            "f" => (true, "a foreign table"),
            "v" if own && catalogue && !builtin::replicated_view(name) => {
                (true, "shows the node's own state")
            }
            "v" => (false, ""),
            _ => (true, "of a kind that isn't known"),
        };
        let table = matches!(kind, "r" | "p" | "m");
        let rules = text(columns, 6)? != "false";
        let object = Object {
            table: table && !rules,
            session: rules.then_some("has rules"),
            tables: match kind {
                _ if table => Tables::of(name.as_bytes()),
                "v" if !own => Tables::NONE,
                _ => Tables::ALL,
            },
            name: bytes(name),
            bad: local.then_some(Bad::LOCAL),
            detail: local.then(|| detail.into()),
            ..Object::default()
        };
        self.objects.insert(id, object);
        Some(())
    }

    fn r#type(&mut self, columns: &[Option<&str>]) -> Option<()> {
        let name = bytes(text(columns, 1)?);
        let Some(oid) = oid(columns, 0) else {
            self.known.push((name, Flags::TYPE));
            return Some(());
        };
        let id = (Space::Type, oid);
        self.functions_of(id, columns, 2);
        self.objects.insert(
            id,
            Object {
                name,
                ..Object::default()
            },
        );
        Some(())
    }

    /// Edges to the functions whose oids a column lists.
    fn functions_of(&mut self, id: Id, columns: &[Option<&str>], column: usize) {
        for function in text(columns, column).unwrap_or_default().split(' ') {
            if let Ok(function) = function.parse() {
                self.edges.push((id, (Space::Function, function)));
            }
        }
    }

    fn edge(&mut self, columns: &[Option<&str>]) -> Option<()> {
        let owner = oid(columns, 1)?;
        let target = (space(text(columns, 2)?)?, oid(columns, 3)?);
        if text(columns, 0)? == "g" {
            self.triggers.push((owner, target.1));
        } else {
            self.edges
                .push(((space(text(columns, 0)?)?, owner), target));
        }
        Some(())
    }

    fn reached(&mut self, columns: &[Option<&str>]) -> Option<()> {
        if text(columns, 0)? == "g" {
            // What else is in such an expression tells nothing of what a write does.
            if text(columns, 2)? == "f" {
                self.triggers.push((oid(columns, 1)?, oid(columns, 3)?));
            }
            return Some(());
        }
        let owner = (space(text(columns, 0)?)?, oid(columns, 1)?);
        match text(columns, 2)? {
            "f" => self
                .edges
                .push((owner, (Space::Function, oid(columns, 3)?))),
            "r" => self
                .edges
                .push((owner, (Space::Relation, oid(columns, 3)?))),
            "s" if own_setting(text(columns, 3)?) => {}
            "s" => self.marked.push((owner, "asks for a setting")),
            "l" => self.marked.push((owner, "locks rows")),
            _ => self.marked.push((owner, "writes")),
        }
        Some(())
    }
}

/// The bytes of a text value, header included, name a setting of the application.
fn own_setting(varlena: &str) -> bool {
    let bytes: Option<Vec<u8>> = varlena
        .split_ascii_whitespace()
        // Printed as signed or unsigned, depending on the server's platform.
        .map(|byte| byte.parse::<i16>().ok().map(|b| b.to_le_bytes()[0]))
        .collect();
    bytes
        .as_deref()
        .and_then(|bytes| bytes.get(4..))
        .is_some_and(super::body::is_own_setting)
}

fn text<'r>(columns: &[Option<&'r str>], at: usize) -> Option<&'r str> {
    columns.get(at).copied().flatten()
}

fn oid(columns: &[Option<&str>], at: usize) -> Option<u32> {
    text(columns, at)?.parse().ok()
}

fn bytes(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

fn space(kind: &str) -> Option<Space> {
    match kind {
        "f" => Some(Space::Function),
        "o" => Some(Space::Operator),
        "r" => Some(Space::Relation),
        "t" => Some(Space::Type),
        _ => None,
    }
}
