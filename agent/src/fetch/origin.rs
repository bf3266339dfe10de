//! Where a URL leads: origins and redirects. Pure.
//!
//! An origin is scheme, host and port (RFC 6454, section 4). A mirror may send us elsewhere within its own origin; any
//! other must be listed by the operator, because whoever can redirect could otherwise make every node of a fleet knock
//! at a host of their choice, and because tokens must not follow.

/// The origin of an http or https URL in one spelling, without a default port; none for anything else.
pub fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    // A name before an @ is there to mislead people; no mirror of ours has one.
    let is_plain = !authority.is_empty()
        && authority.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:[]%".contains(&b));
    let authority = authority.strip_suffix(default_port).unwrap_or(&authority);
    is_plain.then(|| format!("{scheme}://{authority}"))
}

/// The URL that `location` means in the answer to a request for `url` (RFC 3986, section 5.2, as far as servers use it);
/// none for what is no http or https URL.
pub fn resolve(url: &str, location: &str) -> Option<String> {
    let location = location.trim();
    if location.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'\\') {
        return None;
    }
    let here = origin(url)?;
    let there = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{}://{rest}", here.split_once("://")?.0)
    } else if location.starts_with('/') {
        format!("{here}{location}")
    } else {
        let path_end = url.split(['?', '#']).next()?.rfind('/')?;
        format!("{}/{location}", &url[..path_end])
    };
    origin(&there).map(|_| there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_spelling_and_no_user() {
        assert_eq!(origin("HTTPS://Mirror.Example:443/a?b").as_deref(), Some("https://mirror.example"));
        assert_eq!(origin("http://m:80").as_deref(), Some("http://m"));
        assert_eq!(origin("http://[::1]:8080/").as_deref(), Some("http://[::1]:8080"));
        for bad in ["ftp://m/", "m/a", "http://", "http://mirror@evil/", "http:///x", "https://a b/"] {
            assert_eq!(origin(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_location_is_resolved_as_a_browser_does() {
        let at = |location| resolve("https://m.example/repo/metadata/1.json", location);
        assert_eq!(at("https://other/x").as_deref(), Some("https://other/x"));
        assert_eq!(at("//other/x").as_deref(), Some("https://other/x"));
        assert_eq!(at("/x").as_deref(), Some("https://m.example/x"));
        assert_eq!(at("2.json").as_deref(), Some("https://m.example/repo/metadata/2.json"));
        for bad in
            ["ftp://other/", "https://m.example@evil/", "/a\r\nHost: evil", "/\\evil", "javascript://x"]
        {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
