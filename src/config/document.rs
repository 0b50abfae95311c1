//! A TOML text as tables of raw values, each with its place, and the mistakes found on the way.

use std::{collections::BTreeMap, sync::Arc};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    problem::{Lines, Place, Problem, Problems},
    schema::{Options, Overrides},
    settings,
    value::Raw,
};

/// Where something was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The file's name, a flag or a variable.
    pub(super) source: Arc<str>,
    pub(super) place: Option<Place>,
}

impl Origin {
    pub(super) fn flag(name: &str) -> Self {
        Self {
            source: name.into(),
            place: None,
        }
    }

    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem {
            source: self.source.to_string(),
            place: self.place,
            message: message.into(),
        }
    }
}

/// Which options of a section were given, and where.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// The section's header, or whatever stands for it.
    pub(super) header: Origin,
    keys: BTreeMap<String, Origin>,
}

impl Given {
    pub(super) fn new(header: Origin) -> Self {
        Self {
            header,
            keys: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, key: &str, origin: Origin) {
        self.keys.insert(key.to_owned(), origin);
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Where the option was given, else the section.
    pub(super) fn at(&self, key: &str) -> &Origin {
        self.keys.get(key).unwrap_or(&self.header)
    }
}

/// A section with what was given of it.
#[derive(Clone, Debug)]
pub(super) struct Part<T> {
    pub(super) value: T,
    pub(super) given: Given,
}

impl<T: Options> Part<T> {
    pub(super) fn new(header: Origin) -> Self {
        Self {
            value: T::default(),
            given: Given::new(header),
        }
    }

    /// Sets one option from a flag or variable.
    pub(super) fn set(&mut self, key: &str, raw: &Raw, origin: Origin, problems: &mut Problems) {
        match self.value.set(key, raw) {
            Some(Ok(())) => {}
            Some(Err(must)) => problems.push(origin.problem(must)),
            None => problems.push(origin.problem(format!("there is no option {key:?}"))),
        }
        self.given.add(key, origin);
    }
}

/// The text, and how its values are read.
pub(super) struct Document<'a> {
    pub(super) source: Arc<str>,
    text: &'a str,
    lines: Lines<'a>,
    environment: &'a dyn Fn(&str) -> Option<String>,
    pub(super) problems: Problems,
}

/// A table whose entries are taken out one by one; what is left was not known.
#[derive(Debug)]
pub(super) struct Table<'i> {
    /// As the file writes it: `[routing]`, `[[node]]`; empty at the top level.
    header: String,
    origin: Origin,
    entries: BTreeMap<String, (usize, Spanned<DeValue<'i>>)>,
}

impl<'a> Document<'a> {
    pub(super) fn new(
        source: &str,
        text: &'a str,
        environment: &'a dyn Fn(&str) -> Option<String>,
    ) -> Self {
        Self {
            source: source.into(),
            text,
            lines: Lines::of(text),
            environment,
            problems: Problems::default(),
        }
    }

    /// The top level; `None` when the text isn't TOML.
    pub(super) fn parse(&mut self) -> Option<Table<'a>> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let span = error.span().unwrap_or_default();
            // A key that occurs twice is pointed at; whatever else the span covers may be a secret.
            let message = match (error.message(), self.text.get(span.clone())) {
                ("duplicate key", Some(key)) => format!("duplicate key {key:?}"),
                (message, _) => message.to_owned(),
            };
            self.problem(span.start, message);
        }
        errors
            .is_empty()
            .then(|| self.table(String::new(), 0, root.into_inner()))
    }

    fn origin(&self, byte: usize) -> Origin {
        Origin {
            source: Arc::clone(&self.source),
            place: Some(self.lines.place(byte)),
        }
    }

    fn problem(&mut self, byte: usize, message: String) {
        let problem = self.origin(byte).problem(message);
        self.problems.push(problem);
    }

    fn table(&self, header: String, byte: usize, table: DeTable<'a>) -> Table<'a> {
        let entries = table
            .into_iter()
            .map(|(key, value)| {
                let byte = key.span().start;
                (key.into_inner().into_owned(), (byte, value))
            })
            .collect();
        Table {
            header,
            origin: self.origin(byte),
            entries,
        }
    }

    /// The value with the environment filled in; `None` when that failed, which has been reported.
    fn raw(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Raw> {
        Some(match value.get_ref() {
            DeValue::String(text) => return self.string(value.span().start, text),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Raw::Other("a number beyond 64 bits"), Raw::Integer),
            DeValue::Boolean(value) => Raw::Boolean(*value),
            DeValue::Array(items) => {
                let items: Option<_> = items.iter().map(|item| self.raw(item)).collect();
                Raw::List(items?)
            }
            DeValue::Float(_) => Raw::Other("a fraction"),
            DeValue::Datetime(_) => Raw::Other("a date"),
            DeValue::Table(_) => Raw::Other("a table"),
        })
    }

    fn string(&mut self, byte: usize, text: &DeString<'_>) -> Option<Raw> {
        match fill_in(text, self.environment) {
            Ok(None) => Some(Raw::Text(text.to_string())),
            Ok(Some(filled)) => Some(Raw::Filled(filled)),
            Err(message) => {
                self.problem(byte, message);
                None
            }
        }
    }
}

impl<'i> Table<'i> {
    /// What was given of the section so far: its place only.
    pub(super) fn given(&self) -> Given {
        Given::new(self.origin.clone())
    }

    /// Takes the section's options.
    pub(super) fn part<T: Options>(&mut self, document: &mut Document<'i>) -> Part<T> {
        let mut part = Part {
            value: T::default(),
            given: self.given(),
        };
        for key in T::KEYS {
            self.take::<T>(key.name, &mut part, document);
        }
        part
    }

    /// Takes options that replace those of a wider section.
    pub(super) fn overrides<T: Options>(
        &mut self,
        document: &mut Document<'i>,
    ) -> (Overrides, Given) {
        let mut part = Part {
            value: T::default(),
            given: self.given(),
        };
        let mut overrides = Overrides::default();
        for key in T::KEYS {
            if let Some(raw) = self.take::<T>(key.name, &mut part, document) {
                overrides.add(key.name, raw);
            }
        }
        (overrides, part.given)
    }

    /// Sets one option, if it is there; gives the value if it was accepted.
    fn take<T: Options>(
        &mut self,
        key: &'static str,
        part: &mut Part<T>,
        document: &mut Document<'i>,
    ) -> Option<Raw> {
        let (byte, value) = self.entries.remove(key)?;
        part.given.add(key, document.origin(byte));
        let raw = document.raw(&value)?;
        match part.value.set(key, &raw)? {
            Ok(()) => Some(raw),
            Err(must) => {
                let message = format!("{key} in {} {must}", self.header);
                document.problem(value.span().start, message);
                None
            }
        }
    }

    /// Takes the table `name`, if it is there.
    pub(super) fn table(&mut self, name: &str, document: &mut Document<'i>) -> Option<Self> {
        let (byte, value) = self.entries.remove(name)?;
        let header = match self.header.trim_matches(['[', ']']) {
            "" => format!("[{name}]"),
            outer => format!("[{outer}.{name}]"),
        };
        match value.into_inner() {
            DeValue::Table(table) => Some(document.table(header, byte, table)),
            _ => {
                document.problem(byte, format!("{name} must be a section: {header}"));
                None
            }
        }
    }

    /// Takes the tables written `[[name]]`.
    pub(super) fn tables(&mut self, name: &str, document: &mut Document<'i>) -> Vec<Self> {
        let Some((byte, value)) = self.entries.remove(name) else {
            return Vec::new();
        };
        let mut tables = Vec::new();
        let DeValue::Array(items) = value.into_inner() else {
            document.problem(
                byte,
                format!("[{name}] may occur several times: write [[{name}]]"),
            );
            return tables;
        };
        for item in items {
            let byte = item.span().start;
            match item.into_inner() {
                DeValue::Table(table) => {
                    tables.push(document.table(format!("[[{name}]]"), byte, table));
                }
                _ => document.problem(byte, format!("{name} must be a list of tables: [[{name}]]")),
            }
        }
        tables
    }

    /// Whatever has not been taken is a mistake.
    pub(super) fn finish(self, section: &str, document: &mut Document<'i>) {
        let known = settings::sections();
        let valid: Vec<&str> = if section.is_empty() {
            known
                .iter()
                .map(|s| s.name)
                .filter(|name| !name.contains('.'))
                .collect()
        } else {
            known
                .iter()
                .filter(|s| s.name == section)
                .flat_map(|s| {
                    s.keys
                        .iter()
                        .map(|key| key.name)
                        .chain(s.tables.iter().copied())
                })
                .collect()
        };
        for (key, (byte, _)) in self.entries {
            let place = match self.header.as_str() {
                "" => "at the top level",
                header => &format!("in {header}"),
            };
            let message = if key == "auth_query" {
                // As PgBouncer calls it.
                format!("unknown key {key:?} {place}; it is \"query\" in [auth]")
            } else {
                format!("unknown key {key:?} {place}; {}", advice(&key, &valid))
            };
            document.problem(byte, message);
        }
    }
}

/// What somebody who wrote `key` may have meant.
fn advice(key: &str, valid: &[&str]) -> String {
    // Longer than any key by far: nothing is near it.
    let short = key.chars().count() <= 64;
    let nearest = valid
        .iter()
        .filter(|_| short)
        .map(|name| (strsim::osa_distance(key, name), name))
        .min();
    if let Some((distance, name)) = nearest
        && distance <= 1.max(key.chars().count().div_ceil(3))
    {
        return format!("did you mean {name:?}?");
    }
    let elsewhere: Vec<String> = settings::sections()
        .iter()
        .filter(|section| section.keys.iter().any(|known| known.name == key))
        .map(|section| format!("[{}]", section.name))
        .collect();
    if !elsewhere.is_empty() {
        return format!("it belongs in {}", elsewhere.join(" or "));
    }
    let within: Vec<&str> = valid
        .iter()
        .copied()
        .filter(|name| short && key.len() > 2 && (name.contains(key) || key.contains(name)))
        .collect();
    if within.is_empty() {
        format!("valid are {}", valid.join(", "))
    } else {
        format!("did you mean {}?", super::value::either(&within))
    }
}

/// `${NAME}` replaced by the environment's value, `$${` by `${`; `None` when the text has neither.
/// Any other `$` stands for itself, as in `SCRAM-SHA-256$4096:…`.
fn fill_in(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        filled.push_str(before);
        if before.ends_with('$') {
            filled.push('{');
            rest = after;
            continue;
        }
        let Some((name, behind)) = after.split_once('}') else {
            return Err(r#""${" without "}"; write "$${" for a plain "${""#.to_owned());
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(valid) {
            // Not repeated: it may be part of a secret.
            return Err(r#"what stands in "${…}" is not the name of an environment variable; write "$${" for a plain "${""#.to_owned());
        }
        let value = environment(name)
            .ok_or_else(|| format!("the environment variable {name} is not set"))?;
        filled.push_str(&value);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(Some(filled))
}
