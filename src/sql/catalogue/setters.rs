//! What sets settings whose names are made at run time, by itself or by what it sets off.

use std::collections::{HashMap, HashSet};

use super::{
    body::Reference,
    build::{CatalogueBuilder, Id, Sets},
    resolve::Space,
};

/// Names of functions, relations, types and operators: running, reading or writing to one of them
/// may set settings that nobody can name.
#[derive(Debug, Default)]
pub(super) struct Setters(HashSet<Box<[u8]>>);

impl Setters {
    /// Follows whatever rests on, calls, mentions or triggers what sets so itself.
    pub(super) fn of(builder: &CatalogueBuilder) -> Self {
        let mut queue: Vec<Id> = builder
            .objects
            .iter()
            .filter(|(_, object)| matches!(object.sets, Sets::Itself))
            .map(|(&id, _)| id)
            .collect();
        if queue.is_empty() {
            return Self::default();
        }
        let relation = |oid: u32| (Space::Relation, oid);
        let triggers = builder.triggers.iter();
        let triggers =
            triggers.map(|&(table, function)| (relation(table), (Space::Function, function)));
        let kin = builder.heirs.iter().chain(&builder.cascades);
        let kin = kin.map(|&(table, other)| (relation(table), relation(other)));
        let mut users: HashMap<Id, Vec<Id>> = HashMap::new();
        for (user, used) in builder.edges.iter().copied().chain(triggers).chain(kin) {
            users.entry(used).or_default().push(user);
        }
        let mut readers: HashMap<&[u8], Vec<Id>> = HashMap::new();
        for (&id, object) in &builder.objects {
            let references = object.references.iter();
            for (_, name) in references.filter(|(how, _)| *how != Reference::Attribute) {
                readers.entry(name).or_default().push(id);
            }
            if let Sets::Mentions(words) = &object.sets {
                for word in words {
                    readers.entry(word).or_default().push(id);
                }
            }
        }
        let mut found: HashSet<Id> = queue.iter().copied().collect();
        let mut names = HashSet::new();
        while let Some(id) = queue.pop() {
            let by_id = users.get(&id).into_iter().flatten();
            let name = builder.objects.get(&id).map(|object| &*object.name);
            let by_name = name.and_then(|name| readers.get(name));
            let reached = by_id.chain(by_name.into_iter().flatten());
            queue.extend(reached.filter(|id| found.insert(**id)));
            names.extend(name.filter(|name| !name.is_empty()).map(Box::from));
        }
        Self(names)
    }

    /// Some word of the text, within strings or not, is one of the names; or an operator is, which a
    /// text may use in more ways than can be told.
    pub(super) fn occur_in(&self, text: &[u8]) -> bool {
        let is_operator = |name: &[u8]| !name.iter().any(|&byte| is_of_word(byte));
        !self.0.is_empty()
            && (words(text).any(|word| self.0.contains(&*word))
                || self.0.iter().any(|name| is_operator(name)))
    }
}

/// Whatever looks like a name, folded.
pub(super) fn words(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    text.split(|&byte| !is_of_word(byte))
        .filter(|word| !word.is_empty())
        .map(<[u8]>::to_ascii_lowercase)
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use crate::sql::catalogue::{Catalogue, CatalogueBuilder, QueryId};

    fn catalogue(functions: &[(&str, &str, &str)]) -> Catalogue {
        let mut builder = CatalogueBuilder::new();
        let mut row = |query, columns: &[&str]| {
            let columns: Vec<_> = columns.iter().map(|&c| Some(c)).collect();
            builder.row(query, &columns);
        };
        for &(oid, name, source) in functions {
            row(
                QueryId::Functions,
                &[oid, name, "u", "f", "v", "plpgsql", "true", "false", source],
            );
        }
        for (oid, name) in [("20000", "watched"), ("20001", "quiet"), ("20002", "heir")] {
            row(
                QueryId::Relations,
                &[oid, name, "r", "p", "false", "f", "false"],
            );
        }
        row(QueryId::Edges, &["g", "20000", "f", "30001"]);
        row(QueryId::Kin, &["i", "20000", "20002"]);
        builder.finish(1)
    }

    const SETTER: (&str, &str, &str) = (
        "30000",
        "put",
        "begin perform set_config('a.' || n, v, false); end",
    );

    #[test]
    fn whatever_leads_to_a_setter_is_one() {
        let known = catalogue(&[
            SETTER,
            ("30001", "trigger", "begin perform put(new.a, 'x'); end"),
            (
                "30002",
                "wrapped",
                "begin execute 'select put($1)' using a; end",
            ),
            (
                "30003",
                "writer",
                "begin insert into watched values (1); end",
            ),
            ("30004", "dynamic", "begin execute a; end"),
            (
                "30005",
                "named",
                "begin perform set_config('a.b', v, false); end",
            ),
        ]);
        for text in [
            "select put('a', 'b')",
            "call Put('a')",
            "do $$ begin perform \"put\"('a'); end $$",
            "insert into watched values (1)",
            "select wrapped('a')",
            "select writer()",
        ] {
            assert!(known.may_set_untold(text.as_bytes()), "{text}");
        }
        for text in [
            "select dynamic('a')",
            "select named('a')",
            "insert into quiet values (1)",
            "insert into heir values (1)",
            "select output, put_on from quiet",
            "",
        ] {
            assert!(!known.may_set_untold(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn without_one_there_is_nothing_to_look_for() {
        let known = catalogue(&[(
            "30005",
            "named",
            "begin perform set_config('a.b', v, false); end",
        )]);
        assert!(!known.may_set_untold(b"select named('put')"));
    }
}
