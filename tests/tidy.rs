//! The shape of the code, checked from its text: who imports whom, who may touch the clock, the
//! network and chance, and that nothing unfinished stays.
//!
//! The layers are those of `src/lib.rs`. Unit tests inside a file (what follows `#[cfg(test)]`) may
//! do what they like.

#![allow(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each folder (or file) below `src`: its layer, and whether it is pure.
const FOLDERS: &[(&str, u8, bool)] = &[
    ("protocol", 0, true),
    ("sql", 0, true),
    ("cluster", 0, true),
    ("session", 1, true),
    ("routing", 1, true),
    ("config", 2, false),
    ("error", 2, false),
    ("metrics", 2, false),
    ("net", 3, false),
    ("pool", 4, false),
    ("monitor", 4, false),
    ("proxy", 5, false),
    ("admin", 6, false),
    ("cli", 6, false),
];

/// Imports against the order of layers, each with its reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "session",
        "error",
        "an error that the client sees is made where it is known, and is plain data",
    ),
    (
        "protocol",
        "error",
        "an error that a client sees is written from the plain data that describes it",
    ),
    (
        "net",
        "config",
        "the resolved TLS settings of a listener and of a node are plain data",
    ),
];

/// Folders of one layer that may import each other.
const SIBLINGS: &[(&str, &str)] = &[
    ("sql", "protocol"),
    ("cluster", "protocol"),
    ("session", "routing"),
    ("routing", "session"),
    ("config", "error"),
    ("metrics", "config"),
    ("metrics", "error"),
    ("cli", "admin"),
];

/// Crates, and the only folders that may name them.
const HOMES: &[(&str, &[&str])] = &[
    ("sqlparser", &["sql"]),
    ("deadpool", &["pool"]),
    ("hyper", &["admin"]),
    ("hyper_util", &["admin"]),
    ("http_body_util", &["admin"]),
    ("tokio_postgres", &["monitor", "cli"]),
    ("clap", &["cli"]),
];

/// What a pure folder never names.
const IMPURE: &[&str] = &[
    "tokio",
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "fastrand",
    "rand::",
    "OnceLock",
    "LazyLock",
    "thread_local!",
    "static mut",
    "tracing",
    "crate::config",
];

struct Source {
    path: PathBuf,
    folder: String,
    text: String,
    /// Without unit tests and lines of comment; empty for a file of tests.
    code: String,
    test_only: bool,
}

#[test]
fn layers_import_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some((layer, _)) = folder(&source.folder) else {
            continue;
        };
        for imported in imports(&source.code) {
            let Some((below, _)) = folder(&imported) else {
                continue;
            };
            let from = source.folder.as_str();
            let allowed = imported == from
                || below < layer
                || SIBLINGS.contains(&(from, imported.as_str()))
                || EXCEPTIONS
                    .iter()
                    .any(|(a, b, _)| *a == from && *b == imported);
            if !allowed {
                wrong.push(format!(
                    "{}: {from} (layer {layer}) imports {imported} (layer {below})",
                    source.path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_folder_has_its_layer() {
    for source in sources() {
        let known = folder(&source.folder).is_some() || ["lib", "main"].contains(&&*source.folder);
        assert!(known, "{}: no layer", source.path.display());
    }
}

#[test]
fn pure_folders_know_no_runtime_clock_chance_or_global() {
    let mut wrong = Vec::new();
    for source in sources() {
        if !folder(&source.folder).is_some_and(|(_, pure)| pure) {
            continue;
        }
        for (number, line) in source.code.lines().enumerate() {
            for name in IMPURE {
                if word_in(line, name) {
                    wrong.push(format!("{}:{}: {name}", source.path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn crates_stay_in_their_homes() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, homes) in HOMES {
            let named = source
                .code
                .lines()
                .any(|line| word_in(line, &format!("{name}::")));
            if named && !homes.contains(&&*source.folder) {
                wrong.push(format!("{}: {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    for source in sources().into_iter().chain(tests()) {
        assert!(
            source.text.starts_with("//! ") || source.test_only,
            "{} begins without `//!`",
            source.path.display()
        );
    }
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here so that this file doesn't hold them.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("#[ig", "nore"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
    ];
    let mut wrong = Vec::new();
    for source in sources().into_iter().chain(tests()) {
        for (number, line) in source.text.lines().enumerate() {
            for mark in marks {
                if line.contains(mark) {
                    wrong.push(format!("{}:{}: {mark}", source.path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn folder(name: &str) -> Option<(u8, bool)> {
    FOLDERS
        .iter()
        .find(|(folder, ..)| *folder == name)
        .map(|(_, layer, pure)| (*layer, *pure))
}

fn sources() -> Vec<Source> {
    read("src")
}

fn tests() -> Vec<Source> {
    read("tests")
}

fn read(top: &str) -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join(top);
    let mut files = Vec::new();
    walk(&top, &mut files);
    assert!(!files.is_empty());
    let texts: Vec<String> = files
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    // Files that are modules only in tests: `#[cfg(test)] mod name;`.
    let test_modules: Vec<PathBuf> = files
        .iter()
        .zip(&texts)
        .flat_map(|(path, text)| {
            text.match_indices(TEST_MODULE)
                .filter_map(|(at, _)| {
                    let line = text[at + TEST_MODULE.len()..].lines().next()?;
                    let dir = match path.file_stem()?.to_str()? {
                        "mod" | "lib" | "main" => path.parent()?.to_owned(),
                        _ => path.with_extension(""),
                    };
                    Some(dir.join(line.strip_suffix(';')?).with_extension("rs"))
                })
                .collect::<Vec<_>>()
        })
        .collect();
    files
        .iter()
        .zip(texts)
        .map(|(path, text)| {
            let below = path.strip_prefix(&top).unwrap();
            let first = Path::new(below.iter().next().unwrap());
            let test_only = test_modules
                .iter()
                .any(|module| module == path || path.starts_with(module.with_extension("")));
            Source {
                path: below.to_owned(),
                folder: first.file_stem().unwrap().to_string_lossy().into_owned(),
                code: if test_only {
                    String::new()
                } else {
                    code(&text)
                },
                text,
                test_only,
            }
        })
        .collect()
}

/// What comes before the unit tests, without lines of comment (blank, so that numbers hold).
fn code(text: &str) -> String {
    let inline = text.match_indices(TEST_MODULE).find(|(at, _)| {
        let rest = &text[at + TEST_MODULE.len()..];
        rest.lines().next().is_some_and(|line| line.ends_with('{'))
    });
    let end = inline.map_or(text.len(), |(at, _)| at);
    let lines = text[..end].lines().map(|line| {
        if line.trim_start().starts_with("//") {
            ""
        } else {
            line
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

const TEST_MODULE: &str = "\n#[cfg(test)]\nmod ";

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The first names behind each `crate::`, also inside braces: `crate::{a::b, c}` names a and c.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(name(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut fresh = true;
                for (i, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => fresh = true,
                        c if c.is_alphabetic() && fresh => {
                            found.push(name(&list[i..]));
                            fresh = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

fn name(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// `name` occurs in `line`, not as the end of a longer word.
fn word_in(line: &str, name: &str) -> bool {
    let goes_on = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    // `std::net::Tcp` is meant as the beginning of names.
    let beginning = name.starts_with("std::net::") || name.ends_with("::");
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + name.len()..].chars().next();
        !goes_on(before) && (beginning || !goes_on(after))
    })
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::sql::Class; use crate::{cluster::{Lsn, view}, error, routing::Route}; \
        fn f() -> crate::session::Session { my_crate::pool() }";
    assert_eq!(
        imports(code),
        ["sql", "cluster", "error", "routing", "session"]
    );
}
