//! Where dnf 4, yum and dnf 5 differ, and which of them a node has.
//!
//! | | dnf 4 (EL 8, EL 9, Fedora to 40) | yum 3.4 (EL 7) | dnf 5 |
//! | --- | --- | --- | --- |
//! | planning | its Python API (`dnf4.py`) | its Python API (`yum.py`) | no Python comes with it; `--store` writes a plan with its packages |
//! | an update that cannot be | left out and named | fails the plan | left out with `--no-best` |
//! | lock held | exit 200 | exit 1 and words | not said |
//! | duplicates after a crash | `remove --duplicates` | `package-cleanup --cleandupes` | `check` finds them |
//! | versionlock | a plugin | a plugin | a verb, with a file of another format |
//! | the way back | one transaction of its shell | not tried | `history undo`, `do` |
//! | needs-restarting | a plugin's verb, `-r` | a program of yum-utils | a verb without `-r` |
//!
//! Everything in the column of dnf 4 was measured with it. That of yum is from its manual and from what was noted when it was
//! run once elsewhere; no test runs it. That of dnf 5 is from its documentation alone, so a node that has nothing else is refused
//! ([`Flavour::detect`]) rather than patched by half.

use std::path::Path;

use host::command::Command;

/// What a refused node is told to do.
pub const DNF5_ALONE: &str = "dnf 5 was not tried yet and is refused: install dnf 4 beside it (package dnf4 or python3-dnf), which is then used";

/// Which program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// dnf 4, whose program is called `dnf-3` for the Python that it runs on.
    Dnf4,
    /// yum 3.4.
    Yum,
}

impl Flavour {
    /// The one of the node below `root`; `None` if it has neither.
    pub fn detect(root: &Path) -> Option<Flavour> {
        if Command::exists(root, "dnf-3") {
            return Some(Flavour::Dnf4);
        }
        // Where `yum` is dnf under its old name, dnf-3 was found above; where it is dnf 5, it is no script.
        (interpreter(root, "yum").is_some() && !Command::exists(root, "dnf5")).then_some(Flavour::Yum)
    }

    pub(super) fn program(self) -> &'static str {
        match self {
            Flavour::Dnf4 => "dnf-3",
            Flavour::Yum => "yum",
        }
    }

    /// What takes away the older of two versions that a crash has left; yum's first step only looks.
    pub(super) fn deduplicate(self) -> &'static [&'static str] {
        match self {
            Flavour::Dnf4 => &["remove", "--duplicates"],
            Flavour::Yum => &["check", "duplicates"],
        }
    }

    /// What does it where the program itself cannot.
    pub(super) fn deduplicate_apart(self) -> Option<Command> {
        match self {
            Flavour::Dnf4 => None,
            Flavour::Yum => Some(Command::new("package-cleanup").args(["-y", "--cleandupes"])),
        }
    }

    /// What tells whether a reboot is wanted; it ends with 1 when one is, and when it cannot tell.
    pub(super) fn needs_restarting(self) -> Command {
        match self {
            Flavour::Dnf4 => {
                Command::new(self.program()).args(["-q", "--disablerepo=*", "needs-restarting", "-r"])
            }
            Flavour::Yum => Command::new("needs-restarting").arg("-r"),
        }
    }

    /// Whether its shell was tried for putting packages back.
    pub(super) fn can_put_back(self) -> bool {
        self == Flavour::Dnf4
    }

    pub(super) fn planner(self) -> &'static str {
        match self {
            Flavour::Dnf4 => include_str!("dnf4.py"),
            Flavour::Yum => include_str!("yum.py"),
        }
    }

    /// Where its main section stands.
    pub(super) fn configuration(self) -> &'static str {
        match self {
            Flavour::Dnf4 => "etc/dnf/dnf.conf",
            Flavour::Yum => "etc/yum.conf",
        }
    }
}

/// The Python that `program` of the node is written for; `None` if it is no script.
pub(super) fn interpreter(root: &Path, program: &str) -> Option<String> {
    let paths = ["usr/bin", "usr/local/bin"].map(|folder| root.join(folder).join(program));
    let file = paths.iter().find_map(|path| std::fs::File::open(path).ok())?;
    let mut first = Vec::new();
    std::io::BufRead::read_until(
        &mut std::io::BufReader::new(std::io::Read::take(file, 256)),
        b'\n',
        &mut first,
    )
    .ok()?;
    let line = String::from_utf8(first).ok()?;
    Some(line.strip_prefix("#!")?.split_whitespace().next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn root(name: &str, programs: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("prestage-flavour-{name}-{}", std::process::id()));
        host::file::remove(&root).unwrap();
        host::file::make_folder(&root.join("usr/bin"), 0o755).unwrap();
        for (program, text) in programs {
            std::fs::write(root.join("usr/bin").join(program), text).unwrap();
        }
        root
    }

    #[test]
    fn a_node_has_the_package_manager_that_its_programs_are() {
        let script = "#!/usr/bin/python3\n";
        let elf = "\x7fELF";
        for (name, programs, found) in [
            ("el9", vec![("dnf-3", script), ("dnf", script), ("yum", script)], Some(Flavour::Dnf4)),
            ("el7", vec![("yum", "#!/usr/bin/python\n")], Some(Flavour::Yum)),
            // yum is a link to dnf5 there.
            ("fedora-41", vec![("dnf5", elf), ("dnf", elf), ("yum", elf)], None),
            ("both", vec![("dnf5", elf), ("dnf-3", script), ("yum", elf)], Some(Flavour::Dnf4)),
            ("none", vec![], None),
        ] {
            let root = root(name, &programs);
            assert_eq!(Flavour::detect(&root), found, "{name}");
            host::file::remove(&root).unwrap();
        }
        let el7 = root("python", &[("yum", "#!/usr/bin/python -Es\n")]);
        assert_eq!(interpreter(&el7, "yum").as_deref(), Some("/usr/bin/python"));
        host::file::remove(&el7).unwrap();
    }
}
