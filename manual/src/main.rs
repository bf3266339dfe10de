//! Manual pages and shell completions, from what the programs say of themselves (`agent::help`, the command lines of build
//! tool and fleet server) and, for files, from the files as they are shipped. What is longer than a help text stands in
//! `manual/*.roff`.
//!
//! usage: prestage-manual DIR — writes DIR/man/*.{1,5,8} and DIR/completions/*

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use agent::help;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command};
use clap_complete::Shell;

/// What the agent's own page says beside verbs and options.
const FILES: &str = include_str!("../files.roff");

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: prestage-manual DIR");
        return ExitCode::from(64);
    };
    match write_all(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}: {error}", Path::new(&folder).display());
            ExitCode::from(74)
        }
    }
}

fn write_all(folder: &Path) -> io::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let agent = agent();
    let (build, fleet) = (buildtool::command(), fleet::cli::command());
    fs::write(man.join("prestage.8"), agent_page(&agent)?)?;
    for verb in agent.get_subcommands() {
        fs::write(man.join(format!("prestage-{}.8", verb.get_name())), verb_page(verb)?)?;
    }
    for file in FILES_OF_CONFIGURATION {
        fs::write(man.join(format!("{}.5", file.page)), file.page())?;
    }
    pages_of(&build, "prestage-build", &man)?;
    pages_of(&fleet, "prestage-fleet", &man)?;
    for mut command in [agent, build, fleet] {
        let name = command.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let file = clap_complete::generate_to(shell, &mut command, &name, &completions)?;
            if shell == Shell::Bash {
                // clap_complete 4.6 calls a program with a hyphen by one name where it finds the verb, and by another
                // where it looks up the verb's options, which are then never offered.
                let text = fs::read_to_string(&file)?;
                let (found, looked_up) = (name.replace('-', "__"), name.replace('-', "__subcmd__"));
                fs::write(&file, text.replace(&looked_up, &found))?;
            }
        }
    }
    Ok(())
}

/// The agent's command line, from the tables that its own `--help` is made of.
fn agent() -> Command {
    let mut agent = Command::new("prestage").about(help::ABOUT).disable_help_subcommand(true);
    agent = agent.version(env!("CARGO_PKG_VERSION")).subcommand_required(true);
    for (option, text) in help::OPTIONS {
        // Help and version are clap's own.
        if !option.contains("--help") && !option.contains("--version") {
            agent = agent.arg(argument(option, text).global(true));
        }
    }
    for verb in help::VERBS {
        let mut command = Command::new(verb.name)
            .about(verb.summary)
            .long_about(format!("{}.\n\n{}", verb.summary, verb.text));
        for (option, text) in verb.options {
            command = command.arg(argument(option, text));
        }
        agent = agent.subcommand(command);
    }
    agent
}

/// `--flag`, `-f, --flag`, `--option VALUE` or `VALUE`.
fn argument(spelling: &'static str, text: &'static str) -> Arg {
    let (short, rest) = match spelling.strip_prefix('-').and_then(|s| s.split_once(", ")) {
        Some((short, rest)) => (short.chars().next(), rest),
        None => (None, spelling),
    };
    let Some(long) = rest.strip_prefix("--") else {
        let arg = Arg::new(rest).help(text);
        return if rest == "ACTION" {
            arg.value_parser(PossibleValuesParser::new(["check", "show"]))
        } else {
            arg
        };
    };
    let (name, value) = long.split_once(' ').map_or((long, None), |(name, value)| (name, Some(value)));
    let mut arg = Arg::new(name).long(name).help(text);
    if let Some(short) = short {
        arg = arg.short(short);
    }
    match value {
        Some(value) => arg.value_name(value).value_hint(hint(value)),
        None => arg.action(ArgAction::SetTrue),
    }
}

fn hint(value: &str) -> clap::ValueHint {
    match value {
        "FILE" => clap::ValueHint::FilePath,
        "DIR" => clap::ValueHint::DirPath,
        "URL" => clap::ValueHint::Url,
        _ => clap::ValueHint::Unknown,
    }
}

/// prestage(8).
fn agent_page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let man = man(command.clone(), "8");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_options_section(&mut page)?;
    writeln!(page, ".SH VERBS")?;
    for verb in help::VERBS {
        let words = format!("{} {}", verb.name, verb.arguments);
        writeln!(
            page,
            ".TP\n.B {}\n{}. {} See\n.BR prestage-{} (8).",
            escape(words.trim_end()),
            escape(verb.summary),
            escape(verb.text),
            verb.name
        )?;
    }
    exit_status(&mut page)?;
    page.extend(FILES.as_bytes());
    Ok(page)
}

/// prestage-VERB(8).
fn verb_page(verb: &Command) -> io::Result<Vec<u8>> {
    // clap wants names that live for ever; this program does not.
    let name: &'static str = format!("prestage-{}", verb.get_name()).leak();
    let named = verb.clone().name(name).display_name(name).bin_name(format!("prestage {}", verb.get_name()));
    let mut page = Vec::new();
    let man = man(named.disable_help_flag(true), "8");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if verb.get_arguments().next().is_some() {
        man.render_options_section(&mut page)?;
    }
    writeln!(page, ".PP\nOptions of every verb, exit codes and files are in\n.BR prestage (8).")?;
    Ok(page)
}

fn exit_status(page: &mut Vec<u8>) -> io::Result<()> {
    writeln!(page, ".SH EXIT STATUS\nMonitoring may depend on these; they are never renumbered.")?;
    for (code, word, cure) in help::EXIT_CODES {
        writeln!(page, ".TP\n.B {code}\n{}. {}", escape(word), escape(cure))?;
    }
    Ok(())
}

/// A file of configuration, whose page is the file as it is shipped, which explains every key.
struct Configuration {
    /// The page's name, under which the file is found by whoever looks for a program's pages.
    page: &'static str,
    path: &'static str,
    of: &'static str,
    checked_by: &'static str,
    program: (&'static str, u8),
    shipped: &'static str,
}

const FILES_OF_CONFIGURATION: [Configuration; 2] = [
    Configuration {
        page: "agent.toml",
        path: "/etc/prestage/agent.toml, and drop\\-ins",
        of: "the Prestage agent",
        checked_by: ".BR prestage-config (8)\nchecks it and shows what counts.",
        program: ("prestage", 8),
        shipped: include_str!("../../packaging/config/agent.toml"),
    },
    Configuration {
        page: "prestage-fleet.toml",
        path: "/etc/prestage/fleet.toml",
        of: "the Prestage fleet server",
        checked_by: ".B prestage-fleet config check\nsays what is wrong with it, and\n.B prestage-fleet config show\nwhat counts.",
        program: ("prestage-fleet", 1),
        shipped: include_str!("../../packaging/config/fleet.toml"),
    },
];

impl Configuration {
    fn page(&self) -> String {
        let Configuration { page, path, of, checked_by, program: (program, section), shipped } = self;
        let lines: String = shipped.lines().map(|line| format!("{}\n", escape(line))).collect();
        let version = env!("CARGO_PKG_VERSION");
        format!(
            ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n.TH {page} 5 \"\" \"prestage {version}\"\n.SH NAME\n{page} \\- \
             configuration of {of}\n.SH SYNOPSIS\n{path}\n.SH DESCRIPTION\nThe file as it is shipped has every key, with \
             its default.\n{checked_by}\n.PP\n.nf\n{lines}.fi\n.SH SEE ALSO\n.BR {program} ({section})\n"
        )
    }
}

/// The pages of a program's command line: one for it, and one for each verb and all that are below it.
fn pages_of(command: &Command, words: &str, folder: &Path) -> io::Result<()> {
    let name: &'static str = words.replace(' ', "-").leak();
    let named = command.clone().name(name).display_name(name).bin_name(words);
    let mut page = Vec::new();
    man(named, "1").render(&mut page)?;
    fs::write(folder.join(format!("{name}.1")), page)?;
    for below in command.get_subcommands().filter(|c| c.get_name() != "help") {
        pages_of(below, &format!("{words} {}", below.get_name()), folder)?;
    }
    Ok(())
}

fn man(command: Command, section: &str) -> clap_mangen::Man {
    clap_mangen::Man::new(command.disable_help_subcommand(true))
        .section(section)
        .source(format!("prestage {}", env!("CARGO_PKG_VERSION")))
        .manual("Prestage")
}

/// For roff: backslashes, dashes that are to be copied, and letters that would begin a request.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_its_page_and_the_command_line_is_sound() {
        agent().debug_assert();
        let verbs: Vec<_> = agent().get_subcommands().map(|v| v.get_name().to_owned()).collect();
        assert_eq!(verbs, help::VERBS.iter().map(|v| v.name).collect::<Vec<_>>());
        let page = String::from_utf8(agent_page(&agent()).unwrap()).unwrap();
        for verb in verbs {
            assert!(page.contains(&format!("prestage-{verb}")), "{verb}");
        }
        assert!(page.contains(".SH EXIT STATUS") && page.contains(".SH FILES"));
    }
}
