//! What apt writes, read: the answer of its resolver and Release files. Text in, values out.

use format::digest::Sha256;

use crate::collect::control::Stanza;
use crate::error::{Error, Kind, Result};

/// One package that the resolver wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Name.
    pub name: String,
    /// Architecture.
    pub arch: String,
    /// Whole version.
    pub version: String,
    /// Where apt gets it.
    pub uri: String,
    /// The name that apt gives the file.
    pub file: String,
    /// Size.
    pub size: u64,
    /// Digest, from the archive's signed metadata.
    pub sha256: Sha256,
}

/// What the resolver says for one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Packages to be fetched.
    pub wanted: Vec<Wanted>,
    /// Packages that have an update which cannot be installed.
    pub kept_back: Vec<String>,
    /// Packages that would go.
    pub removed: Vec<String>,
}

/// What apt-get prints: sections of names under a heading, and a line for each package to be fetched.
///
/// # Errors
/// If a line is of no known form.
pub fn parse_resolution(text: &str) -> Result<Resolution> {
    let mut out = Resolution::default();
    let mut section = "";
    for line in text.lines() {
        if line.starts_with('\'') {
            out.wanted.push(parse_uri_line(line)?);
        } else if let Some(names) = line.strip_prefix("  ") {
            let names = names.split_whitespace().map(|n| n.trim_end_matches('*').to_owned());
            match section {
                s if s.contains("kept back") => out.kept_back.extend(names),
                s if s.contains("will be REMOVED") => out.removed.extend(names),
                _ => {}
            }
        } else {
            section = line;
        }
    }
    Ok(out)
}

/// A line of `--print-uris`: `'URI' FILE SIZE SHA256:DIGEST`.
fn parse_uri_line(line: &str) -> Result<Wanted> {
    let wrong = || Error::new(Kind::Unavailable, "apt's answer cannot be read", format!("{line:?}"));
    let (uri, rest) = line.strip_prefix('\'').and_then(|l| l.split_once('\'')).ok_or_else(wrong)?;
    let mut words = rest.split_whitespace();
    let (file, size, digest) = (words.next(), words.next(), words.next());
    let file = file.ok_or_else(wrong)?;
    let parts: Vec<&str> = file.strip_suffix(".deb").ok_or_else(wrong)?.split('_').collect();
    let [name, version, arch] = parts[..] else {
        return Err(wrong());
    };
    Ok(Wanted {
        name: name.to_owned(),
        arch: arch.to_owned(),
        version: unescape(version),
        uri: uri.to_owned(),
        file: file.to_owned(),
        size: size.and_then(|s| s.parse().ok()).ok_or_else(wrong)?,
        sha256: digest
            .and_then(|d| d.strip_prefix("SHA256:"))
            .and_then(|d| d.parse().ok())
            .ok_or_else(wrong)?,
    })
}

/// Undoes percent-encoding, as apt has it in URIs and file names.
pub fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        let mut rest = bytes.clone();
        let digits = (b == b'%').then(|| [rest.next(), rest.next()]);
        match digits {
            Some([Some(high), Some(low)]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |c: u8| (c as char).to_digit(16).unwrap_or(0) as u8;
                out.push(digit(high) << 4 | digit(low));
                bytes = rest;
            }
            _ => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The fields of a Release file, whether signed inside (InRelease) or beside.
pub fn release_stanza(text: &str) -> Stanza {
    let body = match text.strip_prefix("-----BEGIN PGP SIGNED MESSAGE-----") {
        Some(rest) => rest.split_once("\n\n").map_or(rest, |(_, body)| body),
        None => text,
    };
    let body = body.split("-----BEGIN PGP SIGNATURE-----").next().unwrap_or_default();
    Stanza::parse(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_of_print_uris_says_which_package_it_is() {
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let line = format!("'file:/a/x_1%2b1_amd64.deb' lib%2bx_1%3a1.0-1_amd64.deb 12 SHA256:{digest}");
        let wanted = parse_uri_line(&line).unwrap();
        assert_eq!((wanted.version.as_str(), wanted.arch.as_str(), wanted.size), ("1:1.0-1", "amd64", 12));
        assert_eq!(unescape("a%2b%3A%zz%"), "a+:%zz%");
        assert!(parse_uri_line("'x' y 1 MD5Sum:12").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in ".{0,200}") {
            let _ = parse_resolution(&text);
            let _ = parse_resolution(&format!("'{text}"));
            let _ = unescape(&text);
            let _ = release_stanza(&text);
            let _ = crate::rfc2822::parse(&text);
            let _ = crate::collect::sources::Sources::parse(&text);
            let _ = crate::collect::advisories::advisories(&text, "a", "1");
        }
    }

    #[test]
    fn what_apt_keeps_back_is_told() {
        let text = "Reading package lists...\nThe following packages have been kept back:\n  a b\n  c\n\
                    The following packages will be REMOVED:\n  d*\n\
                    The following packages will be upgraded:\n  e\n1 upgraded\n";
        let resolution = parse_resolution(text).unwrap();
        assert_eq!((resolution.kept_back.len(), resolution.removed), (3, vec!["d".to_owned()]));
    }

    #[test]
    fn a_release_file_is_read_signed_inside_or_not() {
        let plain = "Origin: Debian\nLabel: Debian-Security\nSuite: stable-security\nSHA256:\n 00 1 main/x\n";
        let signed = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{plain}-----BEGIN PGP SIGNATURE-----\n\nx\n"
        );
        for text in [plain, &signed] {
            assert_eq!(release_stanza(text).field("label"), Some("Debian-Security"));
        }
    }
}
