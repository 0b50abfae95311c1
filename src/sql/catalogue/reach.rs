//! Which tables are read or written by whatever names something: through views and policies, through
//! functions and what these call, and, where something is written, through triggers, defaults,
//! checks, cascades and inheritance.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::{
    body::Reference,
    build::{CatalogueBuilder, Id, Object},
    resolve::{FIRST_USER_OID, IMPLIED, Space},
};
use crate::sql::Tables;

/// By name, over all objects of that name.
#[derive(Debug, Default)]
pub(super) struct Reach {
    relations: HashMap<Box<[u8]>, Relation, FixedState>,
    /// Functions, operators and types, where it isn't no table at all.
    others: HashMap<Box<[u8]>, Tables, FixedState>,
    /// By operators that words imply, and by implicit casts between PostgreSQL's own types.
    pub(super) implied: Tables,
}

/// What it takes to read a relation, and to write to it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Relation {
    pub(super) reads: Tables,
    pub(super) writes: Tables,
}

impl Reach {
    pub(super) fn relation(&self, name: &[u8]) -> Relation {
        self.relations.get(name).copied().unwrap_or(Relation {
            reads: Tables::ALL,
            writes: Tables::ALL,
        })
    }

    pub(super) fn run(&self, name: &[u8]) -> Tables {
        self.others.get(name).copied().unwrap_or_default()
    }

    /// Names for which [`Self::run`] tells of a table.
    pub(super) fn running(&self) -> impl Iterator<Item = &[u8]> {
        self.others.keys().map(|name| &**name)
    }

    pub(super) fn of(builder: &CatalogueBuilder) -> Self {
        let families = Families::of(builder);
        let mut spread = Spread::new(builder, &families);
        while spread.once() {}
        let mut reach = Self::default();
        for (&id @ (space, oid), object) in &builder.objects {
            if object.name.is_empty() {
                continue;
            }
            let runs = spread.reads(id);
            if space == Space::Relation {
                let of_name = reach.relations.entry(object.name.clone()).or_default();
                of_name.reads = of_name.reads.with(runs);
                of_name.writes = of_name.writes.with(spread.writes(oid));
            } else if !runs.is_none() {
                let of_name = reach.others.entry(object.name.clone()).or_default();
                *of_name = of_name.with(runs);
            }
        }
        reach.implied = IMPLIED
            .iter()
            .map(|operator| reach.run(operator))
            .chain(builder.edges.iter().map(|&(owner, target)| {
                // Of PostgreSQL's own types no names are listed.
                if owner.1 < FIRST_USER_OID && !builder.objects.contains_key(&owner) {
                    spread.reads(target)
                } else {
                    Tables::NONE
                }
            }))
            .fold(Tables::NONE, Tables::with);
        reach
    }
}

/// Tables that share rows, since one inherits from the other, are one: reading any shows what was
/// written to any.
struct Families(HashMap<u32, u32>);

impl Families {
    fn of(builder: &CatalogueBuilder) -> Self {
        let mut families = Self(HashMap::new());
        for &(parent, child) in &builder.heirs {
            let (a, b) = (families.head(parent), families.head(child));
            if a != b {
                // The same whatever the order of rows.
                families.0.insert(a.max(b), a.min(b));
            }
        }
        families
    }

    fn head(&self, table: u32) -> u32 {
        let mut head = table;
        while let Some(&next) = self.0.get(&head) {
            head = next;
        }
        head
    }
}

/// Passes on, from object to object, which tables each may read or write.
struct Spread<'b> {
    builder: &'b CatalogueBuilder,
    families: &'b Families,
    by_name: HashMap<(Space, &'b [u8]), Vec<u32>>,
    reads: HashMap<Id, Tables>,
    /// Of families, by their heads.
    writes: HashMap<u32, Tables>,
    changed: bool,
}

impl<'b> Spread<'b> {
    fn new(builder: &'b CatalogueBuilder, families: &'b Families) -> Self {
        let mut by_name: HashMap<_, Vec<u32>> = HashMap::new();
        let mut reads = HashMap::new();
        let mut writes: HashMap<u32, Tables> = HashMap::new();
        // Array types and the like, which no query lists, are what they rest on.
        let users = builder.edges.iter().map(|(owner, _)| *owner);
        reads.extend(
            users
                .filter(|owner| owner.1 >= FIRST_USER_OID)
                .map(|owner| (owner, Tables::NONE)),
        );
        for (&(space, oid), object) in &builder.objects {
            by_name.entry((space, &*object.name)).or_default().push(oid);
            if space != Space::Relation {
                // Defaults of what it writes to may advance sequences.
                let more = if object.writes {
                    Tables::SEQUENCES
                } else {
                    Tables::NONE
                };
                reads.insert((space, oid), object.tables.with(more));
                continue;
            }
            let head = families.head(oid);
            let of_head = builder.objects.get(&(space, head));
            // A family has the name of its head.
            let tables =
                of_head.map_or(object.tables, |head| head.tables.with_untold(object.tables));
            reads.insert((space, oid), tables);
            let changes = if object.table { tables } else { Tables::ALL };
            let of_family = writes.entry(head).or_default();
            *of_family = of_family.with(changes);
        }
        // What a function without a source text does beyond naming objects isn't told where.
        for (id, _) in &builder.marked {
            reads.insert(*id, Tables::ALL);
        }
        Self {
            builder,
            families,
            by_name,
            reads,
            writes,
            changed: false,
        }
    }

    /// Of what isn't listed, a user's may be anything.
    fn reads(&self, id: Id) -> Tables {
        let unlisted = if id.1 < FIRST_USER_OID {
            Tables::NONE
        } else {
            Tables::ALL
        };
        self.reads.get(&id).copied().unwrap_or(unlisted)
    }

    fn writes(&self, table: u32) -> Tables {
        let head = self.families.head(table);
        self.writes.get(&head).copied().unwrap_or(Tables::ALL)
    }

    fn read(&mut self, id: Id, more: Tables) {
        let known = self.reads.entry(id).or_default();
        self.changed |= !more.within(*known);
        *known = known.with(more);
    }

    fn write(&mut self, table: u32, more: Tables) {
        let known = self.writes.entry(self.families.head(table)).or_default();
        self.changed |= !more.within(*known);
        *known = known.with(more);
    }

    /// Passes on by one step; whether there was something to pass on.
    fn once(&mut self) -> bool {
        self.changed = false;
        let builder = self.builder;
        for &(owner, target) in &builder.edges {
            if self.reads.contains_key(&owner) {
                self.read(owner, self.reads(target));
            }
        }
        for (&id, object) in &builder.objects {
            for (reference, name) in &object.references {
                self.read(id, self.referred(object, *reference, name));
            }
        }
        for &(space, oid) in builder.objects.keys() {
            if space == Space::Relation {
                self.write(oid, self.reads((space, oid)));
            }
        }
        for &(table, function) in &builder.triggers {
            self.write(table, self.reads((Space::Function, function)));
        }
        for &(table, follower) in &builder.cascades {
            self.write(table, self.writes(follower));
        }
        self.changed
    }

    /// What a source's use of a name comes to.
    fn referred(&self, user: &Object, reference: Reference, name: &[u8]) -> Tables {
        let all = |space: Space| {
            let oids = self.by_name.get(&(space, name));
            oids.into_iter().flatten().map(move |&oid| (space, oid))
        };
        let run = |space| all(space).map(|id| self.reads(id));
        let tables: Vec<Tables> = match reference {
            // As if sequences were a table: whoever writes to a table hears that a trigger of it may.
            Reference::Call if [b"nextval".as_slice(), b"setval"].contains(&name) => {
                vec![Tables::SEQUENCES]
            }
            Reference::Call | Reference::Attribute => run(Space::Function).collect(),
            Reference::Operator => run(Space::Operator).collect(),
            Reference::Name if user.writes => run(Space::Type)
                .chain(all(Space::Relation).map(|(_, table)| self.writes(table)))
                .collect(),
            Reference::Name => run(Space::Type).chain(run(Space::Relation)).collect(),
        };
        tables.into_iter().fold(Tables::NONE, Tables::with)
    }
}
