//! What a query text is: lexer and fingerprint, classification, session effects, hints, the
//! catalogue model and the class cache.
//!
//! Pure. `sqlparser`'s types never leave this folder, so that the parser can be replaced.
//! Classification is total and fails safe: what can't be read is [`Class::UNKNOWN`], which goes to the primary.

mod cache;
pub mod catalogue;
mod class;
mod classify;
mod database;
mod effect;
mod effects;
mod explain;
mod fingerprint;
mod hint;
pub mod lexer;
mod reset;
mod tables;
mod utility;

pub use cache::{CacheLimits, CacheStats, ClassCache, LONGEST_TEXT, Unknown};
pub use catalogue::{Catalogue, CatalogueBuilder};
pub use class::{Access, Begin, Class, Hint, Isolation, Kind, Lexing, Traits, Why};
pub use classify::classify;
pub use database::needs_alone;
pub use effect::{Effect, Scope, SessionKey, SettingValue};
pub use effects::{Bound, MOST_NAMES, Untold, effects, effects_bound, sets_only_local};
pub use explain::{Explanation, explain};
pub use fingerprint::Fingerprint;
pub use hint::hint;
pub use reset::{Reset, prepares, resets, sets_or_resets};
pub use tables::Tables;
pub use utility::utility;
