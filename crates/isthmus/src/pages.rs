//! The runbook page of each error code, embedded.

/// `docs/errors`, by code.
const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// All codes that have a page.
pub fn codes() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|(code, _page)| *code)
}

/// The page of `code`, written in any case.
pub fn page(code: &str) -> Option<&'static str> {
    PAGES.iter().find(|(found, _page)| found.eq_ignore_ascii_case(code)).map(|(_found, page)| *page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_says_what_it_means_and_how_to_mend_it() {
        assert!(codes().count() > 5);
        for code in codes() {
            let text = page(code).unwrap();
            assert!(text.starts_with(&format!("# {code}")), "{code} must begin with its code as the heading");
            for part in ["\n## Meaning\n", "\n## Check\n", "\n## Fix\n"] {
                assert!(text.contains(part), "{code} lacks {}", part.trim());
            }
        }
        assert!(page("ise-0601").is_some() && page("ISE-9999").is_none());
    }
}
