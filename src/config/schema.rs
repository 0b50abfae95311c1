//! One option, one place: [`options!`] defines a section of the settings as a struct in which each
//! field stands with its description, its default, its range and how it is reloaded.

use std::{collections::BTreeMap, fmt};

use super::value::{Raw, Value};

/// When a changed option takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reload {
    /// With the reload.
    Live,
    /// When pgsplit is started again.
    Restart,
}

/// One option of a section.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    /// Its description, line by line.
    pub doc: &'static [&'static str],
    pub reload: Reload,
}

/// A section of the settings.
pub(crate) trait Options: Clone + Default {
    /// Its name in the file.
    const SECTION: &'static str;
    const KEYS: &'static [Key];
    /// Tables inside it, each of which is a section of its own.
    const TABLES: &'static [&'static str];

    /// Sets one option; `None` when there is none of that name. `Err` ends the sentence that
    /// begins with the option's name; the option is then as before.
    fn set(&mut self, key: &str, raw: &Raw) -> Option<Result<(), String>>;

    /// One option as the file would say it; empty when there is none of that name.
    fn show(&self, key: &str) -> String;

    /// Both have the same value of this option.
    fn same(&self, other: &Self, key: &str) -> bool;

    /// Takes over the other's value of this option.
    fn copy(&mut self, other: &Self, key: &str);
}

macro_rules! options {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident $(: $($derive:ident),+)? in $section:literal {
            $(
                $(#[doc = $doc:literal])*
                $field:ident $(as $key:literal)? : $type:ty = $default:expr, $check:expr, $reload:ident;
            )*
        }
        $( tables {
            $(
                $(#[doc = $table_doc:literal])*
                $table:ident : $table_type:ty = $table_default:expr;
            )*
        } )?
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq $($(, $derive)+)?)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $type, )*
            $( $( $(#[doc = $table_doc])* pub $table: $table_type, )* )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $field: $default, )*
                    $( $( $table: $table_default, )* )?
                }
            }
        }

        impl $crate::config::schema::Options for $name {
            const SECTION: &'static str = $section;
            const KEYS: &'static [$crate::config::schema::Key] = &[
                $( $crate::config::schema::Key {
                    name: $crate::config::schema::key_name!($field $($key)?),
                    doc: &[$($doc),*],
                    reload: $crate::config::schema::Reload::$reload,
                }, )*
            ];
            const TABLES: &'static [&'static str] = &[$( $( stringify!($table) ),* )?];

            fn set(
                &mut self,
                key: &str,
                raw: &$crate::config::value::Raw,
            ) -> Option<Result<(), String>> {
                $(
                    if key == $crate::config::schema::key_name!($field $($key)?) {
                        let checked = $crate::config::schema::checked(raw, $check);
                        return Some(checked.map(|value: $type| self.$field = value));
                    }
                )*
                None
            }

            fn show(&self, key: &str) -> String {
                $(
                    if key == $crate::config::schema::key_name!($field $($key)?) {
                        return $crate::config::value::Value::show(&self.$field);
                    }
                )*
                String::new()
            }

            fn same(&self, other: &Self, key: &str) -> bool {
                $(
                    if key == $crate::config::schema::key_name!($field $($key)?) {
                        return self.$field == other.$field;
                    }
                )*
                true
            }

            fn copy(&mut self, other: &Self, key: &str) {
                $(
                    if key == $crate::config::schema::key_name!($field $($key)?) {
                        self.$field.clone_from(&other.$field);
                    }
                )*
            }
        }
    };
}
pub(crate) use options;

/// The key of a field: its name, unless another one is given.
macro_rules! key_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}
pub(crate) use key_name;

/// Reads a value and checks it.
pub(crate) fn checked<T: Value>(
    raw: &Raw,
    check: impl Fn(&T) -> Result<(), String>,
) -> Result<T, String> {
    let value = T::read(raw)?;
    check(&value)?;
    Ok(value)
}

/// Whatever the type allows.
pub(crate) fn any<T>(_value: &T) -> Result<(), String> {
    Ok(())
}

/// From `least` to `most`, both included.
pub(crate) fn within<T: Value + PartialOrd>(
    least: T,
    most: T,
) -> impl Fn(&T) -> Result<(), String> {
    move |value| {
        if *value < least || *value > most {
            return Err(format!(
                "must be between {} and {}, not {}",
                least.show(),
                most.show(),
                value.show()
            ));
        }
        Ok(())
    }
}

/// Most entries of a list.
const LONGEST_LIST: usize = 64;

/// At least one.
pub(crate) fn some<T>(list: &[T]) -> Result<(), String> {
    match list.len() {
        0 => Err("must not be empty".to_owned()),
        1..=LONGEST_LIST => Ok(()),
        _ => Err(format!("must not have more than {LONGEST_LIST} entries")),
    }
}

/// Names of PostgreSQL's are this long (`NAMEDATALEN` less one), in bytes; 0 means "not given".
pub(crate) fn name(text: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err("must not be longer than 63 bytes".to_owned());
    }
    Ok(())
}

/// URLs of servers, without a path.
pub(crate) fn http_urls(urls: &[String]) -> Result<(), String> {
    match urls.iter().find(|url| http_server(url).is_none()) {
        Some(url) => Err(format!(
            "must be URLs such as \"http://10.0.0.1:8008\", not {url:?}"
        )),
        None => Ok(()),
    }
}

/// Host and port of a URL such as `http://10.0.0.1:8008`, whatever its path is.
#[must_use]
pub(crate) fn http_server(url: &str) -> Option<(&str, u16)> {
    let rest = url.strip_prefix("http://")?;
    let authority = rest
        .split_once('/')
        .map_or(rest, |(authority, _)| authority);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.ends_with(']') => {
            (host, port.parse().ok()?)
        }
        _ => (authority, 80),
    };
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    (!host.is_empty() && !host.contains(['@', ' '])).then_some((host, port))
}

/// An absolute path, or none.
pub(crate) fn absolute(path: &Option<std::path::PathBuf>) -> Result<(), String> {
    match path {
        Some(path) if !path.is_absolute() => Err(format!(
            "must be an absolute path, not {:?}",
            path.display().to_string()
        )),
        _ => Ok(()),
    }
}

/// Options of a section that replace those of a wider one, kept as they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    given: BTreeMap<&'static str, Raw>,
}

impl Overrides {
    /// Nothing is overridden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// `raw` was accepted by [`Options::set`] of the section that these belong to.
    pub(crate) fn add(&mut self, key: &'static str, raw: Raw) {
        self.given.insert(key, raw);
    }

    /// `base` with these options in it.
    pub(crate) fn apply<T: Options>(&self, base: &T) -> T {
        let mut settings = base.clone();
        for (key, raw) in &self.given {
            // Checked when it was added.
            let _checked = settings.set(key, raw);
        }
        settings
    }
}

/// One option's value, as `SHOW CONFIG` lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// `section.key`, or `section.name.key` where a section occurs several times.
    pub key: String,
    pub value: String,
    pub default: String,
    pub reload: Reload,
}

/// The rows of one section under a prefix.
pub(crate) fn rows<T: Options>(prefix: &str, section: &T, base: &T, rows: &mut Vec<Row>) {
    for key in T::KEYS {
        rows.push(Row {
            key: format!("{prefix}.{}", key.name),
            value: section.show(key.name),
            default: base.show(key.name),
            reload: key.reload,
        });
    }
}

/// One option that a reload changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    /// Values as the file says them; secrets are not shown.
    pub old: String,
    pub new: String,
    pub reload: Reload,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.old, self.new)
    }
}

/// What differs in one section.
pub(crate) fn differences<T: Options>(prefix: &str, old: &T, new: &T, changes: &mut Vec<Change>) {
    for key in T::KEYS {
        if !old.same(new, key.name) {
            changes.push(Change {
                key: format!("{prefix}.{}", key.name),
                old: old.show(key.name),
                new: new.show(key.name),
                reload: key.reload,
            });
        }
    }
}

/// `old` with those of `new`'s options that take effect with a reload.
pub(crate) fn reloaded<T: Options>(old: &T, new: &T) -> T {
    let mut settings = old.clone();
    for key in T::KEYS.iter().filter(|key| key.reload == Reload::Live) {
        settings.copy(new, key.name);
    }
    settings
}
