//! How one value is written: in the file, in a flag, in a variable.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use super::{Host, Secret, settings::Percent};

/// A value as somebody wrote it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raw {
    /// A string of the file.
    Text(String),
    /// A string of the file in which `${NAME}` was filled in: may stand for a number, too, and is
    /// never repeated in a message, for it may be a secret.
    Filled(String),
    /// A flag or a variable: may stand for a number, too.
    Typed(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Self>),
    /// What no option takes, with its name.
    Other(&'static str),
}

impl Raw {
    /// The text of anything that was text.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Filled(text) | Self::Typed(text) => Some(text),
            Self::Integer(_) | Self::Boolean(_) | Self::List(_) | Self::Other(_) => None,
        }
    }

    /// The text of anything that may stand for a number.
    fn untyped(&self) -> Option<&str> {
        match self {
            Self::Filled(text) | Self::Typed(text) => Some(text),
            Self::Text(_)
            | Self::Integer(_)
            | Self::Boolean(_)
            | Self::List(_)
            | Self::Other(_) => None,
        }
    }

    /// "must be X, not Y".
    fn must_be(&self, what: impl fmt::Display) -> String {
        format!("must be {what}, not {self}")
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Typed(text) => write!(f, "{text:?}"),
            Self::Filled(_) => f.write_str("what the environment gives"),
            Self::Integer(number) => write!(f, "the number {number}"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::List(_) => f.write_str("a list"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// A type that an option can have.
pub(crate) trait Value: Sized {
    /// `Err` ends the sentence that begins with the option's name: "must be …".
    fn read(raw: &Raw) -> Result<Self, String>;

    /// As the file would say it; a secret only says that it is there.
    fn show(&self) -> String;
}

impl Value for bool {
    fn read(raw: &Raw) -> Result<Self, String> {
        match (raw, raw.untyped()) {
            (Raw::Boolean(value), _) => Ok(*value),
            (_, Some("true" | "on" | "yes" | "1")) => Ok(true),
            (_, Some("false" | "off" | "no" | "0")) => Ok(false),
            _ => Err(raw.must_be("true or false")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn read(raw: &Raw) -> Result<Self, String> {
                let number = match (raw, raw.untyped()) {
                    (Raw::Integer(number), _) => Self::try_from(*number).ok(),
                    (_, Some(text)) => text.trim().parse().ok(),
                    _ => None,
                };
                number.ok_or_else(|| raw.must_be(format_args!("a whole number from 0 to {}", Self::MAX)))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

// `u64` is left out: it holds sizes.
whole_numbers!(u16, u32, usize);

/// A number and what follows it; `None` when no number leads.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let (digits, unit) = text.split_at_checked(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    )?;
    Some((digits.parse().ok()?, unit.trim()))
}

/// Units of time, longest first, in microseconds.
const TIME_UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

impl Value for Duration {
    fn read(raw: &Raw) -> Result<Self, String> {
        raw.text()
            .and_then(|text| {
                let (number, unit) = number_and_unit(text)?;
                let (_, scale) = TIME_UNITS.into_iter().find(|(name, _)| *name == unit)?;
                number.checked_mul(scale).map(Self::from_micros)
            })
            .ok_or_else(|| raw.must_be(r#"a duration such as "250ms", "5s", "10m", "1h" or "1d""#))
    }

    fn show(&self) -> String {
        let micros = u64::try_from(self.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 {
            return r#""0ms""#.to_owned();
        }
        let (unit, scale) = TIME_UNITS
            .into_iter()
            .filter(|(unit, _)| *unit != "d")
            .find(|(_, scale)| micros.is_multiple_of(*scale))
            .unwrap_or(("us", 1));
        format!(r#""{}{unit}""#, micros / scale)
    }
}

/// Units of sizes, largest first, in bytes.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A size in bytes.
impl Value for u64 {
    fn read(raw: &Raw) -> Result<Self, String> {
        let size = match raw {
            Raw::Integer(bytes) => Self::try_from(*bytes).ok(),
            _ => raw.text().and_then(|text| {
                let (number, unit) = number_and_unit(text)?;
                let scale = match unit {
                    "" => 1,
                    _ => SIZE_UNITS.into_iter().find(|(name, _)| *name == unit)?.1,
                };
                number.checked_mul(scale)
            }),
        };
        size.ok_or_else(|| {
            raw.must_be(r#"a size such as "512KiB", "16MiB" or "1GiB", or a number of bytes"#)
        })
    }

    fn show(&self) -> String {
        SIZE_UNITS
            .into_iter()
            .take(4)
            .find(|(_, scale)| *self != 0 && self.is_multiple_of(*scale))
            .map_or_else(
                || self.to_string(),
                |(unit, scale)| format!(r#""{}{unit}""#, self / scale),
            )
    }
}

/// A string, as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Value for Percent {
    fn read(raw: &Raw) -> Result<Self, String> {
        raw.text()
            .and_then(|text| text.trim().strip_suffix('%')?.trim_end().parse().ok())
            .filter(|percent| *percent <= 100)
            .map(Self)
            .ok_or_else(|| raw.must_be(r#"a percentage such as "80%""#))
    }

    fn show(&self) -> String {
        quoted(&format!("{}%", self.0))
    }
}

impl Value for String {
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = raw.text().ok_or_else(|| raw.must_be("a string"))?;
        // PostgreSQL's startup packet ends a value there: whatever followed would be lost.
        if text.contains('\0') {
            return Err("must not contain a zero byte".to_owned());
        }
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Value for Arc<str> {
    fn read(raw: &Raw) -> Result<Self, String> {
        String::read(raw).map(Self::from)
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Value for PathBuf {
    fn read(raw: &Raw) -> Result<Self, String> {
        String::read(raw).map(Self::from)
    }

    fn show(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Value for Secret {
    fn read(raw: &Raw) -> Result<Self, String> {
        // Whatever stands here may be a secret: the message doesn't repeat it.
        String::read(raw)
            .map(Self)
            .map_err(|_message| "must be a string without zero bytes".to_owned())
    }

    fn show(&self) -> String {
        r#""(set)""#.to_owned()
    }
}

impl Value for SocketAddr {
    fn read(raw: &Raw) -> Result<Self, String> {
        raw.text()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| {
                raw.must_be(
                    r#"an IP address and a port such as "127.0.0.1:6432", "0.0.0.0:6432" or "[::]:6432""#,
                )
            })
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Value for Host {
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = String::read(raw)?;
        if text.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        if text.contains(':') && text.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(raw.must_be(
                r#"a name, an address or a socket directory (the port is an option of its own: port = 5432)"#,
            ));
        }
        if text.contains(|c: char| c.is_whitespace() || "/,@".contains(c)) {
            return Err(raw.must_be("a name, an address or a socket directory"));
        }
        Ok(Self::Tcp(text))
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

/// The empty string stands for none.
impl<T: Value> Value for Option<T> {
    fn read(raw: &Raw) -> Result<Self, String> {
        match raw.text() {
            Some("") => Ok(None),
            _ => T::read(raw).map(Some),
        }
    }

    fn show(&self) -> String {
        self.as_ref()
            .map_or_else(|| r#""""#.to_owned(), Value::show)
    }
}

/// One value or a list; separated by commas in a flag or variable.
impl<T: Value> Value for Vec<T> {
    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::List(items) => items.iter().map(T::read).collect(),
            Raw::Filled(text) => split(text).map(|s| T::read(&Raw::Filled(s))).collect(),
            Raw::Typed(text) => split(text).map(|s| T::read(&Raw::Typed(s))).collect(),
            Raw::Text(_) | Raw::Integer(_) | Raw::Boolean(_) | Raw::Other(_) => {
                T::read(raw).map(|item| vec![item])
            }
        }
    }

    fn show(&self) -> String {
        match self.as_slice() {
            [one] => one.show(),
            several => {
                let items: Vec<String> = several.iter().map(Value::show).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }
}

fn split(text: &str) -> impl Iterator<Item = String> {
    text.split(',')
        .map(|item| item.trim().to_owned())
        .filter(|item| !item.is_empty())
}

/// Defines an enum whose values are words in the file.
macro_rules! words {
    (
        $(#[$about:meta])*
        pub enum $name:ident {
            $( $(#[$doc:meta])* $variant:ident = $word:literal, )*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$doc])* $variant, )*
        }

        impl $name {
            /// The word for it in the file, in flags and in logs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )*
                }
            }
        }

        impl $crate::config::value::Value for $name {
            fn read(raw: &$crate::config::value::Raw) -> Result<Self, String> {
                match raw.text() {
                    $( Some($word) => Ok(Self::$variant), )*
                    _ => Err($crate::config::value::not_one_of(raw, &[$($word),*])),
                }
            }

            fn show(&self) -> String {
                format!("{:?}", self.name())
            }
        }
    };
}
pub(crate) use words;

/// "must be "a", "b" or "c", not …".
pub(crate) fn not_one_of(raw: &Raw, words: &[&str]) -> String {
    raw.must_be(either(words))
}

/// `"a"`, `"a" or "b"`, `"a", "b" or "c"`.
pub(crate) fn either(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn durations_need_a_unit() {
        for (written, micros) in [
            ("250ms", Some(250_000)),
            ("5s", Some(5_000_000)),
            (" 10 m ", Some(600_000_000)),
            ("1h", Some(3_600_000_000)),
            ("1d", Some(86_400_000_000)),
            ("7us", Some(7)),
            ("0ms", Some(0)),
            ("5", None),
            ("", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("5 S", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            let read = Duration::read(&text(written)).ok();
            assert_eq!(read, micros.map(Duration::from_micros), "{written:?}");
        }
        assert!(Duration::read(&Raw::Integer(5)).is_err());
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (written, bytes) in [
            ("16MiB", Some(16 << 20)),
            ("1 KiB", Some(1024)),
            ("2GB", Some(2_000_000_000)),
            ("12", Some(12)),
            ("0", Some(0)),
            ("16mib", None),
            ("18446744073709551615KiB", None),
        ] {
            assert_eq!(u64::read(&text(written)).ok(), bytes, "{written:?}");
        }
        assert_eq!(u64::read(&Raw::Integer(-1)).ok(), None);
    }

    #[test]
    fn a_number_in_quotes_is_taken_from_the_environment_only() {
        assert!(u16::read(&text("5432")).is_err());
        assert_eq!(u16::read(&Raw::Filled("5432".into())), Ok(5432));
        assert_eq!(u16::read(&Raw::Typed("5432".into())), Ok(5432));
        assert!(u16::read(&Raw::Integer(65_536)).is_err());
    }

    #[test]
    fn messages_never_repeat_what_came_from_the_environment() {
        let secret = Raw::Filled("hunter2".into());
        for message in [
            u16::read(&secret).unwrap_err(),
            Duration::read(&secret).unwrap_err(),
            bool::read(&secret).unwrap_err(),
            Vec::<SocketAddr>::read(&secret).unwrap_err(),
        ] {
            assert!(!message.contains("hunter2"), "{message}");
        }
        let number = Raw::Integer(4711);
        assert!(!Secret::read(&number).unwrap_err().contains("4711"));
    }

    #[test]
    fn a_host_is_a_name_an_address_or_a_directory() {
        assert_eq!(Host::read(&text("db-1.x")), Ok(Host::Tcp("db-1.x".into())));
        assert_eq!(Host::read(&text("::1")), Ok(Host::Tcp("::1".into())));
        assert_eq!(
            Host::read(&text("/run/postgresql")),
            Ok(Host::Unix("/run/postgresql".into()))
        );
        for wrong in ["10.0.0.1:5432", "[::1]", "a b", "a,b", "u@h"] {
            assert!(Host::read(&text(wrong)).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(micros in 0..u64::MAX / 2, bytes: u64) {
            let shown = Duration::from_micros(micros).show();
            prop_assert_eq!(
                Duration::read(&text(shown.trim_matches('"'))),
                Ok(Duration::from_micros(micros))
            );
            let shown = bytes.show();
            prop_assert_eq!(u64::read(&text(shown.trim_matches('"'))), Ok(bytes));
        }

        #[test]
        fn no_text_panics(any in ".*") {
            let raw = Raw::Typed(any);
            let _ = Duration::read(&raw);
            let _ = u64::read(&raw);
            let _ = u16::read(&raw);
            let _ = bool::read(&raw);
            let _ = Host::read(&raw);
            let _ = Vec::<SocketAddr>::read(&raw);
        }
    }
}
