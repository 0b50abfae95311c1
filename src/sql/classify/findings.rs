//! What a scan with a catalogue at hand finds in one statement.

use super::{
    keyword::Role,
    scan::{Call, Mark, Named, Sink},
    token::Tokens,
};
use crate::sql::{
    Tables, Traits, Why,
    catalogue::{Catalogue, Flags, own_setting},
};

/// Why a statement isn't a plain read, and what follows.
#[derive(Debug)]
pub(super) struct Findings<'c, 't, 'a> {
    catalogue: Option<&'c Catalogue>,
    tokens: &'t Tokens<'a>,
    /// The gravest reason so far, and the place of the name that gave it.
    pub(super) found: Option<(Why, Option<usize>)>,
    /// Something found may change data.
    pub(super) may_write: bool,
    /// OBSERVE and BACKEND_STATE.
    pub(super) traits: Traits,
    /// Names that may be called and that no function has.
    pub(super) unknown_calls: Vec<usize>,
    /// Names of relations that triggers watch suspiciously, if written to.
    pub(super) trigger_observe: bool,
    /// A function is called, or something that can't be told.
    pub(super) calls: bool,
    /// What functions, operators and types may read or write.
    pub(super) run: Tables,
    /// What relations read whose names are there, columns among them.
    pub(super) named: Tables,
}

impl<'c, 't, 'a> Findings<'c, 't, 'a> {
    pub(super) fn new(catalogue: Option<&'c Catalogue>, tokens: &'t Tokens<'a>) -> Self {
        Self {
            catalogue,
            tokens,
            found: None,
            may_write: false,
            traits: Traits::NONE,
            unknown_calls: Vec::new(),
            trigger_observe: false,
            calls: false,
            run: catalogue.map_or(Tables::ALL, Catalogue::implied),
            named: Tables::NONE,
        }
    }

    /// Remembers a reason; graver ones win.
    pub(super) fn add(&mut self, why: Why, at: Option<usize>) {
        if self
            .found
            .is_none_or(|(found, _)| grave(why) > grave(found))
        {
            self.found = Some((why, at));
        }
    }

    fn observe(&mut self) {
        self.may_write = true;
        self.traits = self.traits.with(Traits::OBSERVE);
    }

    fn function(&mut self, named: &Named<'_>, flags: Flags) {
        if named.name == b"current_setting" && own_setting(self.tokens, named.at) {
            return;
        }
        let why = if flags.has(Flags::RECOVERY) {
            Why::Recovery
        } else {
            Why::Function
        };
        self.add(why, Some(named.at));
        self.may_write |= flags.has(Flags::FUNCTION_MAY_WRITE);
        if flags.has(Flags::FUNCTION_OBSERVE) {
            self.traits = self.traits.with(Traits::OBSERVE);
        }
        if flags.has(Flags::FUNCTION_BACKEND) {
            self.traits = self
                .traits
                .with(Traits::BACKEND_STATE)
                .with(Traits::OBSERVE);
        }
    }

    /// A name that reads a relation.
    pub(super) fn relation(&mut self, at: usize, flags: Flags) {
        if flags.has(Flags::BAD_RELATION) {
            self.add(Why::View, Some(at));
        } else {
            self.add(Why::NodeLocal, Some(at));
        }
        self.may_write |= flags.has(Flags::RELATION_MAY_WRITE);
        if flags.has(Flags::RELATION_OBSERVE) {
            self.traits = self.traits.with(Traits::OBSERVE);
        }
    }

    fn called(&mut self, named: &Named<'_>, flags: Flags) {
        self.calls = true;
        if flags.has(Flags::BAD_FUNCTION) {
            self.function(named, flags);
        } else if !flags.has(Flags::FUNCTION) && named.call == Call::Yes {
            // `schema.type(…)`, or a type with a modifier.
            if !flags.has(Flags::TYPE) {
                self.add(Why::UnknownFunction, Some(named.at));
                self.observe();
            }
        } else if !flags.has(Flags::FUNCTION) && self.tokens.role(named.at) == Role::Name {
            self.unknown_calls.push(named.at);
        }
    }
}

impl Sink for Findings<'_, '_, '_> {
    fn name(&mut self, named: Named<'_>) {
        let Some(catalogue) = self.catalogue else {
            if named.call != Call::No || named.after_point || named.type_only {
                self.calls = true;
            }
            return;
        };
        let mut flags = catalogue.name(named.name);
        if named.name.first() == Some(&b'_') {
            // The name of an array type is its element's with underscores before it.
            let element: &[u8] = named.name.trim_ascii_start();
            let element = element
                .iter()
                .position(|&b| b != b'_')
                .and_then(|start| element.get(start..))
                .unwrap_or_default();
            if catalogue.name(element).has(Flags::BAD_TYPE) {
                flags.add(Flags::BAD_TYPE);
            }
            self.run = self.run.with(catalogue.run_by(element));
        }
        if named.call != Call::No {
            self.called(&named, flags);
        }
        if named.type_only && !flags.any(Flags::TYPE_OR_RELATION) {
            self.add(Why::UnknownFunction, Some(named.at));
            self.observe();
        }
        // Behind a point only a schema's relations are meant; others are columns.
        let column = named.label
            || named.after_point
                && named
                    .qualifier
                    .is_some_and(|q| !catalogue.name(q).has(Flags::SCHEMA));
        if flags.has(Flags::RELATION) && !column {
            self.named = self.named.with(catalogue.read_by(named.name));
        }
        if !flags.any(Flags::NOTABLE) {
            return;
        }
        if flags.has(Flags::REACHES) {
            self.run = self.run.with(catalogue.run_by(named.name));
        }
        if named.after_point && flags.has(Flags::BAD_ATTRIBUTE) && named.call == Call::No {
            self.function(&named, flags);
        }
        if flags.has(Flags::BAD_TYPE) {
            self.add(Why::Function, Some(named.at));
            self.observe();
        }
        if flags.has(Flags::TRIGGER_OBSERVE) {
            self.trigger_observe = true;
        }
        if flags.any(Flags::UNSAFE_RELATION) && !column {
            self.relation(named.at, flags);
        }
    }

    fn operator(&mut self, operator: &[u8], spelled: bool) {
        let Some(catalogue) = self.catalogue else {
            self.calls = true;
            return;
        };
        if !spelled && !catalogue.implied_bad() {
            return;
        }
        let operator = if operator == b"!=" { b"<>" } else { operator };
        let flags = catalogue.operator(operator);
        self.run = self.run.with(catalogue.run_by(operator));
        if flags.has(Flags::BAD_OPERATOR) {
            self.add(Why::Function, None);
            self.observe();
        } else if !flags.has(Flags::OPERATOR) && operator != b"=>" {
            self.add(Why::UnknownFunction, None);
            self.observe();
        }
    }

    fn mark(&mut self, mark: Mark) {
        self.may_write = true;
        match mark {
            Mark::Write => self.add(Why::Write, None),
            Mark::Into => self.add(Why::Into, None),
            Mark::Lock => self.add(Why::RowLock, None),
        }
    }
}

/// Of several reasons the gravest is told.
fn grave(why: Why) -> u8 {
    match why {
        Why::Write => 9,
        Why::Into => 8,
        Why::RowLock => 7,
        Why::Function => 6,
        Why::View => 5,
        Why::UnknownFunction => 4,
        Why::NodeLocal => 3,
        Why::UnknownRelation => 2,
        _ => 1,
    }
}
