//! Templates: the repository configuration that the package manager gets, and the status for people. An operator
//! overrides one by a file of the same name in `/etc/prestage/templates`. The only `minijinja`.

use std::path::PathBuf;

use minijinja::{Environment, Value};

use crate::error::{Error, Exit, Result};

/// The templates that are built in.
const BUILT_IN: [(&str, &str); 3] = [
    ("prestage.repo", include_str!("../templates/prestage.repo.j2")),
    ("sources.list", include_str!("../templates/sources.list.j2")),
    ("status.txt", include_str!("../templates/status.txt.j2")),
];

/// The largest template that is read.
const MAX_TEMPLATE: u64 = 64 * 1024;

/// Renders templates, the operator's first.
#[derive(Clone, Debug)]
pub struct Renderer {
    folder: PathBuf,
}

impl Renderer {
    /// With the operator's templates in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Renderer { folder }
    }

    /// Renders the template `name` (without `.j2`).
    ///
    /// # Errors
    /// With exit code 78 and line, if the operator's template is wrong.
    pub fn render(&self, name: &str, values: Value) -> Result<String> {
        let path = self.folder.join(format!("{name}.j2"));
        let own = host::file::read_limited(&path, MAX_TEMPLATE)?;
        let text = match &own {
            Some(bytes) => {
                std::str::from_utf8(bytes).map_err(|e| Error::config(format!("{}: {e}", path.display())))?
            }
            None => BUILT_IN.iter().find(|(n, _)| *n == name).map(|(_, text)| *text).unwrap_or_default(),
        };
        let environment = Environment::new();
        environment.render_str(text, values).map_err(|e| {
            let place =
                if own.is_some() { path.display().to_string() } else { format!("built-in template {name}") };
            let line = e.line().map_or(String::new(), |l| format!(" line {l}"));
            Error::new(Exit::Config, format!("{place}{line}: {e}"), "correct or remove the template")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_the_only_source_and_local() {
        let text = Renderer::new("/nonexistent".into())
            .render("sources.list", minijinja::context! { path => "/var/lib/x" })
            .unwrap();
        let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
        assert_eq!(lines, ["deb [trusted=yes] file:/var/lib/x ./"]);
    }
}
