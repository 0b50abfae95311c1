//! The class of a query text.
//!
//! Statements that need neither a tree nor the catalogue are [`super::utility`]'s. For the rest two
//! readers must agree before replicas see one:
//! - a *scan* of the tokens, made to PostgreSQL's own rules, which finds every name and operator
//!   that could run something, wherever it stands, and looks it up in the catalogue;
//! - `sqlparser`'s *tree* of the same tokens, which says which names are relations and functions.
//!
//! Total: whatever can't be read is [`Class::UNKNOWN`]. No panics, and neither stack nor time grow
//! faster than the text.
//!
//! Literals never decide, except the name given to `current_setting` (which fingerprints keep).
//! This folder never sees a parser's type leave it.

mod findings;
mod keyword;
mod normalise;
mod scan;
mod statement;
#[cfg(test)]
mod tests;
mod token;
mod tree;

pub(crate) use scan::{Call, Mark, Named, Sink, scan};
pub(super) use statement::{Detail, read};
pub(crate) use token::Tokens;

use super::{
    Access, Class, Hint, Isolation, Kind, Lexing, Tables, Traits, Why, catalogue::Catalogue,
    lexer::statements, reset::reset,
};

/// The class of `text`, as a session with this `lexing` would have it read, in a database with
/// this `catalogue` (`None`: not loaded yet; only what is safe without looking is a read then).
#[must_use]
pub fn classify(text: &[u8], lexing: Lexing, catalogue: Option<&Catalogue>) -> Class {
    let hint = super::hint(text, lexing);
    let class = if text.len() > token::MAX_TEXT {
        Class::TOO_LONG
    } else {
        match statements(text, lexing) {
            Some(ranges) => all(text, &ranges, lexing, catalogue),
            None => Class::UNKNOWN,
        }
    };
    Class { hint, ..class }
}

fn all(
    text: &[u8],
    ranges: &[std::ops::Range<usize>],
    lexing: Lexing,
    catalogue: Option<&Catalogue>,
) -> Class {
    let mut classes = ranges.iter().map(|range| {
        let statement = text.get(range.clone()).unwrap_or_default();
        let class = read(statement, lexing, catalogue, Detail::Class).class;
        if reset(statement, lexing).is_some() {
            let traits = class.traits.with(Traits::RESETS);
            Class { traits, ..class }
        } else {
            class
        }
    });
    let Some(first) = classes.next() else {
        return EMPTY;
    };
    classes.fold(first, both)
}

/// Two statements of one text: the stricter.
pub(super) fn both(a: Class, b: Class) -> Class {
    let access = match (among_others(a), among_others(b)) {
        (Access::Primary(why), _) | (_, Access::Primary(why)) => Access::Primary(why),
        (Access::Read, _) | (_, Access::Read) => Access::Read,
        (Access::Anywhere, Access::Anywhere) => Access::Anywhere,
    };
    // These hold for the whole only if they hold for each.
    let lacking = [Traits::PURE_READ, Traits::RESETS, Traits::NO_SEQUENCES]
        .into_iter()
        .filter(|&of_all| !(a.traits.has(of_all) && b.traits.has(of_all)));
    Class {
        kind: Kind::Several,
        access,
        hint: a.hint,
        traits: lacking.fold(a.traits.with(b.traits), Traits::without),
        tables: a.tables.with(b.tables),
    }
}

/// A statement's access when it isn't alone: a transaction that it begins stays open, and may write.
fn among_others(class: Class) -> Access {
    match class.kind {
        Kind::Begin(begin)
            if begin.read_only != Some(true)
                || matches!(
                    begin.isolation,
                    Some(Isolation::Serializable | Isolation::RepeatableRead)
                ) =>
        {
            Access::Primary(Why::Transaction)
        }
        _ => class.access,
    }
}

/// A text without a statement.
pub(super) const EMPTY: Class = Class {
    kind: Kind::Empty,
    access: Access::Anywhere,
    hint: None::<Hint>,
    traits: Traits::PURE_READ,
    tables: Tables::NONE,
};
