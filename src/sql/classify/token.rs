//! One statement's tokens with what several readers of it want to know: folded names, keywords and
//! which parenthesis closes which.

use sqlparser::keywords::Keyword;

use super::keyword::{self, Role};
use crate::sql::{
    Lexing,
    lexer::{Lexer, Token, TokenKind, identifier, string_value},
};

/// Longest text that is classified. PostgreSQL itself takes up to 1 GB; what is longer than this is
/// a dump or a bulk load.
pub(super) const MAX_TEXT: usize = 1 << 20;

/// A token and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    pub(super) token: Token,
    /// `NoKeyword` unless it is an unquoted word that the grammar of queries knows.
    pub(super) keyword: Keyword,
    pub(super) role: Role,
    /// Where in [`Tokens::names`] the folded name lies; empty for what isn't a name.
    name: (u32, u32),
    /// Of a parenthesis or bracket: where its partner is.
    partner: u32,
}

/// All tokens of one statement.
#[derive(Debug, Default)]
pub(crate) struct Tokens<'a> {
    text: &'a [u8],
    lexing: Lexing,
    words: Vec<Word>,
    names: Vec<u8>,
    /// A name has characters beyond ASCII: which name the server takes it for depends on its
    /// encoding.
    pub(super) beyond_ascii: bool,
}

impl<'a> Tokens<'a> {
    /// Reads one statement; `None` where it can't be read as the server would, or its parentheses
    /// don't match.
    pub(crate) fn read(text: &'a [u8], lexing: Lexing) -> Option<Self> {
        let mut tokens = Self {
            text,
            lexing,
            words: Vec::with_capacity(text.len() / 4 + 4),
            names: Vec::with_capacity(text.len() / 2 + 8),
            beyond_ascii: false,
        };
        let mut open: Vec<u32> = Vec::new();
        for token in Lexer::new(text, lexing) {
            let at = u32::try_from(tokens.words.len()).ok()?;
            let mut word = Word {
                token,
                keyword: Keyword::NoKeyword,
                role: Role::None,
                name: (0, 0),
                partner: at,
            };
            match token.kind {
                TokenKind::Word => {
                    word.name = tokens.fold(token.bytes(text))?;
                    let name = slice(&tokens.names, word.name);
                    (word.keyword, word.role) = keyword::of(name);
                    if name == b"uescape" && tokens.follows_unicode() {
                        return None;
                    }
                    word.role = if word.role == Role::None {
                        Role::Name
                    } else {
                        word.role
                    };
                }
                TokenKind::Quoted | TokenKind::UnicodeQuoted => {
                    word.name = tokens.unquote(token)?;
                    word.role = Role::Name;
                }
                TokenKind::LeftParen | TokenKind::LeftBracket => open.push(at),
                TokenKind::RightParen | TokenKind::RightBracket => {
                    let opener = open.pop()?;
                    let left = tokens.words.get_mut(usize::try_from(opener).ok()?)?;
                    let matches = matches!(
                        (left.token.kind, token.kind),
                        (TokenKind::LeftParen, TokenKind::RightParen)
                            | (TokenKind::LeftBracket, TokenKind::RightBracket)
                    );
                    if !matches {
                        return None;
                    }
                    left.partner = at;
                    word.partner = opener;
                }
                TokenKind::Error => return None,
                _ => {}
            }
            tokens.words.push(word);
        }
        open.is_empty().then_some(tokens)
    }

    fn follows_unicode(&self) -> bool {
        matches!(
            self.words.last().map(|w| w.token.kind),
            Some(TokenKind::UnicodeQuoted | TokenKind::UnicodeString)
        )
    }

    fn fold(&mut self, bytes: &[u8]) -> Option<(u32, u32)> {
        let start = self.names.len();
        self.names
            .extend(bytes.iter().take(NAME).map(u8::to_ascii_lowercase));
        if !bytes.is_ascii() {
            self.beyond_ascii = true;
            if bytes.len() > NAME {
                return None;
            }
        }
        range(start, self.names.len())
    }

    fn unquote(&mut self, token: Token) -> Option<(u32, u32)> {
        let bytes = token.bytes(self.text);
        let start = self.names.len();
        let plain = bytes.get(1..bytes.len().checked_sub(1)?)?;
        if token.kind == TokenKind::Quoted && plain.len() <= NAME && !plain.contains(&b'"') {
            self.names.extend_from_slice(plain);
        } else {
            self.names
                .extend_from_slice(identifier(self.text, token)?.as_bytes());
        }
        let name = self.names.get(start..)?;
        if !name.is_ascii() {
            self.beyond_ascii = true;
        }
        range(start, self.names.len())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// What kind the token at `at` is.
    pub(crate) fn kind(&self, at: usize) -> Option<TokenKind> {
        self.words.get(at).map(|w| w.token.kind)
    }

    pub(crate) fn is(&self, at: usize, kind: TokenKind) -> bool {
        self.kind(at) == Some(kind)
    }

    /// The keyword at `at`, by spelling alone; `NoKeyword` for anything else.
    pub(crate) fn keyword(&self, at: usize) -> Keyword {
        self.words.get(at).map_or(Keyword::NoKeyword, |w| w.keyword)
    }

    pub(crate) fn role(&self, at: usize) -> Role {
        self.words.get(at).map_or(Role::None, |w| w.role)
    }

    /// The folded name at `at`; empty for what isn't a name.
    pub(crate) fn name(&self, at: usize) -> &[u8] {
        self.words
            .get(at)
            .map_or(&[], |w| slice(&self.names, w.name))
    }

    /// The unquoted word at `at` is `word` (lower case).
    pub(crate) fn word(&self, at: usize, word: &str) -> bool {
        self.is(at, TokenKind::Word) && self.name(at) == word.as_bytes()
    }

    /// A quoted or unquoted name that could be an identifier stands at `at`.
    pub(crate) fn is_name(&self, at: usize) -> bool {
        matches!(
            self.kind(at),
            Some(TokenKind::Word | TokenKind::Quoted | TokenKind::UnicodeQuoted)
        )
    }

    /// A string constant of any kind stands at `at`.
    pub(crate) fn is_string(&self, at: usize) -> bool {
        matches!(
            self.kind(at),
            Some(
                TokenKind::String
                    | TokenKind::EscapeString
                    | TokenKind::UnicodeString
                    | TokenKind::NationalString
                    | TokenKind::DollarString
            )
        )
    }

    /// The partner of the parenthesis or bracket at `at`.
    pub(crate) fn partner(&self, at: usize) -> usize {
        self.words
            .get(at)
            .and_then(|w| usize::try_from(w.partner).ok())
            .unwrap_or(at)
    }

    /// The operator at `at`; empty for what isn't one.
    pub(crate) fn operator(&self, at: usize) -> &'a [u8] {
        match self.words.get(at) {
            Some(w) if w.token.kind == TokenKind::Operator => w.token.bytes(self.text),
            _ => &[],
        }
    }

    /// The value of the string that is the whole first argument of the call at `at`.
    pub(crate) fn string_argument(&self, at: usize) -> Option<String> {
        let ends = matches!(
            self.kind(at + 3)?,
            TokenKind::Comma | TokenKind::RightParen | TokenKind::Cast
        );
        if !ends || !self.is(at + 1, TokenKind::LeftParen) {
            return None;
        }
        string_value(self.text, self.words.get(at + 2)?.token, self.lexing)
    }

    /// Where in the statement the token at `at` begins; the statement's length behind the last.
    pub(crate) fn start(&self, at: usize) -> usize {
        self.words
            .get(at)
            .map_or(self.text.len(), |w| w.token.start)
    }
}

fn range(start: usize, end: usize) -> Option<(u32, u32)> {
    Some((u32::try_from(start).ok()?, u32::try_from(end).ok()?))
}

fn slice(names: &[u8], (start, end): (u32, u32)) -> &[u8] {
    usize::try_from(start)
        .ok()
        .zip(usize::try_from(end).ok())
        .and_then(|(start, end)| names.get(start..end))
        .unwrap_or_default()
}

/// Longest name in bytes (NAMEDATALEN - 1); the server cuts off the rest.
const NAME: usize = 63;
