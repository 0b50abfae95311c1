//! Typed settings: what a file, flags and the environment say, with defaults and checks.
//!
//! Everything else receives the resolved part that it needs ([`settings`]), never the file. Where
//! to look: [`settings`] is the table of all options; `value` how a value is written; `document`
//! the TOML text with the places of its mistakes; `draft` what was said; `url` nodes given as
//! URLs; `resolve` the defaults and checks that concern several options; `reload` what a changed
//! configuration changes.
//!
//! The environment is an argument: nothing here reads the process's own. Files are read only where
//! the configuration names them.

mod document;
mod draft;
mod policy;
mod problem;
mod reload;
mod resolve;
pub(crate) mod schema;
pub mod settings;
#[cfg(test)]
mod tests;
mod url;
mod value;

pub use draft::{Given, Sources, load};
pub use problem::{Place, Problem, Problems};
pub use reload::Changes;
pub use resolve::Loaded;
pub use schema::{Change, Key, Overrides, Reload, Row};
pub use settings::{
    Admin, Database, Discovery, Failover, FailoverMode, Host, Listen, ListenTls, ListenTlsMode,
    Log, LogFormat, LogLevel, Monitor, Node, NodeRole, NodeTls, Pool, PoolMode, Routing, Secret,
    Section, Settings, SslMode, User, sections,
};
