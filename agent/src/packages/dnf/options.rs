//! The node's own options of dnf or yum, and those that give way to ours: pure.

/// The main section that dnf is given.
pub(super) struct Options {
    /// As a configuration file.
    pub(super) text: String,
    /// Whether packages must be signed by a key in the node's keyring.
    pub(super) gpgcheck: bool,
}

impl Options {
    /// Of the file that the node has, what is not about other repositories, and what we need in place of the rest.
    /// `gpgcheck` overrides what the node says; `cache` is a path as the node sees it.
    pub(super) fn merge(own: &str, gpgcheck: Option<bool>, cache: &str) -> Options {
        let main = main_section(own);
        let own_gpgcheck = || main.iter().any(|(key, line)| key == "gpgcheck" && is_true(line));
        let gpgcheck = gpgcheck.unwrap_or_else(own_gpgcheck);
        let mut text = String::from("[main]\n");
        for (_, line) in main.iter().filter(|(key, _)| !OURS.iter().any(|(ours, _)| ours == key)) {
            text.push_str(line);
        }
        for (key, value) in OURS {
            let value = match key {
                "cachedir" => cache,
                "localpkg_gpgcheck" if gpgcheck => "1",
                _ => value,
            };
            text.push_str(&format!("{key}={value}\n"));
        }
        Options { text, gpgcheck }
    }
}

/// Options of the node's own main section that give way to ours: what they say is about other repositories, or about where
/// dnf keeps its files.
const OURS: [(&str, &str); 10] = [
    ("reposdir", "/dev/null"),
    ("localpkg_gpgcheck", "0"),
    ("best", "0"),
    ("skip_if_unavailable", "0"),
    ("metadata_expire", "1"),
    ("exit_on_lock", "1"),
    ("keepcache", "0"),
    ("assumeyes", "1"),
    ("color", "never"),
    ("cachedir", ""),
];

/// The main section of a configuration file: each option with its lines, as they stand.
fn main_section(text: &str) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut in_main = false;
    for line in text.lines() {
        if line.starts_with('[') {
            in_main = line.trim() == "[main]";
        } else if !in_main || line.starts_with(['#', ';']) || line.trim().is_empty() {
            continue;
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, lines)) = out.last_mut() {
                lines.push_str(line);
                lines.push('\n');
            }
        } else {
            let key = line.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
            out.push((key, format!("{line}\n")));
        }
    }
    out
}

/// Whether an option's line says yes.
fn is_true(line: &str) -> bool {
    let value = line.split_once('=').map_or("", |(_, value)| value.trim());
    ["1", "yes", "true", "on"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_options_stay_and_repositories_do_not() {
        let text = "# x\n[main]\ngpgcheck = True\nexclude=a\n b\nbest=1\n[baseos]\nbaseurl=http://x/\n";
        let main = main_section(text);
        let keys: Vec<&str> = main.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["gpgcheck", "exclude", "best"]);
        assert_eq!(main[1].1, "exclude=a\n b\n");
        assert!(is_true(&main[0].1) && !is_true("gpgcheck=0"));
        let merged = Options::merge(text, None, "/cache");
        assert!(merged.gpgcheck && !Options::merge(text, Some(false), "/cache").gpgcheck);
        for line in ["exclude=a", "best=0", "localpkg_gpgcheck=1", "reposdir=/dev/null", "cachedir=/cache"] {
            assert!(merged.text.lines().any(|l| l == line), "{line}: {}", merged.text);
        }
        assert!(!merged.text.contains("best=1") && !merged.text.contains("baseos"));
    }
}
