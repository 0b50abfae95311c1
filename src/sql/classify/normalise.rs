//! Rewrites a query's tokens into what `sqlparser` reads: same structure, same places of relations
//! and functions, without the syntax that it rejects or reads in another dialect's way.
//!
//! The scan has seen every name before; what is dropped here (types of casts, collations, sampling
//! methods, labels of arguments) can't name a relation or hold a query. Names and literals are
//! empty: a name is told by its place, kept in the span's column.

use sqlparser::{
    keywords::Keyword,
    tokenizer::{Location, Span, Token, TokenWithSpan, Word},
};

use super::{keyword::Role, scan::cast_type, token::Tokens};
use crate::sql::lexer::TokenKind;

/// The tokens for the parser, from the token at `start` on; `None` for what can't be rewritten
/// faithfully.
pub(super) fn normalise(tokens: &Tokens<'_>, start: usize) -> Option<Vec<TokenWithSpan>> {
    let mut writer = Writer {
        tokens,
        out: Vec::with_capacity(tokens.len() + 8),
        groups: Vec::new(),
        skipped: Vec::new(),
    };
    let mut at = start;
    while at < tokens.len() {
        at = writer.step(at)?;
    }
    Some(writer.out)
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
            let ends = tokens.is(at + 1, TokenKind::Comma) || list_is_empty(tokens, at + 1);
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

    /// A word that may be grammar.
    fn grammar(&mut self, at: usize) -> Option<usize> {
        let tokens = self.tokens;
        let keyword = tokens.keyword(at);
        let next = |offset: usize| tokens.keyword(at + offset);
        let paren = tokens.is(at + 1, TokenKind::LeftParen);
        let before = at
            .checked_sub(1)
            .map_or(Keyword::NoKeyword, |b| tokens.keyword(b));
        if tokens.is(at + 1, TokenKind::Dot) || tokens.is(at + 1, TokenKind::Assign) {
            return self.name(at);
        }
        if tokens.role(at) == Role::TypeName {
            let end = type_end(tokens, at);
            let literal = tokens.is_string(end)
                && !(tokens.word(end - 1, "zone") && tokens.word(at + 1, "zone"));
            if literal {
                // Fields of an interval follow its literal.
                return Some(fields_end(tokens, self.typed_literal(end)));
            }
            return self.name(at);
        }
        match keyword {
            Keyword::AS if paren && is_definition_list(tokens, at + 1) => {
                return Some(tokens.partner(at + 1) + 1);
            }
            Keyword::CAST | Keyword::TREAT if paren => {
                let place = cast_type(tokens, at + 1)?;
                return self.cast(at, place);
            }
            Keyword::EXTRACT
            | Keyword::POSITION
            | Keyword::SUBSTRING
            | Keyword::OVERLAY
            | Keyword::TRIM
                if paren =>
            {
                self.identifier(at);
                return Some(self.open(at + 1, Group::Arguments));
            }
            Keyword::EXISTS if paren => self.keyword(keyword, at),
            Keyword::GROUPING if next(1) == Keyword::SETS => self.keyword(keyword, at),
            Keyword::VALUES if paren => {
                self.keyword(keyword, at);
                return Some(self.rows(at + 1));
            }
            Keyword::BETWEEN => {
                self.keyword(keyword, at);
                if matches!(next(1), Keyword::SYMMETRIC | Keyword::ASYMMETRIC) {
                    return Some(at + 2);
                }
            }
            Keyword::COLLATE => {
                let mut end = at + 1;
                while tokens.is(end + 1, TokenKind::Dot) {
                    end += 2;
                }
                return Some(end + 1);
            }
            Keyword::OPERATOR if paren => {
                let end = tokens.partner(at + 1);
                self.binary(at, end + 1);
                return Some(end + 1);
            }
            Keyword::AT if tokens.word(at + 1, "time") && tokens.word(at + 2, "zone") => {
                self.push(Token::Minus, at);
                return Some(at + 3);
            }
            Keyword::AT if next(1) == Keyword::LOCAL && self.after_operand() => {
                return Some(at + 2);
            }
            Keyword::FOR if next(1) == Keyword::READ && tokens.word(at + 2, "only") => {
                return Some(at + 3);
            }
            Keyword::ONLY
                if matches!(before, Keyword::FROM | Keyword::JOIN | Keyword::TABLE)
                    || at > 0 && tokens.is(at - 1, TokenKind::Comma) =>
            {
                if paren {
                    self.skipped.push(tokens.partner(at + 1));
                    return Some(at + 2);
                }
            }
            Keyword::TABLE if tokens.is_name(at + 1) || next(1) == Keyword::ONLY => {
                self.keyword(Keyword::SELECT, at);
                self.push(Token::Mul, at);
                self.keyword(Keyword::FROM, at);
            }
            Keyword::TABLESAMPLE => {
                let mut end = at + 2;
                while tokens.is(end, TokenKind::Dot) {
                    end += 2;
                }
                return self.leave_out(end).and_then(|end| {
                    if tokens.keyword(end) == Keyword::REPEATABLE {
                        self.leave_out(end + 1)
                    } else {
                        Some(end)
                    }
                });
            }
            Keyword::ROWS
                if next(1) == Keyword::FROM && tokens.is(at + 2, TokenKind::LeftParen) =>
            {
                self.skipped.push(tokens.partner(at + 2));
                return Some(at + 3);
            }
            // ORDER BY … USING operator
            Keyword::USING if !tokens.operator(at + 1).is_empty() => return Some(at + 2),
            // JOIN … USING (…) AS alias
            Keyword::USING if paren => {
                self.keyword(keyword, at);
                let mut inner = at + 1;
                while inner <= tokens.partner(at + 1) {
                    inner = self.step(inner)?;
                }
                return Some(if tokens.keyword(inner) == Keyword::AS {
                    inner + 2
                } else {
                    inner
                });
            }
            Keyword::DISTINCT if before == Keyword::BY => {}
            Keyword::NOTNULL if self.after_operand() => {}
            Keyword::FIRST | Keyword::NEXT if before == Keyword::FETCH && paren => {
                self.keyword(keyword, at);
                self.constant(at + 1);
                return self.leave_out(at + 1);
            }
            Keyword::ROW if matches!(before, Keyword::CURRENT | Keyword::FIRST | Keyword::NEXT) => {
                self.keyword(keyword, at);
            }
            Keyword::SEARCH
                if matches!(self.last(), Some(Token::RParen))
                    && (tokens.word(at + 1, "depth") || tokens.word(at + 1, "breadth")) =>
            {
                return self.behind(at, "set");
            }
            Keyword::CYCLE
                if matches!(self.last(), Some(Token::RParen)) && tokens.is_name(at + 1) =>
            {
                return self.behind(at, "using");
            }
            Keyword::DOUBLE if tokens.word(at + 1, "precision") && tokens.is_string(at + 2) => {
                return Some(at + 2);
            }
            Keyword::EXCLUDE
                if matches!(next(1), Keyword::GROUP | Keyword::TIES)
                    || next(1) == Keyword::CURRENT
                    || next(1) == Keyword::NO =>
            {
                let two = matches!(next(1), Keyword::CURRENT | Keyword::NO);
                return Some(at + if two { 3 } else { 2 });
            }
            Keyword::VARIADIC => {}
            Keyword::ARRAY if tokens.is(at + 1, TokenKind::LeftBracket) => {
                self.identifier(at);
                self.groups.push(Group::Bracket);
                self.push(Token::LParen, at + 1);
                return Some(at + 2);
            }
            Keyword::IS => return Some(self.is(at)),
            Keyword::SELECT => {
                self.keyword(keyword, at);
                let mut end = at + 1;
                if matches!(next(1), Keyword::ALL) {
                    end += 1;
                }
                if list_is_empty(tokens, end) {
                    self.constant(at);
                }
                return Some(end);
            }
            Keyword::CURRENT if next(1) == Keyword::NoKeyword && !tokens.word(at + 1, "row") => {
                return self.name(at);
            }
            _ if is_keyword_here(tokens, at) => self.keyword(keyword, at),
            _ => return self.name(at),
        }
        Some(at + 1)
    }

    /// A literal at `at`.
    fn typed_literal(&mut self, at: usize) -> usize {
        self.constant(at);
        at + 1
    }

    /// `CAST(x AS type)`, whose type begins at `place`: what is cast, in parentheses.
    fn cast(&mut self, at: usize, place: usize) -> Option<usize> {
        let tokens = self.tokens;
        let close = tokens.partner(at + 1);
        self.push(Token::LParen, at + 1);
        self.groups.push(Group::Plain);
        let mut inner = at + 2;
        let end = place.checked_sub(1)?;
        while inner < end {
            inner = self.step(inner)?;
        }
        self.groups.pop();
        self.push(Token::RParen, close);
        Some(close + 1)
    }

    /// Behind the name that follows `word`, which ends a clause that begins at `at`.
    fn behind(&self, at: usize, word: &str) -> Option<usize> {
        let tokens = self.tokens;
        let end = (at + 1..tokens.len())
            .take_while(|&i| tokens.keyword(i) != Keyword::SELECT)
            .find(|&i| tokens.word(i, word))?;
        tokens.is_name(end + 1).then_some(end + 2)
    }

    /// Leaves out a parenthesised group that holds no query, if one begins at `at`.
    fn leave_out(&mut self, at: usize) -> Option<usize> {
        let tokens = self.tokens;
        if !tokens.is(at, TokenKind::LeftParen) {
            return None;
        }
        let close = tokens.partner(at);
        let query = (at..close).any(|i| {
            matches!(
                tokens.keyword(i),
                Keyword::SELECT | Keyword::TABLE | Keyword::VALUES
            )
        });
        (!query).then_some(close + 1)
    }

    /// The rows of VALUES; of many rows of nothing but constants only the first.
    fn rows(&mut self, first: usize) -> usize {
        let tokens = self.tokens;
        let constant = |open: usize| {
            (open + 1..tokens.partner(open))
                .all(|i| is_constant(tokens, i) || tokens.is(i, TokenKind::Comma))
        };
        let mut rows = 1_usize;
        let mut end = first;
        while constant(end)
            && tokens.is(tokens.partner(end) + 1, TokenKind::Comma)
            && tokens.is(tokens.partner(end) + 2, TokenKind::LeftParen)
        {
            end = tokens.partner(end) + 2;
            rows += 1;
        }
        if rows > 4 { end } else { first }
    }

    /// IS and the tests that the parser doesn't know.
    fn is(&mut self, at: usize) -> usize {
        let tokens = self.tokens;
        let test = at + 1 + usize::from(tokens.keyword(at + 1) == Keyword::NOT);
        let end = match tokens.name(test) {
            b"document" | b"normalized" => test + 1,
            b"nfc" | b"nfd" | b"nfkc" | b"nfkd" => test + 2,
            b"json" => {
                let mut end = test + 1;
                while JSON_TEST.iter().any(|word| tokens.word(end, word)) {
                    end += 1;
                }
                end
            }
            _ => {
                self.keyword(Keyword::IS, at);
                return at + 1;
            }
        };
        self.keyword(Keyword::IS, at);
        self.keyword(Keyword::NULL, at);
        end
    }
}

/// Words that stand for grammar in their place only.
fn is_keyword_here(tokens: &Tokens<'_>, at: usize) -> bool {
    let next = |offset: usize| tokens.keyword(at + offset);
    let paren = tokens.is(at + 1, TokenKind::LeftParen);
    let before = at
        .checked_sub(1)
        .map_or(Keyword::NoKeyword, |b| tokens.keyword(b));
    if tokens.role(at) == Role::CallLike {
        return false;
    }
    if tokens.role(at) == Role::TypeFunction {
        // left(…), right(…), like(…)
        return !(paren && matches!(tokens.keyword(at), Keyword::LEFT | Keyword::RIGHT));
    }
    if tokens.role(at) != Role::Soft {
        return true;
    }
    match tokens.keyword(at) {
        Keyword::BY => matches!(before, Keyword::GROUP | Keyword::ORDER | Keyword::PARTITION),
        Keyword::OVER => paren || tokens.is_name(at + 1),
        Keyword::FILTER | Keyword::CUBE | Keyword::ROLLUP => paren,
        Keyword::WITHIN => next(1) == Keyword::GROUP,
        Keyword::SETS => tokens.word(at.saturating_sub(1), "grouping"),
        Keyword::PARTITION => next(1) == Keyword::BY,
        Keyword::MATERIALIZED => matches!(before, Keyword::AS | Keyword::NOT),
        Keyword::RECURSIVE | Keyword::ORDINALITY | Keyword::TIES => before == Keyword::WITH,
        Keyword::NULLS => matches!(next(1), Keyword::FIRST | Keyword::LAST),
        Keyword::FIRST | Keyword::NEXT | Keyword::LAST => {
            matches!(before, Keyword::FETCH | Keyword::NULLS)
        }
        Keyword::UNBOUNDED => matches!(next(1), Keyword::PRECEDING | Keyword::FOLLOWING),
        Keyword::PRECEDING | Keyword::FOLLOWING => at > 0,
        Keyword::ROWS | Keyword::RANGE | Keyword::GROUPS => {
            frame(tokens, at) || tokens.keyword(at) == Keyword::ROWS && fetches(tokens, at)
        }
        Keyword::CURRENT => tokens.word(at + 1, "row"),
        Keyword::ESCAPE => true,
        _ => false,
    }
}

/// ROWS, RANGE or GROUPS at `at` begins a window's frame.
fn frame(tokens: &Tokens<'_>, at: usize) -> bool {
    matches!(
        tokens.keyword(at + 1),
        Keyword::BETWEEN | Keyword::UNBOUNDED | Keyword::CURRENT
    ) || matches!(
        tokens.keyword(at + 2),
        Keyword::PRECEDING | Keyword::FOLLOWING
    ) || tokens.word(at + 1, "interval")
}

/// ROWS at `at` belongs to FETCH FIRST or OFFSET.
fn fetches(tokens: &Tokens<'_>, at: usize) -> bool {
    tokens.word(at + 1, "only")
        || tokens.keyword(at + 1) == Keyword::WITH
        || tokens.keyword(at.saturating_sub(2)) == Keyword::OFFSET
}

/// `(a int, b text)` or `(a, b)` at `open`, as it follows an alias: names, types, modifiers.
/// Of `(a, b)` only where the first name is followed by a type: plain lists stay.
fn is_definition_list(tokens: &Tokens<'_>, open: usize) -> bool {
    let close = tokens.partner(open);
    let typed = tokens.is_name(open + 1)
        && matches!(tokens.role(open + 1), Role::Name | Role::Soft)
        && tokens.is_name(open + 2)
        && matches!(
            tokens.role(open + 2),
            Role::Name | Role::TypeName | Role::Soft
        );
    typed
        && (open + 1..close).all(|i| match tokens.kind(i) {
            Some(TokenKind::Word) => {
                tokens.role(i) != Role::Reserved
                    || matches!(
                        tokens.keyword(i),
                        Keyword::COLLATE | Keyword::WITH | Keyword::ARRAY
                    )
            }
            Some(
                TokenKind::Quoted
                | TokenKind::UnicodeQuoted
                | TokenKind::Comma
                | TokenKind::Dot
                | TokenKind::Integer
                | TokenKind::LeftParen
                | TokenKind::RightParen
                | TokenKind::LeftBracket
                | TokenKind::RightBracket,
            ) => true,
            _ => false,
        })
}

/// Nothing stands between SELECT and what ends its list.
fn list_is_empty(tokens: &Tokens<'_>, at: usize) -> bool {
    match tokens.kind(at) {
        None | Some(TokenKind::RightParen) => true,
        Some(TokenKind::Word) => matches!(
            tokens.keyword(at),
            Keyword::FROM
                | Keyword::WHERE
                | Keyword::GROUP
                | Keyword::HAVING
                | Keyword::WINDOW
                | Keyword::ORDER
                | Keyword::LIMIT
                | Keyword::OFFSET
                | Keyword::FETCH
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
        ),
        _ => false,
    }
}

fn is_constant(tokens: &Tokens<'_>, at: usize) -> bool {
    tokens.is_string(at)
        || matches!(
            tokens.kind(at),
            Some(
                TokenKind::Integer
                    | TokenKind::Decimal
                    | TokenKind::Param
                    | TokenKind::Bits
                    | TokenKind::HexBits
            )
        )
}

/// Behind the type's name that begins at `at`, with modifiers and array bounds.
fn type_end(tokens: &Tokens<'_>, at: usize) -> usize {
    let mut end = at;
    if tokens.word(end, "setof") {
        end += 1;
    }
    let first = end;
    end += 1;
    while tokens.is(end, TokenKind::Dot) {
        end += 2;
    }
    let modifier = |end: &mut usize| {
        if tokens.is(*end, TokenKind::LeftParen) {
            *end = tokens.partner(*end) + 1;
        }
    };
    let name = if tokens.is(first, TokenKind::Word) {
        tokens.name(first)
    } else {
        b""
    };
    match name {
        b"double" if tokens.word(end, "precision") => end += 1,
        b"national" => end += 1,
        _ => {}
    }
    if tokens.word(end, "varying")
        && matches!(
            name,
            b"character" | b"char" | b"bit" | b"national" | b"nchar"
        )
    {
        end += 1;
    }
    modifier(&mut end);
    if matches!(name, b"time" | b"timestamp")
        && (tokens.word(end, "with") || tokens.word(end, "without"))
        && tokens.word(end + 1, "time")
        && tokens.word(end + 2, "zone")
    {
        end += 3;
    }
    if name == b"interval" {
        end = fields_end(tokens, end);
    }
    if tokens.word(end, "array") && end > at {
        end += 1;
    }
    while tokens.is(end, TokenKind::LeftBracket) {
        end = tokens.partner(end) + 1;
    }
    end
}

/// Behind `DAY TO SECOND(3)` and the like, if they stand at `at`.
fn fields_end(tokens: &Tokens<'_>, at: usize) -> usize {
    let field = |at: usize| {
        ["year", "month", "day", "hour", "minute", "second"]
            .iter()
            .any(|field| tokens.word(at, field))
    };
    if !field(at) {
        return at;
    }
    let mut end = at + 1;
    if tokens.keyword(end) == Keyword::TO && field(end + 1) {
        end += 2;
    }
    if tokens.is(end, TokenKind::LeftParen) {
        end = tokens.partner(end) + 1;
    }
    end
}

/// Tokens of a list of constants from which on only its first element is kept.
const LONG_LIST: usize = 12;

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
