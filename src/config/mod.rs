//! Typed settings: what a file, flags and the environment say, with defaults and checks.
//!
//! Everything else receives the resolved part that it needs ([`settings`]), never the file.

pub mod settings;

pub use settings::Settings;
