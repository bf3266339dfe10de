//! What a person sees while long work goes on: a bar on a terminal, plain lines elsewhere, nothing with `--quiet`.
//!
//! All of it on stderr: standard output belongs to the result.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bars.
    Terminal,
    /// One line for each thing begun.
    Lines,
    /// Nothing.
    Quiet,
}

impl Progress {
    /// What fits where stderr goes.
    pub fn detect(quiet: bool) -> Self {
        if quiet {
            Progress::Quiet
        } else if std::io::stderr().is_terminal() {
            Progress::Terminal
        } else {
            Progress::Lines
        }
    }

    /// Says one thing.
    pub fn say(self, text: &str) {
        if self != Progress::Quiet {
            eprintln!("{text}");
        }
    }

    /// Begins work on `total` bytes.
    pub fn bytes(self, what: &str, total: u64) -> Bar {
        self.bar(what, total, "{msg:12} [{bar:32}] {bytes}/{total_bytes} {eta}")
    }

    /// Begins work on `total` things.
    pub fn items(self, what: &str, total: u64) -> Bar {
        self.bar(what, total, "{msg:12} [{bar:32}] {pos}/{len} {eta}")
    }

    fn bar(self, what: &str, total: u64, template: &str) -> Bar {
        if self == Progress::Lines {
            eprintln!("{what} ...");
        }
        if self != Progress::Terminal {
            return Bar(None);
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        // The template is a constant of this file; were it wrong, the default style does as well.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Bar(Some(bar))
    }
}

/// Work that goes on.
pub struct Bar(Option<ProgressBar>);

impl Bar {
    /// So much more is done.
    pub fn add(&self, n: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(n);
        }
    }

    /// All is done; the bar goes away.
    pub fn done(self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
