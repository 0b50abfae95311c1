//! One statement.

use sqlparser::keywords::Keyword;

use super::{
    findings::Findings,
    normalise::normalise,
    scan::{is_cte, scan},
    token::Tokens,
    tree::{self, Tree},
};
use crate::sql::{
    Access, Class, Kind, Lexing, Tables, Traits, Why,
    catalogue::{Catalogue, Flags},
    effects::is_told,
    lexer::TokenKind,
    utility,
};

/// A statement's class.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) class: Class,
    pub(crate) names: Option<Names>,
}

/// What a statement's class was read from, for people.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The name that decided, if one did.
    pub(crate) decided_by: Option<Vec<u8>>,
    pub(crate) relations: Vec<Vec<u8>>,
    pub(crate) functions: Vec<Vec<u8>>,
}

/// Whether [`Names`] are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    Class,
    Names,
}

impl Reading {
    fn of(class: Class) -> Self {
        Self { class, names: None }
    }
}

/// Reads one statement.
pub(crate) fn read(
    statement: &[u8],
    lexing: Lexing,
    catalogue: Option<&Catalogue>,
    detail: Detail,
) -> Reading {
    let Some(tokens) = Tokens::read(statement, lexing) else {
        // What can't be read as a query may still be told by its first word.
        return Reading::of(utility(statement, lexing).unwrap_or(Class::UNKNOWN));
    };
    let reader = Reader {
        tokens: &tokens,
        statement,
        lexing,
        catalogue,
        detail,
    };
    reader.statement(0)
}

struct Reader<'r, 'a> {
    tokens: &'r Tokens<'a>,
    statement: &'a [u8],
    lexing: Lexing,
    catalogue: Option<&'r Catalogue>,
    detail: Detail,
}

impl Reader<'_, '_> {
    fn statement(&self, at: usize) -> Reading {
        let tokens = self.tokens;
        match tokens.keyword(at) {
            Keyword::SELECT | Keyword::WITH | Keyword::VALUES | Keyword::TABLE => self.query(at),
            Keyword::INSERT | Keyword::UPDATE | Keyword::DELETE | Keyword::MERGE => self.write(at),
            _ if tokens.is(at, TokenKind::LeftParen) => self.query(at),
            _ => match tokens.name(at) {
                b"copy" => self.copy(at),
                b"explain" => self.explain(at),
                b"declare" => self.declare(at),
                b"execute" => self.execute(at),
                _ => Reading::of(utility(self.statement, self.lexing).unwrap_or(Class::UNKNOWN)),
            },
        }
    }

    /// SELECT, VALUES, TABLE, WITH.
    fn query(&self, at: usize) -> Reading {
        let tokens = self.tokens;
        let mut findings = Findings::new(self.catalogue, tokens);
        scan(tokens, at, &mut findings);
        self.surroundings(&mut findings);
        let tree = match findings.found {
            None
            | Some((Why::NodeLocal | Why::Recovery | Why::Function | Why::UnknownFunction, _)) => {
                normalise(tokens, at).and_then(tree::read)
            }
            _ => None,
        };
        let tree = match tree {
            Some(tree) if self.agree(&tree, at, &findings) => tree,
            _ if findings.found.is_some() => {
                findings.may_write = true;
                return self.found(&findings, None);
            }
            _ => {
                return Reading::of(Class::UNKNOWN);
            }
        };
        self.relations(&tree, &mut findings);
        self.unknown_functions(&tree, &mut findings);
        self.found(&findings, Some(&tree))
    }

    /// What decides besides names.
    fn surroundings(&self, findings: &mut Findings<'_, '_, '_>) {
        match self.catalogue {
            None if findings.calls => {
                findings.add(Why::NoCatalogue, None);
                findings.may_write = true;
                findings.traits = findings.traits.with(Traits::OBSERVE);
            }
            Some(catalogue)
                if catalogue.poisoned()
                    || catalogue.beyond_ascii_bad() && self.tokens.beyond_ascii =>
            {
                findings.add(Why::Function, None);
                findings.may_write = true;
                findings.traits = findings.traits.with(Traits::OBSERVE);
            }
            _ => {}
        }
    }

    /// Relations that the tree shows.
    fn relations(&self, tree: &Tree, findings: &mut Findings<'_, '_, '_>) {
        let tokens = self.tokens;
        for &at in &tree.relations {
            if tree.functions.contains(&at) {
                continue;
            }
            let name = tokens.name(at);
            let flags = self.catalogue.map_or(Flags::NONE, |c| c.name(name));
            if flags.any(Flags::UNSAFE_RELATION) {
                findings.relation(at, flags);
            } else if !flags.has(Flags::RELATION) && !self.defines(name, at) {
                let why = if self.catalogue.is_some() {
                    Why::UnknownRelation
                } else {
                    Why::NoCatalogue
                };
                findings.add(why, Some(at));
                findings.may_write = true;
                findings.traits = findings.traits.with(Traits::OBSERVE);
            }
        }
    }

    /// `name`, not qualified at `at`, is that of a common table expression of this statement.
    fn defines(&self, name: &[u8], at: usize) -> bool {
        let tokens = self.tokens;
        let qualified = at > 0 && tokens.is(at - 1, TokenKind::Dot);
        !qualified
            && (0..tokens.len())
                .any(|i| tokens.is_name(i) && tokens.name(i) == name && is_cte(tokens, i))
    }

    /// Names that look like calls of functions that don't exist: aliases, unless the tree calls
    /// them.
    fn unknown_functions(&self, tree: &Tree, findings: &mut Findings<'_, '_, '_>) {
        let called = findings
            .unknown_calls
            .iter()
            .find(|at| tree.functions.contains(at))
            .copied();
        if let Some(at) = called {
            findings.add(Why::UnknownFunction, Some(at));
            findings.may_write = true;
            findings.traits = findings.traits.with(Traits::OBSERVE);
        }
    }

    /// Both readers see the same: a name right behind FROM or JOIN is a relation or a function to
    /// the tree, too.
    fn agree(&self, tree: &Tree, start: usize, findings: &Findings<'_, '_, '_>) -> bool {
        let tokens = self.tokens;
        let _ = findings;
        (start..tokens.len()).all(|at| {
            if !matches!(tokens.keyword(at), Keyword::FROM | Keyword::JOIN) || self.is_argument(at)
            {
                return true;
            }
            let mut name = at + 1;
            while matches!(tokens.keyword(name), Keyword::ONLY | Keyword::LATERAL) {
                name += 1;
            }
            if !tokens.is_name(name)
                || tokens.keyword(name) == Keyword::ROWS
                    && tokens.keyword(name + 1) == Keyword::FROM
            {
                return true;
            }
            while tokens.is(name + 1, TokenKind::Dot) {
                name += 2;
            }
            tree.relations.contains(&name) || tree.functions.contains(&name)
        })
    }

    /// FROM at `at` is grammar within an expression or a name, not a FROM clause.
    fn is_argument(&self, at: usize) -> bool {
        let tokens = self.tokens;
        let Some(before) = at.checked_sub(1) else {
            return false;
        };
        if tokens.keyword(before) == Keyword::DISTINCT
            || tokens.keyword(before) == Keyword::AS
            || tokens.is(before, TokenKind::Dot)
            || tokens.keyword(before) == Keyword::ROWS
        {
            return true;
        }
        // Within EXTRACT, SUBSTRING, TRIM, OVERLAY: look for the parenthesis around.
        let mut outer = before;
        loop {
            match tokens.kind(outer) {
                Some(TokenKind::RightParen | TokenKind::RightBracket) => {
                    outer = tokens.partner(outer)
                }
                Some(TokenKind::LeftParen) => {
                    return outer.checked_sub(1).is_some_and(|f| {
                        matches!(
                            tokens.keyword(f),
                            Keyword::EXTRACT
                                | Keyword::SUBSTRING
                                | Keyword::TRIM
                                | Keyword::OVERLAY
                        )
                    });
                }
                _ if tokens.keyword(outer) == Keyword::SELECT => return false,
                _ => {}
            }
            match outer.checked_sub(1) {
                Some(next) => outer = next,
                None => return false,
            }
        }
    }

    /// The class that findings give a query.
    fn found(&self, findings: &Findings<'_, '_, '_>, tree: Option<&Tree>) -> Reading {
        let access = match findings.found {
            None => Access::Read,
            Some((why, _)) => Access::Primary(why),
        };
        let mut traits = findings.traits;
        if !findings.may_write {
            traits = traits.with(Traits::PURE_READ);
        }
        if findings.found.is_some_and(|(why, _)| why == Why::Into) {
            traits = traits.with(Traits::DDL).with(Traits::OBSERVE);
        }
        let watched = findings.trigger_observe || self.catalogue.is_none();
        if findings.may_write && watched {
            traits = traits.with(Traits::OBSERVE);
        }
        traits = traits.with(self.told_by_names());
        if traits.has(Traits::EFFECTS) && is_told(self.statement, self.lexing) {
            // No look is needed.
            traits = traits.without(Traits::OBSERVE);
        }
        let class = Class {
            kind: Kind::Single,
            access,
            hint: None,
            traits,
            tables: self.read_tables(findings, tree),
        };
        Reading {
            class,
            names: self.names(findings, tree),
        }
    }

    /// What a query reads, if it does nothing but.
    fn read_tables(&self, findings: &Findings<'_, '_, '_>, tree: Option<&Tree>) -> Tables {
        let (Some(tree), Some(catalogue)) = (tree, self.catalogue) else {
            return Tables::ALL;
        };
        match findings.found {
            None => {}
            Some((Why::Function, _)) if tree.relations.is_empty() && self.only_counts(tree) => {}
            Some(_) => return Tables::ALL,
        }
        let relations = tree.relations.iter().map(|&at| {
            let name = self.tokens.name(at);
            // Not a common table expression's.
            if catalogue.name(name).has(Flags::RELATION) {
                catalogue.read_by(name)
            } else {
                Tables::NONE
            }
        });
        relations.fold(findings.run, Tables::with)
    }

    /// Apart from what any node may answer, it only asks sequences.
    fn only_counts(&self, tree: &Tree) -> bool {
        tree.functions.iter().all(|&at| {
            let name = self.tokens.name(at);
            let safe = |c: &Catalogue| !c.name(name).has(Flags::BAD_FUNCTION);
            [b"nextval".as_slice(), b"setval"].contains(&name) || self.catalogue.is_some_and(safe)
        })
    }

    /// What a write changes or lets the client know of. What it returns may show what others have
    /// written anywhere, unless it is the very values that were put in.
    fn written_tables(&self, at: usize, findings: &Findings<'_, '_, '_>) -> Tables {
        let tokens = self.tokens;
        let (Some(catalogue), None | Some((Why::Write, _))) = (self.catalogue, findings.found)
        else {
            return Tables::ALL;
        };
        let has = |words: &[&str]| {
            (at + 1..tokens.len()).any(|at| words.iter().any(|word| tokens.word(at, word)))
        };
        let writes_within = (at + 1..tokens.len()).any(|at| {
            let writes = ["insert", "update", "delete", "merge"];
            writes.iter().any(|word| tokens.word(at, word)) && !tokens.word(at - 1, "do")
        });
        let returns = has(&["returning"]);
        match tokens.keyword(at) {
            _ if writes_within => return Tables::ALL,
            Keyword::INSERT if !(returns && has(&["conflict", "select", "table"])) => {}
            Keyword::UPDATE | Keyword::DELETE if !returns => {}
            _ if tokens.word(at, "copy") => {}
            _ => return Tables::ALL,
        }
        let Some(target) = self.target(at, catalogue) else {
            return Tables::ALL;
        };
        let written = catalogue.written_by(target);
        let others = findings.named.with(findings.run);
        if returns && !written.with(others).within(catalogue.read_by(target)) {
            // A trigger or a function may have looked elsewhere.
            return Tables::ALL;
        }
        written.with(others)
    }

    /// The relation that INSERT, UPDATE, DELETE or COPY, of which the first word stands there, writes to,
    /// if it is known.
    fn target(&self, at: usize, catalogue: &Catalogue) -> Option<&[u8]> {
        let tokens = self.tokens;
        let mut name = match tokens.keyword(at) {
            Keyword::INSERT | Keyword::DELETE => at + 2,
            _ => at + 1,
        };
        if tokens.keyword(name) == Keyword::ONLY {
            name += 1;
        }
        while tokens.is(name + 1, TokenKind::Dot) {
            name += 2;
        }
        let target = tokens.name(name);
        let known = tokens.is_name(name) && catalogue.name(target).has(Flags::RELATION);
        known.then_some(target)
    }

    /// UPDATE or DELETE that runs no function but those that are read-safe, of a table that has no
    /// triggers, or none that would write.
    fn advances_no_sequence(&self, at: usize, findings: &Findings<'_, '_, '_>) -> bool {
        let tokens = self.tokens;
        let (Some(catalogue), None | Some((Why::Write, _))) = (self.catalogue, findings.found)
        else {
            return false;
        };
        let verb = matches!(tokens.keyword(at), Keyword::UPDATE | Keyword::DELETE);
        let others = [
            "default", "nextval", "setval", "insert", "update", "delete", "merge",
        ];
        let loose = |at: usize| {
            let called = tokens.is(at + 1, TokenKind::LeftParen);
            others.iter().any(|word| tokens.word(at, word))
                || called && catalogue.name(tokens.name(at)).has(Flags::BAD_FUNCTION)
        };
        verb && !(at + 1..tokens.len()).any(loose)
            && findings.unknown_calls.is_empty()
            && !findings.run.is_all()
            && self
                .target(at, catalogue)
                .is_some_and(|target| !catalogue.advances_by(target))
    }

    /// What was found, for people: from the tree if there is one, else whatever names of the
    /// statement the catalogue knows.
    fn names(&self, findings: &Findings<'_, '_, '_>, tree: Option<&Tree>) -> Option<Names> {
        if self.detail == Detail::Class {
            return None;
        }
        let tokens = self.tokens;
        let decided_by = findings.found.and_then(|(_, at)| at);
        let known = |flag: Flags, call: bool| -> Vec<usize> {
            (0..tokens.len())
                .filter(|&at| {
                    tokens.is_name(at)
                        && tokens.is(at + 1, TokenKind::LeftParen) == call
                        && self
                            .catalogue
                            .is_some_and(|c| c.name(tokens.name(at)).has(flag))
                })
                .collect()
        };
        let (relations, functions) = match tree {
            Some(tree) => (tree.relations.clone(), tree.functions.clone()),
            None => (known(Flags::RELATION, false), known(Flags::FUNCTION, true)),
        };
        let texts = |mut places: Vec<usize>| {
            // Names that were put in, such as an array's, are words of the grammar.
            places.retain(|&at| {
                !matches!(
                    tokens.keyword(at),
                    Keyword::ARRAY | Keyword::CAST | Keyword::TREAT
                )
            });
            places.iter().map(|&at| tokens.name(at).to_vec()).collect()
        };
        Some(Names {
            decided_by: decided_by.map(|at| tokens.name(at).to_vec()),
            relations: texts(relations),
            functions: texts(functions),
        })
    }

    /// What names tell whatever is known of the catalogue.
    fn told_by_names(&self) -> Traits {
        (0..self.tokens.len()).fold(Traits::NONE, |traits, at| match self.tokens.name(at) {
            b"set_config" => traits.with(Traits::EFFECTS),
            b"pg_prepared_statements" | b"pg_prepared_statement" => {
                traits.with(Traits::PREPARED_VIEW)
            }
            b"currval" | b"lastval" => traits.with(Traits::SEQUENCES),
            b"current_date" | b"current_time" | b"current_timestamp" | b"localtime"
            | b"localtimestamp" => traits.with(Traits::TRANSACTION_TIME),
            // `age` of one argument counts from today.
            b"now" | b"transaction_timestamp" | b"age"
                if self.tokens.is(at + 1, TokenKind::LeftParen) =>
            {
                traits.with(Traits::TRANSACTION_TIME)
            }
            _ => traits,
        })
    }

    /// INSERT, UPDATE, DELETE, MERGE.
    fn write(&self, at: usize) -> Reading {
        let mut findings = Findings::new(self.catalogue, self.tokens);
        scan(self.tokens, at, &mut findings);
        self.surroundings(&mut findings);
        let mut traits = findings.traits;
        let unknown = self.catalogue.is_some_and(|catalogue| {
            let is_relation =
                |at: &usize| catalogue.name(self.tokens.name(*at)).has(Flags::RELATION);
            !findings.unknown_calls.iter().all(is_relation)
        });
        // Without a catalogue nobody knows what triggers there are.
        if findings.trigger_observe || unknown || self.catalogue.is_none() {
            traits = traits.with(Traits::OBSERVE);
        }
        traits = traits.with(self.told_by_names());
        if self.advances_no_sequence(at, &findings) {
            traits = traits.with(Traits::NO_SEQUENCES);
        }
        Reading {
            class: Class {
                tables: self.written_tables(at, &findings),
                ..Class::primary(Why::Write, traits)
            },
            names: self.names(&findings, None),
        }
    }

    /// COPY.
    fn copy(&self, at: usize) -> Reading {
        let tokens = self.tokens;
        let mut next = at + 1;
        let query = tokens.is(next, TokenKind::LeftParen);
        if query {
            next = tokens.partner(next) + 1;
        } else {
            // COPY BINARY is old, and may be a table's name.
            next += 1;
            while tokens.is(next, TokenKind::Dot) {
                next += 2;
            }
            if tokens.is(next, TokenKind::LeftParen) {
                next = tokens.partner(next) + 1;
            }
        }
        let stream = |word: &str| tokens.word(next + 1, word);
        if tokens.keyword(next) == Keyword::FROM {
            // The grammar lets either name stand for the client, whatever the direction.
            let copy = if stream("stdin") || stream("stdout") {
                Traits::COPY
            } else {
                Traits::NONE
            };
            let mut write = self.write(at);
            write.class.traits = write.class.traits.with(copy);
            return write;
        }
        if tokens.keyword(next) != Keyword::TO {
            return Reading::of(Class::UNKNOWN);
        }
        let mut reading = if query {
            self.inner(at + 2, tokens.partner(at + 1))
        } else {
            self.table(at + 1, next)
        };
        if stream("stdout") || stream("stdin") {
            reading.class.traits = reading.class.traits.with(Traits::COPY);
            reading
        } else {
            Reading::of(Class::primary(
                Why::Utility,
                reading
                    .class
                    .traits
                    .without(Traits::PURE_READ)
                    .with(Traits::OBSERVE),
            ))
        }
    }

    /// The table that COPY reads, whose name begins at `at` and ends before `end`.
    fn table(&self, at: usize, end: usize) -> Reading {
        let tokens = self.tokens;
        let mut name = at;
        while tokens.is(name + 1, TokenKind::Dot) {
            name += 2;
        }
        let plain = tokens.is_name(name)
            && (name + 1 == end
                || tokens.is(name + 1, TokenKind::LeftParen)
                    && tokens.partner(name + 1) + 1 == end);
        if !plain {
            return Reading::of(Class::UNKNOWN);
        }
        let mut findings = Findings::new(self.catalogue, tokens);
        self.surroundings(&mut findings);
        let tree = Tree {
            relations: vec![name],
            functions: Vec::new(),
        };
        self.relations(&tree, &mut findings);
        self.found(&findings, Some(&tree))
    }

    /// A statement within this one, between two places.
    fn inner(&self, start: usize, end: usize) -> Reading {
        let from = self.tokens.start(start);
        let to = self.tokens.start(end);
        match self.statement.get(from..to) {
            Some(statement) if self.holds_query(start) => {
                read(statement, self.lexing, self.catalogue, self.detail)
            }
            _ => Reading::of(Class::UNKNOWN),
        }
    }

    /// What begins at `at` is a query or writes: what EXPLAIN, COPY and DECLARE may hold (so that
    /// they don't nest).
    fn holds_query(&self, at: usize) -> bool {
        self.begins_query(at)
            || matches!(
                self.tokens.keyword(at),
                Keyword::INSERT | Keyword::UPDATE | Keyword::DELETE | Keyword::MERGE
            )
    }

    /// EXPLAIN: evaluates what it explains at least in part, ANALYZE wholly.
    fn explain(&self, at: usize) -> Reading {
        let tokens = self.tokens;
        let mut next = at + 1;
        if tokens.is(next, TokenKind::LeftParen) && !self.begins_query(next + 1) {
            next = tokens.partner(next) + 1;
        } else {
            while ["analyze", "analyse", "verbose"]
                .iter()
                .any(|word| tokens.word(next, word))
            {
                next += 1;
            }
        }
        if tokens.word(next, "execute") || tokens.word(next, "create") {
            return Reading::of(utility(self.statement, self.lexing).unwrap_or(Class::UNKNOWN));
        }
        let mut inner = self.inner(next, tokens.len());
        if inner.class.traits.has(Traits::EFFECTS) {
            inner.class.traits = inner.class.traits.with(Traits::OBSERVE);
        }
        inner
    }

    fn begins_query(&self, at: usize) -> bool {
        matches!(
            self.tokens.keyword(at),
            Keyword::SELECT | Keyword::WITH | Keyword::VALUES | Keyword::TABLE
        ) || self.tokens.is(at, TokenKind::LeftParen)
    }

    /// DECLARE … CURSOR.
    fn declare(&self, at: usize) -> Reading {
        let tokens = self.tokens;
        let mut next = at + 2;
        while ["binary", "insensitive", "asensitive", "no", "scroll"]
            .iter()
            .any(|word| tokens.word(next, word))
        {
            next += 1;
        }
        if !tokens.word(next, "cursor") {
            return Reading::of(Class::UNKNOWN);
        }
        next += 1;
        let hold = tokens.word(next, "with") && tokens.word(next + 1, "hold");
        if hold || tokens.word(next, "without") {
            next += 2;
        }
        if tokens.keyword(next) != Keyword::FOR {
            return Reading::of(Class::UNKNOWN);
        }
        let mut reading = self.inner(next + 1, tokens.len());
        let traits = reading.class.traits.with(Traits::EFFECTS);
        reading.class = if hold {
            Class::primary(Why::Session, traits.with(Traits::OBSERVE))
        } else {
            Class {
                traits,
                ..reading.class
            }
        };
        reading
    }

    /// EXECUTE: its arguments are expressions, and run.
    fn execute(&self, at: usize) -> Reading {
        let class = utility(self.statement, self.lexing).unwrap_or(Class::UNKNOWN);
        let mut findings = Findings::new(self.catalogue, self.tokens);
        scan(self.tokens, at + 2, &mut findings);
        self.surroundings(&mut findings);
        let Some((why, _)) = findings.found else {
            // Then it is what it executes, which the session knows.
            let harmless =
                findings.unknown_calls.is_empty() && !(self.catalogue.is_none() && findings.calls);
            return Reading::of(Class {
                traits: if harmless {
                    class.traits.without(Traits::OBSERVE)
                } else {
                    class.traits
                },
                ..class
            });
        };
        Reading {
            class: Class {
                access: Access::Primary(why),
                traits: class.traits.with(findings.traits),
                ..class
            },
            names: self.names(&findings, None),
        }
    }
}
