//! The page at `/`, with a policy that lets nothing run but its own two inline parts.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest::{SHA256, digest};

const HTML: &str = include_str!("page.html");

/// The page and its Content-Security-Policy.
#[derive(Debug)]
pub(super) struct Page {
    policy: String,
}

impl Page {
    pub(super) fn new() -> Self {
        let source = |tag: &str| {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            let inside = HTML
                .split_once(&open)
                .and_then(|(_before, rest)| rest.split_once(&close));
            let inside = inside.map_or("", |(inside, _after)| inside);
            STANDARD.encode(digest(&SHA256, inside.as_bytes()))
        };
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source("script"),
            source("style"),
        );
        Self { policy }
    }

    pub(super) fn html(&self) -> &'static str {
        HTML
    }

    pub(super) fn policy(&self) -> &str {
        &self.policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_one_style_and_loads_nothing() {
        assert_eq!(HTML.matches("<script>").count(), 1);
        assert_eq!(HTML.matches("<style>").count(), 1);
        for absent in [
            "<script ",
            "src=",
            "href=",
            "style=",
            "onclick",
            "innerHTML",
            "http:",
            "https:",
        ] {
            assert!(!HTML.contains(absent), "{absent}");
        }
    }

    #[test]
    fn the_policy_names_the_hashes_of_both_parts() {
        let page = Page::new();
        let empty = STANDARD.encode(digest(&SHA256, b""));
        assert!(!page.policy().contains(&empty));
        assert_eq!(page.policy().matches("'sha256-").count(), 2);
    }
}
