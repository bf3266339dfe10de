//! Sources files: sources.list(5) in both its styles, checked and narrowed to what the given keyrings vouch for.
//!
//! apt itself reads them; here they are only refused or changed where they would weaken its checks.

use std::path::Path;

use crate::error::{During, Error, Kind, Result};

/// A sources file holds some lines; more is not a sources file.
const MAX_FILE: u64 = 1024 * 1024;

/// A sources file that apt may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The text.
    pub text: String,
    /// `list` or `sources`: the ending by which apt tells the two styles apart.
    pub ending: &'static str,
}

/// Options that switch off what apt checks. A collection is signed by us; what went into it must have been signed by
/// the archive.
const REFUSED: [&str; 5] =
    ["trusted", "allow-insecure", "allow-weak", "allow-downgrade-to-insecure", "check-signature"];

impl Sources {
    /// Reads and checks a sources file.
    ///
    /// # Errors
    /// If it is none, or would have apt skip the archive's signature.
    pub fn read(path: &Path) -> Result<Self> {
        let what = "the sources cannot be used";
        let wrong = |why: String| Error::new(Kind::Config, what, format!("{}: {why}", path.display()));
        let bytes = host::file::read_limited(path, MAX_FILE)
            .during(what)?
            .ok_or_else(|| wrong("there is no such file".into()))?;
        let text = String::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
        Sources::parse(&text).map_err(wrong)
    }

    /// Checks the text of a sources file.
    ///
    /// # Errors
    /// As [`Sources::read`], in words.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let lines = || text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let one_line =
            lines().any(|l| l.starts_with("deb ") || l.starts_with("deb\t") || l.starts_with("deb-src "));
        if !one_line && !lines().any(|l| l.to_ascii_lowercase().starts_with("uris:")) {
            return Err("it names no source, neither \"deb URI SUITE COMPONENT\" nor \"URIs:\"".into());
        }
        let mut out = String::new();
        let mut dropped = false;
        for line in text.lines() {
            let continued = line.starts_with([' ', '\t']);
            let kept = if one_line {
                // Sources of source packages are of no use here.
                let is_source = line.trim_start().starts_with("deb-src");
                (!is_source).then(|| one_line_source(line)).transpose()?
            } else if continued && dropped {
                None // goes with the field that it continues
            } else {
                deb822_line(line)?.map(str::to_owned)
            };
            dropped = kept.is_none();
            if let Some(kept) = kept {
                out.push_str(&kept);
                out.push('\n');
            }
        }
        Ok(Sources { text: out, ending: if one_line { "list" } else { "sources" } })
    }
}

/// Takes `signed-by` out of the options, as the keyrings that were given are the ones that count.
fn one_line_source(line: &str) -> std::result::Result<String, String> {
    // Options stand right behind the type; a cdrom's name has brackets too.
    let behind_type = line.trim_start().strip_prefix("deb").map(str::trim_start);
    let has_options = behind_type.is_some_and(|rest| rest.starts_with('['));
    let (true, Some(open), Some(close)) = (has_options, line.find('['), line.find(']')) else {
        return Ok(line.to_owned());
    };
    if close < open {
        return Err(format!("{line:?} has a bracket too many"));
    }
    let mut kept = Vec::new();
    for option in line[open + 1..close].split_whitespace() {
        let name = option.split('=').next().unwrap_or_default().trim_end_matches(['+', '-']);
        refuse(name)?;
        if !name.eq_ignore_ascii_case("signed-by") {
            kept.push(option);
        }
    }
    let options = if kept.is_empty() { String::new() } else { format!("[{}] ", kept.join(" ")) };
    Ok(format!("{}{options}{}", &line[..open], line[close + 1..].trim_start()))
}

/// A line of a deb822 source; `None` for the `Signed-By` field, as above.
fn deb822_line(line: &str) -> std::result::Result<Option<&str>, String> {
    if line.starts_with([' ', '\t', '#']) {
        return Ok(Some(line));
    }
    let name = line.split(':').next().unwrap_or_default().trim();
    refuse(name)?;
    if !name.eq_ignore_ascii_case("signed-by") {
        return Ok(Some(line));
    }
    let value = line.split_once(':').map_or("", |(_, value)| value.trim());
    if value.is_empty() || value.starts_with('-') {
        return Err(
            "it has a key inside Signed-By; put the key into a file and give that with --keyring".into()
        );
    }
    Ok(None)
}

fn refuse(name: &str) -> std::result::Result<(), String> {
    if REFUSED.iter().any(|refused| refused.eq_ignore_ascii_case(name)) {
        return Err(format!("it sets {name:?}, which lets apt skip the archive's signature"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_styles_are_told_apart_and_signed_by_gives_way_to_the_given_keyrings() {
        let list =
            Sources::parse("# x\ndeb [arch=amd64 signed-by=/k.gpg] http://a/d s main\ndeb-src http://a/d s main\ndeb file:/x ./\n")
                .unwrap();
        assert_eq!(list.text, "# x\ndeb [arch=amd64] http://a/d s main\ndeb file:/x ./\n");
        assert_eq!(list.ending, "list");
        let text = "Types: deb\nURIs: http://a/d\nSuites: s\nComponents: main\nSigned-By: /k.gpg\n";
        let sources = Sources::parse(text).unwrap();
        assert_eq!(sources.ending, "sources");
        assert!(!sources.text.contains("Signed-By"));
    }

    #[test]
    fn options_that_skip_the_archives_signature_are_refused() {
        for text in [
            "deb [trusted=yes] file:/x ./",
            "  deb\t[ Trusted=yes ] file:/x ./",
            "deb [arch=amd64 allow-insecure=yes] file:/x ./",
            "Types: deb\nURIs: file:/x\nSuites: ./\nTrusted: yes\n",
            "Types: deb\nURIs: file:/x\nSuites: ./\nSigned-By:\n -----BEGIN PGP\n",
            "nothing",
        ] {
            assert!(Sources::parse(text).is_err(), "{text}");
        }
    }
}
