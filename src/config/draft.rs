//! What the file, the flags and the environment say, before defaults and checks that concern
//! several options.
//!
//! Precedence: flags, then variables (the command line makes both into [`Given`] options), then
//! the file, then defaults. An override inside a `[[database]]` or `[[user]]` stays one: it is
//! narrower than a flag that sets the section.

use std::{fs, io::Read as _, path::PathBuf, sync::Arc};

use super::{
    document::{Document, Given as GivenKeys, Origin, Part, Table},
    problem::Problems,
    resolve::{self, Loaded},
    schema::{Options, Overrides},
    settings::{
        Admin, Auth, Database, Failover, Listen, ListenTls, Log, Monitor, Node, NodeTls, Pool,
        Routing, Secret, User,
    },
    url,
    value::Raw,
};

/// Longest file that is read, in bytes.
const LONGEST_FILE: u64 = 4 << 20;

/// Where the settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// `postgres://…`, one each; excludes a file.
    pub nodes: Vec<String>,
    /// For the user of the first node's URL.
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    /// Options given as flags or variables.
    pub options: Vec<Given>,
}

/// An option given as a flag or variable.
#[derive(Clone, Debug)]
pub struct Given {
    /// `section.key`.
    pub option: &'static str,
    pub value: String,
    /// How messages call it: `--max-lag`, `PGSPLIT_MAX_LAG`.
    pub source: String,
}

#[derive(Debug)]
pub(super) struct NodeDraft {
    pub(super) node: Part<Node>,
    pub(super) tls: Part<NodeTls>,
}

#[derive(Debug)]
pub(super) struct DatabaseDraft {
    pub(super) database: Part<Database>,
    pub(super) pool: (Overrides, GivenKeys),
    pub(super) routing: Overrides,
}

#[derive(Debug)]
pub(super) struct Draft {
    pub(super) listen: Part<Listen>,
    pub(super) listen_tls: Option<Part<ListenTls>>,
    pub(super) admin: Part<Admin>,
    pub(super) pool: Part<Pool>,
    pub(super) routing: Part<Routing>,
    pub(super) monitor: Part<Monitor>,
    pub(super) failover: Part<Failover>,
    pub(super) auth: Part<Auth>,
    pub(super) log: Part<Log>,
    pub(super) nodes: Vec<NodeDraft>,
    pub(super) databases: Vec<DatabaseDraft>,
    pub(super) users: Vec<Part<User>>,
    /// The whole, for what is missing altogether.
    pub(super) origin: Origin,
}

/// Reads everything and resolves it.
///
/// # Errors
/// All mistakes that could be found, with their places.
pub fn load(
    sources: &Sources,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    let text = match &sources.file {
        None => None,
        Some(file) => {
            Some(read(file).map_err(|message| one(&file.display().to_string(), message))?)
        }
    };
    let name = sources.file.as_ref().map(|file| file.display().to_string());
    let file = name.as_deref().zip(text.as_deref());
    load_text(sources, file, environment)
}

/// As [`load`], with the file's name and text.
pub(super) fn load_text(
    sources: &Sources,
    file: Option<(&str, &str)>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    let mut problems = Problems::default();
    let mut draft = match file {
        Some((name, text)) => {
            let mut document = Document::new(name, text, environment);
            let root = document.parse();
            let draft = root.map(|root| read_file(root, &mut document));
            problems = document.problems;
            match draft {
                Some(draft) => draft,
                None => return Err(problems.sorted()),
            }
        }
        None => Draft::new(Origin::flag("command line")),
    };
    if file.is_some() && !sources.nodes.is_empty() {
        problems.push(Origin::flag("--node (PGSPLIT_NODES)").problem(
            "not together with a configuration file: nodes, users and databases are the file's",
        ));
    } else if file.is_none() && sources.nodes.is_empty() {
        problems.push(Origin::flag("command line").problem(
            "no nodes: give a configuration file, --node postgres://user:password@host/database, or PGSPLIT_NODES",
        ));
    } else if file.is_none() {
        url::nodes(sources, &mut draft, &mut problems);
    } else if sources.password.is_some() || sources.password_file.is_some() {
        problems.push(
            Origin::flag("--password")
                .problem("not together with a configuration file: passwords are the file's"),
        );
    }
    for given in &sources.options {
        draft.set(given, &mut problems);
    }
    resolve::resolve(draft, problems)
}

/// One mistake that stands for all.
fn one(source: &str, message: String) -> Problems {
    let mut problems = Problems::default();
    problems.push(Origin::flag(source).problem(message));
    problems
}

fn read(file: &std::path::Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("can't be read: {error}");
    let mut bytes = Vec::new();
    fs::File::open(file)
        .map_err(failed)?
        .take(LONGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(format!("is longer than {LONGEST_FILE} bytes"));
    }
    String::from_utf8(bytes).map_err(|_error| "is not UTF-8".to_owned())
}

fn read_file<'i>(mut root: Table<'i>, document: &mut Document<'i>) -> Draft {
    let origin = Origin {
        source: Arc::clone(&document.source),
        place: None,
    };
    let mut draft = Draft::new(origin);
    if let Some(mut table) = root.table(Listen::SECTION, document) {
        draft.listen = table.part(document);
        if let Some(mut tls) = table.table("tls", document) {
            draft.listen_tls = Some(tls.part(document));
            tls.finish(ListenTls::SECTION, document);
        }
        table.finish(Listen::SECTION, document);
    }
    section(&mut root, &mut draft.admin, document);
    section(&mut root, &mut draft.pool, document);
    section(&mut root, &mut draft.routing, document);
    section(&mut root, &mut draft.monitor, document);
    section(&mut root, &mut draft.failover, document);
    section(&mut root, &mut draft.auth, document);
    section(&mut root, &mut draft.log, document);
    for mut table in root.tables(Node::SECTION, document) {
        let node = table.part(document);
        let tls = match table.table("tls", document) {
            Some(mut tls) => {
                let part = tls.part(document);
                tls.finish(NodeTls::SECTION, document);
                part
            }
            None => Part::new(node.given.header.clone()),
        };
        table.finish(Node::SECTION, document);
        draft.nodes.push(NodeDraft { node, tls });
    }
    for mut table in root.tables(Database::SECTION, document) {
        let database = table.part(document);
        let pool = match table.table("pool", document) {
            Some(mut pool) => {
                let given = pool.overrides::<Pool>(document);
                pool.finish("database.pool", document);
                given
            }
            None => (Overrides::default(), table.given()),
        };
        let routing = routing(&mut table, "database.routing", document);
        table.finish(Database::SECTION, document);
        draft.databases.push(DatabaseDraft {
            database,
            pool,
            routing,
        });
    }
    for mut table in root.tables(User::SECTION, document) {
        let mut user: Part<User> = table.part(document);
        user.value.routing = routing(&mut table, "user.routing", document);
        table.finish(User::SECTION, document);
        draft.users.push(user);
    }
    root.finish("", document);
    draft
}

/// A section that occurs once and has none inside it.
fn section<'i, T: Options>(root: &mut Table<'i>, part: &mut Part<T>, document: &mut Document<'i>) {
    if let Some(mut table) = root.table(T::SECTION, document) {
        *part = table.part(document);
        table.finish(T::SECTION, document);
    }
}

fn routing<'i>(table: &mut Table<'i>, name: &str, document: &mut Document<'i>) -> Overrides {
    let Some(mut routing) = table.table("routing", document) else {
        return Overrides::default();
    };
    let (overrides, _given) = routing.overrides::<Routing>(document);
    routing.finish(name, document);
    overrides
}

impl Draft {
    fn new(origin: Origin) -> Self {
        Self {
            listen: Part::new(origin.clone()),
            listen_tls: None,
            admin: Part::new(origin.clone()),
            pool: Part::new(origin.clone()),
            routing: Part::new(origin.clone()),
            monitor: Part::new(origin.clone()),
            failover: Part::new(origin.clone()),
            auth: Part::new(origin.clone()),
            log: Part::new(origin.clone()),
            nodes: Vec::new(),
            databases: Vec::new(),
            users: Vec::new(),
            origin,
        }
    }

    fn set(&mut self, given: &Given, problems: &mut Problems) {
        let origin = Origin::flag(&given.source);
        let raw = Raw::Typed(given.value.clone());
        let (section, key) = given.option.rsplit_once('.').unwrap_or(("", given.option));
        match section {
            Listen::SECTION => self.listen.set(key, &raw, origin, problems),
            ListenTls::SECTION => self
                .listen_tls
                .get_or_insert_with(|| Part::new(origin.clone()))
                .set(key, &raw, origin, problems),
            Admin::SECTION => self.admin.set(key, &raw, origin, problems),
            Pool::SECTION => self.pool.set(key, &raw, origin, problems),
            Routing::SECTION => self.routing.set(key, &raw, origin, problems),
            Monitor::SECTION => self.monitor.set(key, &raw, origin, problems),
            Failover::SECTION => self.failover.set(key, &raw, origin, problems),
            Auth::SECTION => self.auth.set(key, &raw, origin, problems),
            Log::SECTION => self.log.set(key, &raw, origin, problems),
            _ => problems.push(origin.problem(format!("there is no option {:?}", given.option))),
        }
    }
}
