//! `DateStyle` has two parts, an output style and an order of fields. A SET may name only one of
//! them; the other stays as it was.

/// The parts that a value names, in PostgreSQL's own spelling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DateStyle {
    style: Option<&'static str>,
    order: Option<&'static str>,
}

impl DateStyle {
    /// Reads a value as it stands in SET or as plain text. `None`: something else is in it.
    pub(super) fn read(value: &str) -> Option<Self> {
        let mut read = Self::default();
        for word in value.split(',') {
            let word = word
                .trim_matches(|c: char| c.is_ascii_whitespace() || c == '\'' || c == '"')
                .to_ascii_lowercase();
            match word.as_str() {
                "iso" => read.style = Some("ISO"),
                "sql" => read.style = Some("SQL"),
                "german" => {
                    read.style = Some("German");
                    read.order = read.order.or(Some("DMY"));
                }
                "ymd" => read.order = Some("YMD"),
                "dmy" => read.order = Some("DMY"),
                "mdy" | "us" => read.order = Some("MDY"),
                word if word.starts_with("postgres") => read.style = Some("Postgres"),
                word if word.starts_with("euro") => read.order = Some("DMY"),
                word if word.starts_with("noneuro") => read.order = Some("MDY"),
                _ => return None,
            }
        }
        Some(read)
    }

    /// These parts, and the others of `before`.
    pub(super) fn over(self, before: Option<Self>) -> Self {
        let before = before.unwrap_or_default();
        Self {
            style: self.style.or(before.style),
            order: self.order.or(before.order),
        }
    }

    /// Both parts are named.
    pub(super) fn is_whole(self) -> bool {
        self.style.is_some() && self.order.is_some()
    }

    /// As PostgreSQL shows it.
    pub(super) fn text(self) -> Box<str> {
        let parts = [self.style, self.order];
        let named: Vec<&str> = parts.into_iter().flatten().collect();
        named.join(", ").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_that_is_not_named_stays() {
        for (before, set, after) in [
            ("", "iso", "ISO"),
            ("ISO, MDY", "dmy", "ISO, DMY"),
            ("ISO, DMY", "'SQL'", "SQL, DMY"),
            ("ISO, YMD", "german", "German, DMY"),
            ("ISO, YMD", "'German, MDY'", "German, MDY"),
            ("SQL, YMD", "Postgres , \"European\"", "Postgres, DMY"),
            ("SQL", "us", "SQL, MDY"),
        ] {
            let over = DateStyle::read(set).unwrap().over(DateStyle::read(before));
            assert_eq!(&*over.text(), after, "{set} over {before}");
            assert_eq!(over.is_whole(), after.contains(','));
        }
        assert_eq!(DateStyle::read("default"), None);
    }
}
