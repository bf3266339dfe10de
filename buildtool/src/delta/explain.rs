//! What a bundle costs the fleet: for each package its size, that of its deltas, and how many nodes would use which.
//!
//! Pure, and an estimate: a node that has the version a delta starts from is taken to have its files as they were
//! installed; what it needs besides, its own package manager says.

use format::index::{Index, Member};
use serde_json::{Value, json};

use super::Fleet;
use super::bases::may_follow;
use crate::collect::version;

/// What is explained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explained {
    /// Of each package one line.
    pub packages: Vec<Line>,
    /// Nodes that were counted.
    pub nodes: usize,
    /// Bytes that they fetch if every package comes whole.
    pub whole: u64,
    /// Bytes with deltas.
    pub expected: u64,
}

/// One package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its file.
    pub name: String,
    /// Size of it whole.
    pub whole: u64,
    /// Each base and the size of the patch from it.
    pub deltas: Vec<(String, u64)>,
    /// Nodes that need it.
    pub needed: usize,
    /// Nodes that get it by a delta.
    pub by_delta: usize,
}

/// Explains `index` for these nodes.
pub fn explain(index: &Index, fleet: &Fleet) -> Explained {
    let mut out = Explained { nodes: fleet.nodes.len(), ..Explained::default() };
    for member in index.packages() {
        let Some(package) = &member.package else { continue };
        let (name, arch, full) = (&package.name, &package.arch, package.full_version());
        let mut line = Line {
            name: format!("{name} {full} {arch}"),
            whole: member.size,
            deltas: member
                .deltas()
                .map(|d| (format!("{} {}", d.base.name, d.base.version), d.size))
                .collect(),
            needed: 0,
            by_delta: 0,
        };
        for node in &fleet.nodes {
            let installed = node.get(&(name.clone(), arch.clone()));
            let is_needed = match installed {
                Some(installed) => version::compare(installed, &full).is_lt(),
                // What is called after its version comes new where another of its kind is.
                None => node.keys().any(|(n, a)| n != name && may_follow((name, arch), (n, a))),
            };
            if !is_needed {
                continue;
            }
            line.needed += 1;
            out.whole += member.size;
            out.expected += match cheapest(member, node) {
                Some(size) => {
                    line.by_delta += 1;
                    size
                }
                None => member.size,
            };
        }
        out.packages.push(line);
    }
    out
}

fn cheapest(member: &Member, node: &std::collections::BTreeMap<(String, String), String>) -> Option<u64> {
    let has = |base: &format::index::DeltaBase| {
        node.get(&(base.name.clone(), base.arch.clone())) == Some(&base.version)
    };
    member.deltas().filter(|delta| has(&delta.base)).map(|delta| delta.size).min()
}

impl Explained {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut out =
            vec![format!("{:>12} {:>12} {:>7} {:>9}  package", "whole", "delta", "nodes", "by delta")];
        for line in &self.packages {
            let delta = line.deltas.iter().map(|(_, size)| *size).min();
            out.push(format!(
                "{:>12} {:>12} {:>7} {:>9}  {}{}",
                line.whole,
                delta.map_or_else(|| "-".into(), |size| size.to_string()),
                line.needed,
                line.by_delta,
                line.name,
                line.deltas.iter().map(|(base, _)| format!(" < {base}")).collect::<String>()
            ));
        }
        let whole: u64 = self.packages.iter().map(|line| line.whole).sum();
        let patches: u64 = self.packages.iter().flat_map(|line| &line.deltas).map(|(_, size)| size).sum();
        out.push(format!("all packages whole: {whole} bytes; all patches: {patches} bytes"));
        if self.nodes > 0 {
            let percent = self.expected as f64 * 100.0 / self.whole.max(1) as f64;
            out.push(format!(
                "{} nodes fetch {} bytes of packages instead of {} ({percent:.1} %)",
                self.nodes, self.expected, self.whole
            ));
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let line = |line: &Line| {
            let deltas: Vec<Value> =
                line.deltas.iter().map(|(base, size)| json!({"base": base, "size": size})).collect();
            json!({"package": line.name, "whole": line.whole, "deltas": deltas, "nodes": line.needed, "byDelta": line.by_delta})
        };
        json!({
            "nodes": self.nodes,
            "whole": self.whole,
            "expected": self.expected,
            "packages": self.packages.iter().map(line).collect::<Vec<_>>(),
        })
    }
}
