//! Words that are grammar in one place and names in another, and the syntax around them.

use sqlparser::{keywords::Keyword, tokenizer::Token};

use super::{
    super::{
        keyword::Role,
        scan::{cast_type, list_ends},
    },
    Group, JSON_TEST, LONGEST_GROUP, Writer,
    ahead::{fields_end, is_constant, is_definition_list, is_keyword_here, type_end},
};
use crate::sql::lexer::TokenKind;

impl Writer<'_, '_> {
    /// A word that may be grammar.
    pub(super) fn grammar(&mut self, at: usize) -> Option<usize> {
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
                let alias = tokens.partner(at + 1) + 1;
                if tokens.keyword(alias) == Keyword::AS {
                    self.jumps.push((alias, alias + 2));
                }
                return Some(at + 1);
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
                if list_ends(tokens, end) {
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

    /// `CAST(x AS type)`, whose type begins at `place`: a function of what is cast.
    fn cast(&mut self, at: usize, place: usize) -> Option<usize> {
        let tokens = self.tokens;
        self.identifier(at);
        self.push(Token::LParen, at + 1);
        self.groups.push(Group::Plain);
        self.jumps
            .push((place.checked_sub(1)?, tokens.partner(at + 1)));
        Some(at + 2)
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
        let query = close - at > LONGEST_GROUP
            || (at..close).any(|i| {
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
