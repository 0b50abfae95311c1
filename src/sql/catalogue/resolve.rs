//! From objects and what they rest on to what is read-safe: whatever rests on something that isn't
//! read-safe isn't either.

use std::collections::{HashMap, HashSet};

use super::{
    Catalogue, Names,
    body::Reference,
    build::{CatalogueBuilder, DefaultIsolation, Id, Object},
    flags::{Bad, BadWhy, Flags},
    reach::Reach,
    setters::Setters,
};

/// Kinds of objects; each has oids of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Space {
    Function,
    Operator,
    Relation,
    Type,
}

pub(super) fn resolve(builder: CatalogueBuilder, generation: u64) -> Catalogue {
    let reach = Reach::of(&builder);
    let setters = Setters::of(&builder);
    let mut graph = Graph::new(builder);
    let loud = graph.settle();
    graph.catalogue(generation, reach, setters, &loud)
}

struct Graph {
    objects: HashMap<Id, Object>,
    known: Vec<(Box<[u8]>, Flags)>,
    triggers: Vec<(u32, u32)>,
    /// A relation, and one that a write to it may write to: one that inherits from it, whose rows
    /// follow its keys, or that it is a view of.
    followers: Vec<(u32, u32)>,
    /// Who rests on an object.
    users: HashMap<Id, Vec<Id>>,
    /// Whose source uses a name, and how.
    readers: HashMap<(Reference, Box<[u8]>), Vec<Id>>,
    /// A type of PostgreSQL's own isn't read-safe.
    poisoned: bool,
    settings: Box<[Box<str>]>,
    isolations: Vec<DefaultIsolation>,
}

impl Graph {
    fn new(builder: CatalogueBuilder) -> Self {
        let CatalogueBuilder {
            mut objects,
            known,
            edges,
            triggers,
            marked,
            settings,
            isolations,
            heirs,
            cascades,
        } = builder;
        let beneath = edges.iter().filter_map(|(owner, target)| {
            let relations = (owner.0, target.0) == (Space::Relation, Space::Relation);
            relations.then_some((owner.1, target.1))
        });
        let followers = heirs.into_iter().chain(cascades).chain(beneath).collect();
        for (id, why) in marked {
            if let Some(object) = objects.get_mut(&id)
                && object.bad.is_none()
            {
                object.bad = Some(Bad::FUNCTION);
                object.detail = Some(why.into());
            }
        }
        let mut users: HashMap<Id, Vec<Id>> = HashMap::new();
        for (owner, target) in edges {
            if owner != target {
                if owner.1 >= FIRST_USER_OID {
                    // Array types and the like, which no query lists, pass on what they rest on.
                    objects.entry(owner).or_default();
                }
                users.entry(target).or_default().push(owner);
            }
        }
        let mut readers: HashMap<_, Vec<Id>> = HashMap::new();
        for (&id, object) in &mut objects {
            for reference in std::mem::take(&mut object.references) {
                readers.entry(reference).or_default().push(id);
            }
        }
        Self {
            objects,
            known,
            triggers,
            followers,
            users,
            readers,
            poisoned: false,
            settings: settings.names.into(),
            isolations,
        }
    }

    /// Spreads what isn't read-safe, and what may touch the session by writing, until neither adds to
    /// the other. Gives the relations that are loud.
    fn settle(&mut self) -> HashSet<u32> {
        loop {
            self.spread();
            let loud = self.loud();
            let mut more = false;
            for object in self.objects.values_mut() {
                if let Some(bad) = &mut object.bad
                    && object.session.is_some()
                    && !bad.observe
                {
                    bad.observe = true;
                    more = true;
                }
            }
            if !more {
                return loud;
            }
        }
    }

    /// Marks everything that rests on what isn't read-safe.
    fn spread(&mut self) {
        let mut queue: Vec<Id> = self
            .objects
            .iter()
            .filter(|(_, object)| object.bad.is_some())
            .map(|(&id, _)| id)
            .collect();
        while let Some(id) = queue.pop() {
            let Some(object) = self.objects.get(&id) else {
                continue;
            };
            let Some(bad) = object.bad else { continue };
            let via: Box<str> = String::from_utf8_lossy(&object.name).into();
            let mut reached = self.users.get(&id).cloned().unwrap_or_default();
            for reference in references(id.0, object) {
                reached.extend(self.readers.get(&reference).into_iter().flatten());
            }
            for user in reached {
                let Some(object) = self.objects.get_mut(&user) else {
                    // One of PostgreSQL's own types, which are known by name only.
                    self.poisoned = true;
                    continue;
                };
                // What a trigger's function calls may touch the session.
                if bad.observe && object.session.is_none() {
                    object.session = Some("calls what isn't known to be harmless");
                }
                let inherited = inherited(user.0, bad);
                let merged = object.bad.map_or(inherited, |own| own.merge(inherited));
                if object.bad != Some(merged) {
                    if object.bad.is_none() {
                        object.detail = Some(format!("reaches {via}").into());
                    }
                    object.bad = Some(merged);
                    queue.push(user);
                }
            }
        }
    }

    /// Relations that, written to, run a function that may touch the session, perhaps by writing
    /// to another such relation, or have rules, which may do anything.
    fn loud(&mut self) -> HashSet<u32> {
        let mut loud = HashSet::new();
        loop {
            let touches = |function: u32| {
                let own = function < FIRST_USER_OID;
                self.objects
                    .get(&(Space::Function, function))
                    .is_none_or(|f| f.session.is_some() || own && f.bad.is_some_and(|b| b.observe))
            };
            let by_triggers = self.triggers.iter().filter(|(_, f)| touches(*f));
            let by_followers = self.followers.iter().filter(|(_, f)| loud.contains(f));
            let by_rules = self.objects.iter().filter_map(|(&(space, oid), object)| {
                (space == Space::Relation && object.session.is_some()).then_some(oid)
            });
            let found: HashSet<u32> = by_triggers
                .chain(by_followers)
                .map(|&(relation, _)| relation)
                .chain(by_rules)
                .filter(|relation| !loud.contains(relation))
                .collect();
            if found.is_empty() {
                return loud;
            }
            for &relation in &found {
                let Some(name) = self
                    .objects
                    .get(&(Space::Relation, relation))
                    .map(|r| &r.name)
                else {
                    continue;
                };
                let by_name = self.readers.get(&(Reference::Name, name.clone()));
                // Whose source is a tree is known by what it depends on.
                let by_id = self
                    .users
                    .get(&(Space::Relation, relation))
                    .into_iter()
                    .flatten();
                let by_id = by_id.filter(|user| user.0 == Space::Function);
                let writers: Vec<Id> = by_name
                    .into_iter()
                    .flatten()
                    .chain(by_id)
                    .copied()
                    .collect();
                for writer in writers {
                    if let Some(object) = self.objects.get_mut(&writer) {
                        object.session = object.session.or(Some("may write where triggers watch"));
                    }
                }
            }
            loud.extend(found);
        }
    }

    fn catalogue(
        self,
        generation: u64,
        reach: Reach,
        setters: Setters,
        loud: &HashSet<u32>,
    ) -> Catalogue {
        let mut names = Names::default();
        let mut details = HashMap::default();
        // PostgreSQL's own, such as `pg_settings`, are written to by name.
        let watched = loud.iter().any(|relation| *relation >= FIRST_USER_OID);
        for (name, flags) in self.known {
            names.entry(name).or_default().add(flags);
        }
        for ((space, oid), object) in self.objects {
            if object.name.is_empty() {
                continue;
            }
            let mut flags = flags(space, &object);
            if space == Space::Relation && loud.contains(&oid) {
                flags.add(Flags::TRIGGER_OBSERVE);
            }
            let users = oid >= FIRST_USER_OID;
            if users && flags.has(Flags::FUNCTION_MAY_WRITE) && watched {
                // Perhaps where triggers watch.
                flags.add(Flags::FUNCTION_OBSERVE);
            }
            if let Some(detail) = object.detail
                && object.bad.is_some()
            {
                details.insert(object.name.clone(), detail);
            }
            names.entry(object.name).or_default().add(flags);
        }
        for name in reach.running() {
            names.entry(name.into()).or_default().add(Flags::REACHES);
        }
        names.shrink_to_fit();
        let bad = |name: &[u8]| names.get(name).is_some_and(|f| f.any(Flags::ANY_BAD));
        Catalogue {
            generation,
            implied_bad: IMPLIED.iter().any(|operator| bad(operator)),
            beyond_ascii_bad: names
                .iter()
                .any(|(name, flags)| !name.is_ascii() && flags.any(Flags::ANY_BAD)),
            poisoned: self.poisoned,
            settings: self.settings,
            isolations: self.isolations.into(),
            names,
            details,
            reach,
            setters,
        }
    }
}

/// How sources speak of an object.
fn references(space: Space, object: &Object) -> Vec<(Reference, Box<[u8]>)> {
    let name = || object.name.clone();
    match space {
        Space::Function if object.attribute => {
            vec![(Reference::Call, name()), (Reference::Attribute, name())]
        }
        Space::Function => vec![(Reference::Call, name())],
        Space::Operator => vec![(Reference::Operator, name())],
        Space::Relation | Space::Type => vec![(Reference::Name, name())],
    }
}

/// What something becomes by resting on what is `bad`.
fn inherited(space: Space, bad: Bad) -> Bad {
    match (space, bad.why) {
        // A partition that differs between nodes makes its parent differ.
        (Space::Relation, BadWhy::Local) => bad,
        _ => Bad {
            why: BadWhy::Function,
            ..bad
        },
    }
}

fn flags(space: Space, object: &Object) -> Flags {
    let (known, found) = match space {
        Space::Function => (Flags::FUNCTION, Flags::BAD_FUNCTION),
        Space::Operator => (Flags::OPERATOR, Flags::BAD_OPERATOR),
        Space::Relation => (Flags::RELATION, Flags::BAD_RELATION),
        Space::Type => (Flags::TYPE, Flags::BAD_TYPE),
    };
    let mut flags = known;
    let Some(bad) = object.bad else {
        return flags;
    };
    let mut when = |condition: bool, flag: Flags| {
        if condition {
            flags.add(flag);
        }
    };
    let function = space == Space::Function;
    let relation = space == Space::Relation;
    let local = bad.why == BadWhy::Local;
    when(!(relation && local), found);
    when(relation && local, Flags::LOCAL_RELATION);
    when(function && object.attribute, Flags::BAD_ATTRIBUTE);
    when(function && bad.why == BadWhy::Recovery, Flags::RECOVERY);
    when(function && bad.may_write, Flags::FUNCTION_MAY_WRITE);
    let observe = bad.observe || object.session.is_some();
    when(function && observe, Flags::FUNCTION_OBSERVE);
    when(function && bad.backend, Flags::FUNCTION_BACKEND);
    when(relation && bad.may_write, Flags::RELATION_MAY_WRITE);
    when(relation && bad.observe, Flags::RELATION_OBSERVE);
    flags
}

/// The first oid of what isn't PostgreSQL's own.
pub(super) const FIRST_USER_OID: u32 = 16_384;

/// Operators that words imply.
pub(super) const IMPLIED: &[&[u8]] = &[
    b"=", b"<>", b"<", b">", b"<=", b">=", b"~~", b"!~~", b"~~*", b"!~~*", b"~", b"!~",
];
