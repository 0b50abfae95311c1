//! Rewrites a query's tokens into what `sqlparser` reads: same structure, same places of relations
//! and functions, without the syntax that it rejects or reads in another dialect's way.
//!
//! The scan has seen every name before; what is dropped here (types of casts, collations, sampling
//! methods, labels of arguments) can't name a relation or hold a query. Names and literals are
//! empty: a name is told by its place, kept in the span's column.

mod ahead;
mod grammar;

use sqlparser::{
    keywords::Keyword,
    tokenizer::{Location, Span, Token, TokenWithSpan, Word},
};

use self::ahead::{is_constant, is_definition_list, type_end};
use super::{keyword::Role, scan::is_wildcard, token::Tokens};
use crate::sql::lexer::TokenKind;

/// The tokens for the parser, from the token at `start` on; `None` for what can't be rewritten
/// faithfully.
pub(super) fn normalise(tokens: &Tokens<'_>, start: usize) -> Option<Vec<TokenWithSpan>> {
    let mut writer = Writer {
        tokens,
        out: Vec::with_capacity(tokens.len() + 8),
        groups: Vec::new(),
        skipped: Vec::new(),
        jumps: Vec::new(),
    };
    let mut at = start;
    while at < tokens.len() {
        at = writer.step(at)?;
    }
    is_shallow(&writer.out).then_some(writer.out)
}

/// Joins whose conditions are still to come, and parentheses that open at once, nest no deeper than
/// people write them: the parser's stack and time grow fast with these.
fn is_shallow(out: &[TokenWithSpan]) -> bool {
    let mut joins = 0_usize;
    let mut parens = 0_usize;
    let mut unconditional = false;
    for token in out {
        parens = if token.token == Token::LParen {
            parens + 1
        } else {
            0
        };
        if let Token::Word(word) = &token.token {
            match word.keyword {
                Keyword::CROSS | Keyword::NATURAL => unconditional = true,
                Keyword::JOIN => {
                    joins += usize::from(!unconditional);
                    unconditional = false;
                }
                Keyword::ON | Keyword::USING => joins = joins.saturating_sub(1),
                _ => {}
            }
        }
        if joins > PENDING_JOINS || parens > OPENING_AT_ONCE {
            return false;
        }
    }
    true
}

/// Where in the original a rewritten token stood; `None` for one that was put in.
pub(super) fn place(span: Span) -> Option<usize> {
    usize::try_from(span.start.column).ok()?.checked_sub(1)
}

/// What a parenthesis belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Plain,
    /// `EXTRACT(… FROM …)` and its kind: words part the arguments.
    Arguments,
    /// SQL/JSON and XML functions: clauses follow the arguments.
    Clauses,
    /// A subscript or an array.
    Bracket,
}

struct Writer<'t, 'a> {
    tokens: &'t Tokens<'a>,
    out: Vec<TokenWithSpan>,
    groups: Vec<Group>,
    /// Parentheses that close what was left out.
    skipped: Vec<usize>,
    /// Where to go on elsewhere, innermost last: what lies between is left out.
    jumps: Vec<(usize, usize)>,
}

impl Writer<'_, '_> {
    fn push(&mut self, token: Token, at: usize) {
        let column = u64::try_from(at).unwrap_or(u64::MAX - 1) + 1;
        let place = Location { line: 1, column };
        self.out.push(TokenWithSpan {
            token,
            span: Span {
                start: place,
                end: place,
            },
        });
    }

    fn keyword(&mut self, keyword: Keyword, at: usize) {
        let word = Word {
            value: String::new(),
            quote_style: None,
            keyword,
        };
        self.push(Token::Word(word), at);
    }

    fn identifier(&mut self, at: usize) {
        let word = Word {
            value: String::new(),
            quote_style: Some('"'),
            keyword: Keyword::NoKeyword,
        };
        self.push(Token::Word(word), at);
    }

    fn constant(&mut self, at: usize) {
        self.push(Token::Number(String::new(), false), at);
    }

    fn last(&self) -> Option<&Token> {
        self.out.last().map(|t| &t.token)
    }

    /// What was written last can end an operand.
    fn after_operand(&self) -> bool {
        match self.last() {
            Some(Token::Word(word)) => matches!(
                word.keyword,
                Keyword::NoKeyword | Keyword::NULL | Keyword::TRUE | Keyword::FALSE | Keyword::END
            ),
            Some(Token::Number(..) | Token::RParen) => true,
            _ => false,
        }
    }

    /// Writes what stands at `at`; answers where to go on.
    fn step(&mut self, at: usize) -> Option<usize> {
        let tokens = self.tokens;
        if let Some(&(from, to)) = self.jumps.last()
            && from <= at
        {
            self.jumps.pop();
            return (from == at).then_some(to);
        }
        let kind = tokens.kind(at)?;
        match kind {
            TokenKind::Word => return self.word(at),
            TokenKind::Quoted | TokenKind::UnicodeQuoted => return self.name(at),
            TokenKind::String
            | TokenKind::EscapeString
            | TokenKind::UnicodeString
            | TokenKind::NationalString
            | TokenKind::DollarString
            | TokenKind::Bits
            | TokenKind::HexBits
            | TokenKind::Integer
            | TokenKind::Decimal
            | TokenKind::Param => return Some(self.constants(at)),
            TokenKind::Operator => return Some(self.operator(at)),
            TokenKind::LeftParen => return Some(self.open(at, Group::Plain)),
            TokenKind::RightParen | TokenKind::RightBracket => {
                if self.skipped.last() == Some(&at) {
                    self.skipped.pop();
                } else {
                    self.groups.pop();
                    if kind == TokenKind::RightBracket && matches!(self.last(), Some(Token::LParen))
                    {
                        self.constant(at);
                    }
                    self.push(Token::RParen, at);
                }
            }
            TokenKind::LeftBracket => self.bracket(at),
            TokenKind::Comma => self.push(Token::Comma, at),
            TokenKind::Dot => return Some(self.dot(at)),
            TokenKind::Cast => return Some(type_end(tokens, at + 1)),
            TokenKind::Colon => self.colon(at)?,
            TokenKind::DotDot | TokenKind::Assign | TokenKind::Semicolon | TokenKind::Error => {
                return None;
            }
        }
        Some(at + 1)
    }

    /// A constant; of a long list of them only the first.
    fn constants(&mut self, at: usize) -> usize {
        self.constant(at);
        let tokens = self.tokens;
        let mut end = at + 1;
        while tokens.is(end, TokenKind::Comma) && is_constant(tokens, end + 1) {
            end += 2;
        }
        // Short ones stay: some functions are read by the number of their arguments.
        if end - at > LONG_LIST { end } else { at + 1 }
    }

    /// Opens a parenthesis. Three that open and close together say no more than two.
    fn open(&mut self, at: usize, group: Group) -> usize {
        let tokens = self.tokens;
        let mut from = at;
        while group == Group::Plain
            && tokens.is(from + 1, TokenKind::LeftParen)
            && tokens.is(from + 2, TokenKind::LeftParen)
            && tokens.partner(from + 1) + 1 == tokens.partner(from)
            && tokens.partner(from + 2) + 1 == tokens.partner(from + 1)
        {
            self.skipped.push(tokens.partner(from));
            from += 1;
        }
        self.groups.push(group);
        self.push(Token::LParen, from);
        from + 1
    }

    /// `a[…]` becomes an operand, an array a list.
    fn bracket(&mut self, at: usize) {
        if self.after_operand() {
            self.push(Token::Minus, at);
        }
        self.groups.push(Group::Bracket);
        self.push(Token::LParen, at);
    }

    /// Of `a[b:c]`, or of JSON_OBJECT's `a : b`.
    fn colon(&mut self, at: usize) -> Option<()> {
        match self.groups.last()? {
            Group::Bracket => {
                if !self.after_operand() {
                    self.constant(at);
                }
                if !self.tokens.is(at + 1, TokenKind::RightBracket) {
                    self.push(Token::Minus, at);
                }
            }
            Group::Clauses => self.push(Token::Comma, at),
            Group::Plain | Group::Arguments => return None,
        }
        Some(())
    }

    /// A point: kept between names, dropped with what follows elsewhere.
    fn dot(&mut self, at: usize) -> usize {
        let all = self.tokens.operator(at + 1) == b"*";
        let of_name =
            matches!(self.last(), Some(Token::Word(w)) if w.keyword == Keyword::NoKeyword);
        if all || !of_name {
            return at + 2;
        }
        self.push(Token::Period, at);
        self.identifier(at + 1);
        at + 2
    }

    /// An operator. Which one doesn't matter for the structure, except before ANY and ALL and as
    /// the wildcard.
    fn operator(&mut self, at: usize) -> usize {
        let tokens = self.tokens;
        let operator = tokens.operator(at);
        if operator == b"=>" {
            // The label of an argument.
            if matches!(self.last(), Some(Token::Word(_))) {
                self.out.pop();
            }
            return at + 1;
        }
        if operator == b"*" {
            let ends = is_wildcard(tokens, at);
            let name = matches!(self.last(), Some(Token::Word(_)));
            match (ends, self.after_operand()) {
                // `FROM t *`
                (true, true) if name => return at + 1,
                // `DISTINCT ON (…) *`
                (true, true) | (_, false) => {
                    self.push(Token::Mul, at);
                    return at + 1;
                }
                (false, true) => {}
            }
        }
        self.binary(at, at + 1);
        at + 1
    }

    /// An operator that ends before `next`.
    fn binary(&mut self, at: usize, next: usize) {
        let quantified = matches!(
            self.tokens.keyword(next),
            Keyword::ANY | Keyword::ALL | Keyword::SOME
        );
        self.push(if quantified { Token::Eq } else { Token::Minus }, at);
    }

    fn word(&mut self, at: usize) -> Option<usize> {
        let tokens = self.tokens;
        if tokens.keyword(at.checked_sub(1).unwrap_or(usize::MAX)) == Keyword::AS
            && !matches!(tokens.keyword(at), Keyword::MATERIALIZED | Keyword::NOT)
            && tokens.role(at) != Role::Name
        {
            // A label, whatever the word is.
            self.identifier(at);
            return Some(at + 1);
        }
        if self.groups.last() == Some(&Group::Arguments) && self.separator(at) {
            return Some(at + 1);
        }
        if self.groups.last() == Some(&Group::Clauses)
            && let Some(next) = self.clause(at)
        {
            return Some(next);
        }
        if matches!(tokens.role(at), Role::Name | Role::Value) {
            return self.name(at);
        }
        self.grammar(at)
    }

    /// FROM, FOR, IN, … within `EXTRACT(…)` and its kind.
    fn separator(&mut self, at: usize) -> bool {
        match self.tokens.keyword(at) {
            Keyword::FROM
            | Keyword::FOR
            | Keyword::PLACING
            | Keyword::IN
            | Keyword::SIMILAR
            | Keyword::ESCAPE => {
                if !matches!(self.last(), Some(Token::LParen)) {
                    self.push(Token::Comma, at);
                }
                true
            }
            Keyword::BOTH | Keyword::LEADING | Keyword::TRAILING => true,
            _ => false,
        }
    }

    /// A clause of an SQL/JSON or XML function; `None`: not one.
    fn clause(&mut self, at: usize) -> Option<usize> {
        let tokens = self.tokens;
        let name = tokens.name(at);
        let on = |next: usize| tokens.keyword(next) == Keyword::ON;
        match name {
            b"passing" | b"value" | b"default" if self.after_operand() => {
                self.push(Token::Comma, at);
                Some(at + 1)
            }
            b"as" if tokens.is_name(at + 1) => Some(type_end(tokens, at + 1)),
            b"returning" => Some(type_end(tokens, at + 1)),
            b"name"
                if tokens.is_name(at + 1)
                    && matches!(
                        tokens.kind(at + 2),
                        Some(TokenKind::Comma | TokenKind::RightParen)
                    ) =>
            {
                self.constant(at);
                Some(at + 2)
            }
            b"null" | b"true" | b"false" | b"unknown" | b"error" | b"absent" | b"empty"
                if on(at + 1) =>
            {
                Some(at + 3)
            }
            b"empty" | b"error" if on(at + 2) => Some(at + 4),
            b"on" => Some(at + 2),
            b"with" | b"without" | b"unique" | b"keys" | b"conditional" | b"unconditional"
            | b"wrapper" | b"format" | b"json" | b"quotes" | b"keep" | b"omit" | b"document"
            | b"content" | b"key"
                if self.after_operand()
                    || matches!(self.last(), Some(Token::LParen | Token::Comma)) =>
            {
                let json_value = matches!(name, b"json" | b"key" | b"format")
                    && !tokens.is_name(at + 1)
                    && !tokens.is_string(at + 1);
                (!json_value).then_some(at + 1)
            }
            _ => None,
        }
    }

    /// A name, or a type before a literal.
    fn name(&mut self, at: usize) -> Option<usize> {
        let tokens = self.tokens;
        if tokens.is_string(at + 1) && tokens.role(at) == Role::Name {
            return Some(at + 1);
        }
        if tokens.is(at + 1, TokenKind::Assign) {
            return Some(at + 2);
        }
        match tokens.name(at) {
            // Postfix operators.
            b"isnull" | b"notnull" if self.after_operand() && tokens.is(at, TokenKind::Word) => {
                return Some(at + 1);
            }
            b"xmltable" | b"json_table" if tokens.is(at + 1, TokenKind::LeftParen) => return None,
            b"greatest" => {}
            name if CLAUSED.contains(&name) && tokens.is(at + 1, TokenKind::LeftParen) => {
                self.identifier(at);
                return Some(self.open(at + 1, Group::Clauses));
            }
            _ => {}
        }
        self.identifier(at);
        if tokens.is(at + 1, TokenKind::LeftParen) && is_definition_list(tokens, at + 1) {
            return Some(tokens.partner(at + 1) + 1);
        }
        Some(at + 1)
    }
}

/// How many joins may wait for their conditions (`a JOIN b JOIN c ON … ON …`): the parser recurses
/// there without a limit of its own.
const PENDING_JOINS: usize = 8;

/// How many parentheses may open at once; parsing them takes cubic time in FROM.
const OPENING_AT_ONCE: usize = 64;

/// Tokens of a list of constants from which on only its first element is kept.
const LONG_LIST: usize = 12;

/// Tokens that a list of columns and types, or a sampling method's arguments, have at most.
const LONGEST_GROUP: usize = 8_192;

/// Words that may follow IS JSON.
const JSON_TEST: &[&str] = &[
    "value", "scalar", "array", "object", "with", "without", "unique", "keys",
];

/// Functions whose arguments have clauses.
const CLAUSED: &[&[u8]] = &[
    b"json",
    b"json_array",
    b"json_arrayagg",
    b"json_exists",
    b"json_object",
    b"json_objectagg",
    b"json_query",
    b"json_scalar",
    b"json_serialize",
    b"json_value",
    b"xmlattributes",
    b"xmlelement",
    b"xmlexists",
    b"xmlforest",
    b"xmlparse",
    b"xmlpi",
    b"xmlroot",
    b"xmlserialize",
];
