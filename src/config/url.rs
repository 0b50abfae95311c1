//! Nodes given as `postgres://user:password@host:port/database?sslmode=…` (PostgreSQL manual,
//! "Connection URIs"), one node each. Messages never repeat the URL: it holds a password.

use super::{
    document::{Given, Origin, Part},
    draft::{DatabaseDraft, Draft, NodeDraft, Sources},
    problem::Problems,
    schema::{Options, Overrides},
    settings::Secret,
    value::{Raw, either},
};

/// What one URL says.
#[derive(Debug)]
struct NodeUrl {
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    node: NodeDraft,
}

/// Parameters of a URL: which option of the node each one sets.
const PARAMETERS: [(&str, Sets); 13] = [
    ("host", Sets::Node("host")),
    ("port", Sets::Node("port")),
    ("name", Sets::Node("name")),
    ("zone", Sets::Node("zone")),
    ("weight", Sets::Node("weight")),
    ("role", Sets::Node("role")),
    ("sslmode", Sets::Tls("sslmode")),
    ("sslrootcert", Sets::Tls("ca")),
    ("sslcert", Sets::Tls("cert")),
    ("sslkey", Sets::Tls("key")),
    ("user", Sets::User),
    ("password", Sets::Password),
    ("dbname", Sets::Database),
];

#[derive(Clone, Copy, Debug)]
enum Sets {
    Node(&'static str),
    Tls(&'static str),
    User,
    Password,
    Database,
}

/// Makes nodes, and one user and one database, of [`Sources::nodes`].
pub(super) fn nodes(sources: &Sources, draft: &mut Draft, problems: &mut Problems) {
    let mut urls = Vec::new();
    for (n, text) in sources.nodes.iter().enumerate() {
        let origin = Origin::flag(&format!("--node, URL {}", n + 1));
        match parse(text.trim(), &origin) {
            Ok(url) => urls.push(url),
            Err(message) => problems.push(origin.problem(message)),
        }
    }
    let Some(first) = urls.first() else {
        return;
    };
    let origin = first.node.node.given.header.clone();
    let Some(user) = first.user.clone() else {
        problems.push(origin.problem("names no user: postgres://user:password@host/database"));
        return;
    };
    let database = first.database.clone().unwrap_or_else(|| user.clone());
    for url in &urls {
        let header = &url.node.node.given.header;
        for (what, said, first) in [
            ("user", &url.user, Some(&user)),
            ("password", &url.password, first.password.as_ref()),
            ("database", &url.database, Some(&database)),
        ] {
            if said.is_some() && said.as_ref() != first {
                problems.push(header.problem(format!(
                    "names another {what} than the first node's URL: they are the same on all nodes"
                )));
            }
        }
    }
    let given = first.password.clone().map(Secret);
    if given.is_some() && (sources.password.is_some() || sources.password_file.is_some()) {
        problems.push(origin.problem("has a password, which is also given beside it"));
    }
    let mut part = Part::<super::User>::new(origin.clone());
    part.value.name = user;
    part.value.password = given.or_else(|| sources.password.clone());
    part.value.password_file.clone_from(&sources.password_file);
    draft.users.push(part);
    let mut part = Part::<super::Database>::new(origin.clone());
    part.value.name = database;
    draft.databases.push(DatabaseDraft {
        database: part,
        pool: (Overrides::default(), Given::new(origin)),
        routing: Overrides::default(),
    });
    draft.nodes.extend(urls.into_iter().map(|url| url.node));
}

fn parse(text: &str, origin: &Origin) -> Result<NodeUrl, String> {
    let rest = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"))
        .ok_or("must begin with postgres://")?;
    let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let (host, port) = address_parts(address)?;

    let mut url = NodeUrl {
        user: given(user)?,
        password: given(password)?,
        database: given(database)?,
        node: NodeDraft {
            node: Part::new(origin.clone()),
            tls: Part::new(origin.clone()),
        },
    };
    if let Some(host) = given(host)? {
        set(&mut url.node.node, "host", "host", &host)?;
    }
    if let Some(port) = given(port)? {
        set(&mut url.node.node, "port", "port", &port)?;
    }
    for parameter in parameters.split('&').filter(|text| !text.is_empty()) {
        let (name, value) = parameter
            .split_once('=')
            .ok_or("has a parameter without a value")?;
        let name = decode(name)?;
        let value = decode(value)?;
        let Some((_, sets)) = PARAMETERS.into_iter().find(|(known, _)| *known == name) else {
            return Err(unknown_parameter(&name));
        };
        match sets {
            Sets::Node(key) => set(&mut url.node.node, key, &name, &value)?,
            Sets::Tls(key) => set(&mut url.node.tls, key, &name, &value)?,
            Sets::User => url.user = Some(value),
            Sets::Password => url.password = Some(value),
            Sets::Database => url.database = Some(value),
        }
    }
    if !url.node.node.given.has("host") {
        return Err("names no host".to_owned());
    }
    Ok(url)
}

/// Host and port of `host:port`, `[::1]:port`; either may be empty.
fn address_parts(address: &str) -> Result<(&str, &str), String> {
    if address.contains(',') {
        return Err("names several hosts: give one --node for each".to_owned());
    }
    match address.strip_prefix('[') {
        None => Ok(address.split_once(':').unwrap_or((address, ""))),
        Some(rest) => rest
            .split_once(']')
            .and_then(|(host, port)| match port {
                "" => Some((host, "")),
                _ => port.strip_prefix(':').map(|port| (host, port)),
            })
            .ok_or_else(|| "has a \"[\" without \"]:\" behind the address".to_owned()),
    }
}

fn set<T: Options>(part: &mut Part<T>, key: &str, name: &str, value: &str) -> Result<(), String> {
    part.given.add(key, part.given.header.clone());
    // Not shown in messages: in a URL that was split wrongly it may be part of the password.
    match part.value.set(key, &Raw::Filled(value.to_owned())) {
        Some(Err(must)) => {
            let must = must.replace(", not what the environment gives", "");
            Err(format!("{name} {must}"))
        }
        Some(Ok(())) | None => Ok(()),
    }
}

fn unknown_parameter(name: &str) -> String {
    let names: Vec<&str> = PARAMETERS.iter().map(|(known, _)| *known).collect();
    let nearest = names
        .iter()
        .filter(|_| name.len() <= 64)
        .map(|known| (strsim::osa_distance(name, known), known))
        .min();
    match nearest {
        Some((distance, known)) if distance <= 3 => {
            format!("has a parameter that isn't known; did you mean {known:?}?")
        }
        _ => format!(
            "has a parameter that isn't known; there are {}",
            either(&names)
        ),
    }
}

/// The decoded text, unless it is empty.
fn given(text: &str) -> Result<Option<String>, String> {
    Ok(Some(decode(text)?).filter(|text| !text.is_empty()))
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let byte = digit()
            .zip(digit())
            .and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match byte {
            Some(0) | None => {
                return Err("has a \"%\" that isn't followed by two hexadecimal digits (a plain % is written %25)".to_owned());
            }
            Some(byte) => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_error| "isn't UTF-8 when decoded".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Host, SslMode};

    fn read(text: &str) -> Result<NodeUrl, String> {
        parse(text, &Origin::flag("--node"))
    }

    #[test]
    fn every_part_is_decoded() {
        let url = read(
            "postgresql://a%40b:p%3A%2F%25x@db.example:6543/my%20db?sslmode=verify-full&sslrootcert=%2Fca.pem&zone=a&weight=3&name=one&role=replica",
        )
        .unwrap();
        assert_eq!(url.user.as_deref(), Some("a@b"));
        assert_eq!(url.password.as_deref(), Some("p:/%x"));
        assert_eq!(url.database.as_deref(), Some("my db"));
        let node = url.node.node.value;
        assert_eq!(node.host, Host::Tcp("db.example".into()));
        assert_eq!((node.port, node.weight), (6543, 3));
        assert_eq!((&*node.zone, &*node.name), ("a", "one"));
        assert_eq!(url.node.tls.value.sslmode, SslMode::VerifyFull);
        assert_eq!(url.node.tls.value.ca, Some("/ca.pem".into()));
    }

    #[test]
    fn every_form_of_host_is_understood() {
        for (text, host, port) in [
            ("postgres://h", Host::Tcp("h".into()), 5432),
            ("postgres://h:1", Host::Tcp("h".into()), 1),
            ("postgres://u@[::1]:7/db", Host::Tcp("::1".into()), 7),
            ("postgres://[::1]", Host::Tcp("::1".into()), 5432),
            (
                "postgres://%2Frun%2Fpg/db",
                Host::Unix("/run/pg".into()),
                5432,
            ),
            (
                "postgres:///db?host=/run/pg&port=9",
                Host::Unix("/run/pg".into()),
                9,
            ),
            ("postgres://u:p@p@h/db", Host::Tcp("h".into()), 5432),
        ] {
            let node = read(text).unwrap().node.node.value;
            assert_eq!((node.host, node.port), (host, port), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named_without_repeating_the_password() {
        for (text, message) in [
            ("mysql://h", "must begin with postgres://"),
            ("postgres://", "names no host"),
            ("postgres:///db", "names no host"),
            (
                "postgres://a:hunter2@h1,h2/db",
                "names several hosts: give one --node for each",
            ),
            (
                "postgres://a:hunter2@[::1/db",
                "has a \"[\" without \"]:\" behind the address",
            ),
            (
                "postgres://a:hunter2@h:x/db",
                "port must be a whole number from 0 to 65535",
            ),
            // An unescaped slash in the password.
            (
                "postgres://a:hunter2/x@h/db",
                "port must be a whole number from 0 to 65535",
            ),
            (
                "postgres://a:hunter2%zz@h/db",
                "has a \"%\" that isn't followed by two hexadecimal digits (a plain % is written %25)",
            ),
            (
                "postgres://h/db?sslmode=verify-ca",
                "sslmode must be \"disable\", \"prefer\", \"require\" or \"verify-full\"",
            ),
            (
                "postgres://h/db?sslmod=require",
                "has a parameter that isn't known; did you mean \"sslmode\"?",
            ),
            ("postgres://h/db?sslmode", "has a parameter without a value"),
        ] {
            let said = read(text).unwrap_err();
            assert_eq!(said, message, "{text}");
            assert!(!said.contains("hunter2"));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(postgres://)?[ -~ä]{0,60}") {
            let _ = read(&text);
        }

        #[test]
        fn what_is_encoded_decodes(text in "[^\0]*") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(decode(&encoded), Ok(text));
        }
    }
}
