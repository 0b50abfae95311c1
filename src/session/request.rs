//! One request: which frames belong to it, what it may do, and which prepared statements its names
//! mean.

use std::sync::Arc;

use super::{
    Session,
    emit::Form,
    prepared::{Named, Statements},
    reading::{self, Reading},
    unnamed::Text,
};
use crate::{
    protocol::{
        frame::{HEADER, Header, Malformed},
        frontend::{self, Bind, Execute, Object, Parse, Target, tag},
        limits,
    },
    sql::{self, Access, Begin, Class, Effect, Kind, Tables, Traits, Why},
};

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A simple Query, or a FunctionCall.
    Ready,
    Sync,
    Flush,
    /// Not within what may be kept: the rest is passed on as it comes.
    Open,
}

/// How much of a server's work a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// None: only Sync, Flush, and Close of statements.
    Nothing,
    /// It has a Parse or Describe.
    Prepares,
    /// It has a Bind, Execute, Query or FunctionCall.
    Runs,
}

/// What becomes of a request's portals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portals {
    /// They are run to their ends, and nobody will ask for them again.
    Done,
    /// One outlives it: with a name, or not run to its end.
    Kept,
}

/// What a scan of the bytes at the front of the buffer found.
#[derive(Debug)]
pub struct Request {
    pub end: End,
    /// Of its whole frames.
    pub len: usize,
    /// The strictest of its statements.
    pub class: Class,
    /// The first transaction that it begins through the extended protocol.
    pub begin: Option<Begin>,
    /// The text of a simple Query, as a range of the buffer.
    pub query: Option<std::ops::Range<usize>>,
    pub work: Work,
    pub portals: Portals,
    /// It has a Describe: the client learns the shape of what it will get.
    pub describes: bool,
    /// Its first frame is too long to be kept: see [`super::emit::oversize`].
    pub oversize: bool,
    /// Frames can't be passed as they are: names are replaced or statements added.
    pub rewritten: bool,
}

impl Request {
    /// A part of a request that has been sent.
    #[must_use]
    pub fn unfinished() -> Self {
        Self {
            end: End::Open,
            len: 0,
            class: Class::TOO_LONG,
            begin: None,
            query: None,
            work: Work::Runs,
            portals: Portals::Done,
            describes: false,
            oversize: false,
            rewritten: false,
        }
    }
}

/// The result of looking for a request.
#[derive(Debug)]
pub enum Scan {
    /// The bytes so far are the beginning of one; so many are needed to know more.
    More {
        needed: usize,
    },
    Request(Request),
    Terminate,
    /// CopyData, CopyDone or CopyFail behind a copy that failed: ignored, as the server does.
    Stray {
        len: usize,
    },
}

/// Statement names in the order of the frames that use them.
#[derive(Debug, Default)]
pub struct Resolved {
    statements: Vec<Option<Named>>,
    next: usize,
    /// The unnamed statement from before the request, which uses it and then changes it.
    unnamed: Option<Text>,
}

impl Resolved {
    /// Forgets all.
    pub fn clear(&mut self) {
        self.statements.clear();
        self.next = 0;
        self.unnamed = None;
    }

    /// What the names mean, in the order of the frames that use them.
    pub fn iter(&self) -> impl Iterator<Item = &Named> {
        self.statements.iter().flatten()
    }

    /// Starts over, for another try of the same request.
    pub fn rewind(&mut self) {
        self.next = 0;
    }

    fn push(&mut self, statement: Option<Named>) {
        self.statements.push(statement);
    }

    /// The unnamed statement as the request found it.
    #[must_use]
    pub fn unnamed<'a>(&'a self, session: &'a Session) -> &'a Text {
        self.unnamed.as_ref().unwrap_or(session.unnamed.now())
    }

    /// What the next frame's name means.
    pub fn resolve(&mut self) -> Option<Named> {
        let statement = self.statements.get(self.next).cloned().flatten();
        self.next += 1;
        statement
    }
}

/// The strictest of two classes, for one route.
fn stricter(a: Class, b: Class) -> Class {
    let access = match (a.access, b.access) {
        (primary @ Access::Primary(_), _) | (_, primary @ Access::Primary(_)) => primary,
        (Access::Read, _) | (_, Access::Read) => Access::Read,
        (Access::Anywhere, Access::Anywhere) => Access::Anywhere,
    };
    let both_pure = a.traits.has(Traits::PURE_READ) && b.traits.has(Traits::PURE_READ);
    let of_all = Traits::PURE_READ.with(Traits::NO_SEQUENCES);
    let traits = a.traits.with(b.traits).without(of_all);
    Class {
        kind: Kind::Several,
        access,
        hint: a.hint.or(b.hint),
        traits: if both_pure {
            traits.with(Traits::PURE_READ)
        } else {
            traits
        },
        tables: a.tables.with(b.tables),
    }
}

/// Looks for a request at the front of `bytes`. Nothing of the session changes until a request is
/// complete; then its names do, to be confirmed or undone by the answers. `classify` is also told in
/// which protocol's messages a text is.
///
/// # Errors
/// Bytes that are no message, or a message that may not come here.
pub fn scan(
    bytes: &[u8],
    keep: usize,
    session: &mut Session,
    statements: &Statements,
    resolved: &mut Resolved,
    mut classify: impl FnMut(&[u8], Form) -> Class,
) -> Result<Scan, Malformed> {
    let Some(first) = Header::parse(bytes)? else {
        return Ok(Scan::More { needed: HEADER });
    };
    match first.tag {
        tag::TERMINATE => return Ok(Scan::Terminate),
        tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => {
            return Ok(Scan::Stray { len: first.len });
        }
        tag::QUERY | tag::FUNCTION_CALL => {
            let simple = |class, query| Request {
                end: End::Ready,
                len: first.len,
                class,
                begin: None,
                query,
                work: Work::Runs,
                portals: Portals::Done,
                describes: false,
                oversize: false,
                rewritten: false,
            };
            if first.len > keep {
                return Ok(Scan::Request(Request {
                    len: 0,
                    oversize: true,
                    ..simple(Class::TOO_LONG, None)
                }));
            }
            let Some(body) = bytes.get(HEADER..first.len) else {
                return Ok(Scan::More { needed: first.len });
            };
            if first.tag == tag::FUNCTION_CALL {
                let traits = if body
                    .first_chunk()
                    .is_some_and(|oid| is_of_large_objects(*oid))
                {
                    Traits::NONE
                } else {
                    Traits::OBSERVE
                };
                let call = Class::primary(Why::Function, traits);
                return Ok(Scan::Request(simple(call, None)));
            }
            let text = frontend::query(body)?;
            let query = Some(HEADER..HEADER + text.len());
            let class = within(session, text, &mut |text| classify(text, Form::Simple));
            return Ok(Scan::Request(simple(class, query)));
        }
        _ => {}
    }
    is_plausible(first)?;
    if first.len > keep {
        let needed = first.len.min(OVERSIZE_HEAD);
        if bytes.len() < needed {
            return Ok(Scan::More { needed });
        }
        return Ok(Scan::Request(Request {
            end: End::Open,
            len: 0,
            class: Class::TOO_LONG,
            begin: None,
            query: None,
            work: Work::Runs,
            portals: Portals::Done,
            describes: false,
            oversize: true,
            rewritten: true,
        }));
    }
    // First where the request ends, so that names change only for a whole one.
    let (end, len) = match extent(bytes, keep)? {
        Extent::More(needed) => return Ok(Scan::More { needed }),
        Extent::Whole(end, len) => (end, len),
    };
    extended(
        bytes.get(..len).unwrap_or(bytes),
        end,
        session,
        statements,
        resolved,
        |text| classify(text, Form::Extended),
    )
    .map(Scan::Request)
}

/// The class of a text in this session: EXECUTE is what it executes.
fn within(session: &Session, text: &[u8], classify: &mut impl FnMut(&[u8]) -> Class) -> Class {
    let class = classify(text);
    if class.traits.has(Traits::SQL_PREPARED) {
        executed(session, text, class, classify)
    } else {
        class
    }
}

/// A text of one EXECUTE whose arguments are harmless, which its class tells by not asking for a
/// look afterwards, has the class of the statement that it executes, if that is known. After any
/// other EXECUTE a look is taken.
#[cold]
fn executed(
    session: &Session,
    text: &[u8],
    class: Class,
    classify: &mut impl FnMut(&[u8]) -> Class,
) -> Class {
    if class.traits.has(Traits::OBSERVE) {
        return class;
    }
    let effects = sql::effects(text, session.lexing);
    let executes = |effect: &Effect| matches!(effect, Effect::Execute(_));
    if effects
        .as_ref()
        .is_some_and(|all| !all.iter().any(executes))
    {
        return class;
    }
    let alone = class.kind == Kind::Single && class.access == Access::Primary(Why::Session);
    let named = match effects.as_deref() {
        Some([Effect::Execute(name)]) if alone => session.meaning(name.as_bytes()),
        _ => None,
    };
    let Some(named) = named else {
        return Class {
            traits: class.traits.with(Traits::OBSERVE),
            ..class
        };
    };
    let inner = classify(named.text());
    let mut traits = inner.traits.with(Traits::SQL_PREPARED);
    if inner.traits.has(Traits::EFFECTS) {
        traits = traits.with(Traits::OBSERVE);
    }
    Class {
        kind: Kind::Single,
        access: inner.access,
        hint: class.hint.or(inner.hint),
        traits: traits.without(Traits::EFFECTS),
        tables: inner.tables,
    }
}

/// What stands behind this statement in its request may be read under other settings.
fn changes_reading(class: Class, text: &[u8], session: &Session) -> bool {
    class.traits.has(Traits::OBSERVE)
        || class.traits.has(Traits::EFFECTS)
            && reading::may_change(text, session.lexing, &session.settings)
}

/// What drivers call by FunctionCall, whose first field is the function's oid: the functions of large
/// objects, of which nothing outlives the transaction (PostgreSQL source, `pg_proc.dat`).
fn is_of_large_objects(oid: [u8; 4]) -> bool {
    matches!(
        u32::from_be_bytes(oid),
        715 | 764 | 765 | 767 | 952..=958 | 964 | 1004 | 3170..=3172
    )
}

/// Of a frame that is too long to be kept, so much is looked at: its names.
const OVERSIZE_HEAD: usize = 8 << 10;

/// Messages without data are short (PostgreSQL's `PQ_SMALL_MESSAGE_LIMIT`): a length that says
/// otherwise isn't waited for.
fn is_plausible(header: Header) -> Result<(), Malformed> {
    let small = matches!(
        header.tag,
        tag::DESCRIBE | tag::CLOSE | tag::EXECUTE | tag::SYNC | tag::FLUSH | tag::TERMINATE
    );
    if small && header.len > limits::SMALL_MESSAGE {
        let length = u32::try_from(header.len - 1).unwrap_or(u32::MAX);
        return Err(Malformed::TooLong {
            tag: header.tag,
            length,
        });
    }
    Ok(())
}

/// What a request has done with the unnamed statement so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnnamedUse {
    No,
    /// It uses the one from before.
    Before,
    /// It has parsed one, or closed it.
    Changed,
}

impl UnnamedUse {
    /// A Bind or Describe; whether it means the one from before the request.
    fn used(&mut self) -> bool {
        if *self == Self::No {
            *self = Self::Before;
        }
        *self == Self::Before
    }

    /// A Parse or Close.
    fn changes(&mut self, session: &Session, resolved: &mut Resolved) {
        if *self == Self::Before {
            resolved.unnamed = Some(session.unnamed.now().clone());
        }
        *self = Self::Changed;
    }
}

enum Extent {
    More(usize),
    Whole(End, usize),
}

fn extent(bytes: &[u8], keep: usize) -> Result<Extent, Malformed> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(header) = Header::parse(rest)? else {
            return Ok(if at + HEADER > keep {
                Extent::Whole(End::Open, at)
            } else {
                Extent::More(at + HEADER)
            });
        };
        is_plausible(header)?;
        match header.tag {
            tag::PARSE
            | tag::BIND
            | tag::DESCRIBE
            | tag::EXECUTE
            | tag::CLOSE
            | tag::SYNC
            | tag::FLUSH => {}
            // A simple Query or the end behind extended messages without a Sync.
            tag::QUERY
            | tag::FUNCTION_CALL
            | tag::TERMINATE
            | tag::COPY_DATA
            | tag::COPY_DONE
            | tag::COPY_FAIL
                if at > 0 =>
            {
                return Ok(Extent::Whole(End::Flush, at));
            }
            other => return Err(Malformed::Unexpected { tag: other }),
        }
        if at + header.len > keep {
            return Ok(Extent::Whole(End::Open, at));
        }
        if rest.len() < header.len {
            return Ok(Extent::More(at + header.len));
        }
        at += header.len;
        match header.tag {
            tag::SYNC => return Ok(Extent::Whole(End::Sync, at)),
            tag::FLUSH => return Ok(Extent::Whole(End::Flush, at)),
            _ => {}
        }
    }
}

fn extended(
    bytes: &[u8],
    end: End,
    session: &mut Session,
    statements: &Statements,
    resolved: &mut Resolved,
    mut classify: impl FnMut(&[u8]) -> Class,
) -> Result<Request, Malformed> {
    let mut class: Option<Class> = None;
    let mut begin = None;
    let (mut work, mut rewritten, mut describes) = (Work::Nothing, false, false);
    let mut portals = Portals::Done;
    let mut unnamed = UnnamedUse::No;
    // What is parsed from here on may be read otherwise than the session's settings say.
    let mut changed = session.suspect;
    // What was bound last, and the unnamed statement, is a BEGIN.
    let (mut begins, mut unnamed_begins) = (false, false);
    let is_begin = |class: Class| matches!(class.kind, Kind::Begin(_));
    let mut see = |new: Class| {
        if let Kind::Begin(modes) = new.kind {
            // Of several the one that may write counts.
            begin = Some(match begin {
                Some(known) if modes.read_only == Some(true) => known,
                _ => modes,
            });
        }
        class = Some(match class {
            // One statement, parsed and described.
            Some(known) if known == new => known,
            Some(known) => stricter(known, new),
            None => new,
        });
    };
    let mut at = 0;
    while let Some(header) = Header::parse(bytes.get(at..).unwrap_or_default())? {
        let frame_end = at + header.len;
        let Some(body) = bytes.get(at + HEADER..frame_end) else {
            break;
        };
        match header.tag {
            tag::PARSE => {
                let parse = Parse::read(body)?;
                work = work.max(Work::Prepares);
                let parsed = within(session, parse.text, &mut classify);
                see(parsed);
                if parse.name.is_empty() {
                    unnamed_begins = is_begin(parsed);
                    unnamed.changes(session, resolved);
                    session.unnamed.set(body, at == 0 && !session.unsynced);
                } else {
                    rewritten = true;
                    let duplicate = session.meaning(parse.name).is_some();
                    // A name that is taken is an error, which the server words: see `emit`.
                    if !duplicate {
                        let reading = Reading::of(parse.text, &session.settings, changed);
                        let statement = statements.intern(parse.text, parse.types, reading);
                        session.names().prepare(parse.name, Arc::clone(&statement));
                        resolved.push(Some(Named::Protocol(statement)));
                    } else {
                        resolved.push(None);
                    }
                }
                changed |= changes_reading(parsed, parse.text, session);
            }
            tag::BIND => {
                let bind = Bind::read(body)?;
                work = Work::Runs;
                if !bind.portal.is_empty() {
                    portals = Portals::Kept;
                }
                if bind.statement.is_empty() {
                    if unnamed.used() {
                        rewritten = true;
                        if let Some(text) = session.unnamed.now().text() {
                            let class = within(session, text, &mut classify);
                            unnamed_begins = is_begin(class);
                            see(class);
                            changed |= changes_reading(class, text, session);
                        }
                    }
                    begins = unnamed_begins;
                } else {
                    rewritten = true;
                    let statement = session.meaning(bind.statement).cloned();
                    begins = false;
                    if let Some(statement) = &statement {
                        let class = within(session, statement.text(), &mut classify);
                        begins = is_begin(class);
                        see(class);
                        changed |= changes_reading(class, statement.text(), session);
                    }
                    resolved.push(statement);
                }
            }
            tag::DESCRIBE | tag::CLOSE => {
                describes |= header.tag == tag::DESCRIBE;
                let target = Target::read(header.tag, body)?;
                if target.object == Object::Statement {
                    if target.name.is_empty() {
                        rewritten = true;
                        if header.tag == tag::DESCRIBE {
                            work = work.max(Work::Prepares);
                        }
                        if header.tag == tag::CLOSE {
                            unnamed.changes(session, resolved);
                            session.unnamed.close();
                        } else if unnamed.used()
                            && let Some(text) = session.unnamed.now().text()
                        {
                            see(within(session, text, &mut classify));
                        }
                    } else {
                        rewritten = true;
                        let statement = session.meaning(target.name).cloned();
                        if header.tag == tag::CLOSE {
                            session.names().close(target.name);
                        } else {
                            work = work.max(Work::Prepares);
                            if let Some(statement) = &statement {
                                see(within(session, statement.text(), &mut classify));
                            }
                        }
                        resolved.push(statement);
                    }
                } else {
                    work = work.max(Work::Prepares);
                }
            }
            tag::SYNC | tag::FLUSH if !body.is_empty() => {
                return Err(Malformed::Body { tag: header.tag });
            }
            tag::EXECUTE => {
                // BEGIN returns no rows, whatever the limit.
                if Execute::read(body)?.max_rows > 0 && !begins {
                    portals = Portals::Kept;
                }
                work = Work::Runs;
            }
            _ => {}
        }
        at = frame_end;
    }
    Ok(Request {
        end,
        len: bytes.len(),
        class: class.unwrap_or(Class {
            kind: Kind::Single,
            access: Access::Anywhere,
            hint: None,
            traits: Traits::PURE_READ,
            tables: Tables::NONE,
        }),
        begin,
        query: None,
        work,
        portals,
        describes,
        oversize: false,
        rewritten,
    })
}
