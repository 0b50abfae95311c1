//! Pointing a replica's `primary_conninfo` to another primary.

/// The same connection string, but to another host and port. `None`: it can't be read.
///
/// libpq's form: `key = value` pairs, values quoted by `'` where needed, `\` before what would end
/// them. What names the server is replaced, the rest stays as it is written.
pub(super) fn pointed_to(conninfo: &str, host: &str, port: u16) -> Option<String> {
    let mut pairs: Vec<String> = Vec::new();
    let mut rest = conninfo.trim_start();
    while !rest.is_empty() {
        let (key, behind) = rest.split_once('=')?;
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return None;
        }
        let (value, behind) = value(behind.trim_start())?;
        if !matches!(key, "host" | "hostaddr" | "port" | "target_session_attrs") {
            // An empty one would take what is written behind it for itself.
            let value = if value.is_empty() { "''" } else { value };
            pairs.push(format!("{key}={value}"));
        }
        rest = behind.trim_start();
    }
    pairs.push(format!("host={}", quoted(host)));
    pairs.push(format!("port={port}"));
    Some(pairs.join(" "))
}

/// The value that the text begins with, as it is written, and what is behind it.
fn value(text: &str) -> Option<(&str, &str)> {
    let quoted = text.starts_with('\'');
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(usize::from(quoted)) {
        let ends = if quoted { c == '\'' } else { c.is_whitespace() };
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if ends {
            return text.split_at_checked(at + usize::from(quoted));
        }
    }
    (!quoted && !escaped).then_some((text, ""))
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_names_the_server_is_replaced() {
        for (before, after) in [
            (
                "user=rep password=x host=10.0.0.1 port=5432 sslmode=prefer",
                Some("user=rep password=x sslmode=prefer host='b' port=6"),
            ),
            (
                "host = 'a b' hostaddr=1.1.1.1  password = 'it\\'s = \\\\' port='1'",
                Some("password='it\\'s = \\\\' host='b' port=6"),
            ),
            (
                "application_name=a\\ b dbname=''",
                Some("application_name=a\\ b dbname='' host='b' port=6"),
            ),
            ("", Some("host='b' port=6")),
            ("postgres://h/d", None),
            ("user='open", None),
            ("a b=c", None),
            ("user=x\\", None),
        ] {
            assert_eq!(pointed_to(before, "b", 6).as_deref(), after, "{before}");
        }
        assert_eq!(
            pointed_to("", "/a\\b'c", 1).as_deref(),
            Some("host='/a\\\\b\\'c' port=1")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z '=\\\\é\n]{0,30}") {
            if let Some(pointed) = pointed_to(&text, "h", 1) {
                let again = pointed_to(&pointed, "h", 1);
                prop_assert_eq!(again, Some(pointed));
            }
        }
    }
}
