//! The control-file syntax of Debian (deb822(5)): stanzas of fields, as in dpkg's status, Packages and Release files.
//!
//! Stanzas keep the order and the exact text of their fields, so that one that is read and written is unchanged.

use std::io::{self, BufRead};

/// One stanza.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stanza {
    /// Name and value; continuation lines are kept with their newlines.
    fields: Vec<(String, String)>,
}

impl Stanza {
    /// Reads one stanza. What is no field is left out: files of this kind come from apt, which has judged them.
    pub fn parse(text: &str) -> Self {
        let mut stanza = Stanza::default();
        for line in text.lines() {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = stanza.fields.last_mut() {
                    value.push('\n');
                    value.push_str(line);
                }
            } else if !line.starts_with('#')
                && let Some((name, value)) = line.split_once(':')
            {
                stanza.fields.push((name.to_owned(), value.trim().to_owned()));
            }
        }
        stanza
    }

    /// The value of a field, whose name is compared without case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Takes a field away.
    pub fn remove(&mut self, name: &str) {
        self.fields.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// Sets a field, in its place if it is there and at the end if not.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        match self.fields.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some((_, there)) => *there = value.into(),
            None => self.fields.push((name.to_owned(), value.into())),
        }
    }
}

impl std::fmt::Display for Stanza {
    /// Without the empty line that ends it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in &self.fields {
            let space = if value.is_empty() || value.starts_with('\n') { "" } else { " " };
            writeln!(f, "{name}:{space}{value}")?;
        }
        Ok(())
    }
}

/// Hands over each stanza of a file, in fixed memory however long the file is.
///
/// # Errors
/// Those of the reader and of `each`.
pub fn for_each_stanza(
    reader: &mut dyn BufRead,
    each: &mut dyn FnMut(&str) -> io::Result<()>,
) -> io::Result<()> {
    let mut text = String::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let n = reader.read_until(b'\n', &mut line)?;
        let is_blank = line.iter().all(u8::is_ascii_whitespace);
        if (n == 0 || is_blank) && !text.is_empty() {
            each(&text)?;
            text.clear();
        }
        if n == 0 {
            return Ok(());
        }
        if !is_blank {
            text.push_str(&String::from_utf8_lossy(&line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "Package: a\nDescription: short\n long\n .\n more\nEmpty:\nConffiles:\n /etc/a 12\nVersion: 1\n";

    #[test]
    fn a_stanza_that_is_read_and_written_is_unchanged() {
        assert_eq!(Stanza::parse(TEXT).to_string(), TEXT);
    }

    #[test]
    fn a_field_is_found_whatever_its_case() {
        assert_eq!(Stanza::parse(TEXT).field("version"), Some("1"));
        assert_eq!(Stanza::parse("SHA256: x").field("Sha256"), Some("x"));
    }

    #[test]
    fn stanzas_are_divided_by_blank_lines_however_many() {
        let mut names = Vec::new();
        for_each_stanza(&mut &b"\n\nPackage: a\n\n \nPackage: b"[..], &mut |text| {
            names.push(Stanza::parse(text).field("package").unwrap().to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(names, ["a", "b"]);
    }
}
