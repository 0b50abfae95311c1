//! The second reader: `sqlparser`'s tree of a query, asked for what tokens alone don't tell, which
//! names are relations and which are functions.

use std::ops::ControlFlow;

use sqlparser::{
    ast::{Expr, ObjectName, Query, Select, SetExpr, TableFactor, Visit, Visitor},
    dialect::PostgreSqlDialect,
    parser::Parser,
    tokenizer::{Token, TokenWithSpan},
};

use super::normalise::place;

/// Tokens that the parser gets at most. Its trees nest as deep as operators chain, and are dropped
/// recursively.
pub(super) const MAX_TOKENS: usize = 16_384;

/// How deep expressions and queries may nest.
const MAX_DEPTH: usize = 1_024;

/// Stack that a tree of one token may need, with a margin: parsing grows its stack by itself,
/// dropping doesn't.
const STACK_PER_TOKEN: usize = 1_024;

/// Fewer tokens than this never need more stack than any thread has.
const SMALL: usize = 256;

/// What the tree says.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Places of relations' names (of the last part of qualified ones).
    pub(super) relations: Vec<usize>,
    /// Places of called functions' names.
    pub(super) functions: Vec<usize>,
}

/// Reads a query; `None`: doesn't parse, or holds what a read doesn't.
pub(super) fn read(tokens: Vec<TokenWithSpan>) -> Option<Tree> {
    let count = tokens.len();
    if count > MAX_TOKENS {
        return None;
    }
    if count < SMALL {
        return parse(tokens);
    }
    stacker::maybe_grow(
        count * STACK_PER_TOKEN,
        count * STACK_PER_TOKEN + (1 << 20),
        || parse(tokens),
    )
}

fn parse(tokens: Vec<TokenWithSpan>) -> Option<Tree> {
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(MAX_DEPTH)
        .with_tokens_with_locations(tokens);
    let query = parser.parse_query().ok()?;
    if parser.peek_token_ref().token != Token::EOF {
        return None;
    }
    let mut reader = Reader::default();
    match query.visit(&mut reader) {
        ControlFlow::Continue(()) => Some(reader.0),
        ControlFlow::Break(()) => None,
    }
}

#[derive(Default)]
struct Reader(Tree);

impl Visitor for Reader {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let read = query.locks.is_empty()
            && query.for_clause.is_none()
            && query.settings.is_none()
            && query.format_clause.is_none()
            && query.pipe_operators.is_empty();
        proceed(read && reads(&query.body))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        proceed(select.into.is_none())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        named(relation, &mut self.0.relations)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args, .. } => match args {
                Some(_) => named(name, &mut self.0.functions),
                None => ControlFlow::Continue(()),
            },
            TableFactor::Function { name, .. } => named(name, &mut self.0.functions),
            TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::UNNEST { .. } => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => named(&function.name, &mut self.0.functions),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// A body is a read as far as it itself tells. Iterative: set operations chain.
fn reads(body: &SetExpr) -> bool {
    let mut pending = vec![body];
    while let Some(body) = pending.pop() {
        match body {
            SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => {}
            SetExpr::SetOperation { left, right, .. } => pending.extend([&**left, &**right]),
            SetExpr::Insert(_)
            | SetExpr::Update(_)
            | SetExpr::Delete(_)
            | SetExpr::Merge(_)
            | SetExpr::Table(_) => return false,
        }
    }
    true
}

fn named(name: &ObjectName, places: &mut Vec<usize>) -> ControlFlow<()> {
    let last = name.0.last().and_then(|part| part.as_ident());
    match last.and_then(|ident| place(ident.span)) {
        Some(place) => {
            places.push(place);
            ControlFlow::Continue(())
        }
        None => ControlFlow::Break(()),
    }
}

fn proceed(goes_on: bool) -> ControlFlow<()> {
    if goes_on {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}
