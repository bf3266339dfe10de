//! How many nodes a policy is for: a number that somebody gave, or the fleet's own list of nodes and labels.
//!
//! The list comes from whoever knows the fleet (a CMDB, Ansible's inventory, the fleet server) and is believed: it decides
//! how large batches are and what `policy diff` says, never what a node may install.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use format::name::NodeId;
use format::policy::{LabelKey, LabelValue, Selector};
use format::rollout::MAX_NODES;
use serde_json::Value;

use crate::error::{Error, Kind, Result};

/// The longest list, in bytes: a million nodes with some labels each.
const MAX_FILE: u64 = 256 * 1024 * 1024;

/// The label that says at which site a node is.
const SITE: &str = "site";

/// Where a node's name stands, in the order in which it is looked for.
const NAMES: [&str; 4] = ["node", "name", "id", "hostname"];

/// Labels of a node.
pub type Labels = BTreeMap<String, String>;

/// What is known of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fleet {
    /// Each policy has so many nodes.
    Count(u64),
    /// These nodes, with their labels.
    Nodes(Vec<(NodeId, Labels)>),
}

impl Fleet {
    /// What the command line says; nothing, if it says nothing.
    ///
    /// # Errors
    /// If the list cannot be read.
    pub fn read(nodes: Option<u64>, inventory: Option<&PathBuf>) -> Result<Option<Fleet>> {
        match (nodes, inventory) {
            (_, Some(file)) => read_file(file).map(Some),
            (Some(count), None) => Ok(Some(Fleet::Count(count))),
            (None, None) => Ok(None),
        }
    }

    /// The nodes that a selector matches; none, where only their number is known.
    pub fn matching(&self, selector: &Selector) -> Option<Vec<&(NodeId, Labels)>> {
        match self {
            Fleet::Count(_) => None,
            Fleet::Nodes(nodes) => {
                Some(nodes.iter().filter(|(_, labels)| selector.matches(labels)).collect())
            }
        }
    }

    /// The most of these nodes that are at one site; a node without the label `site` is at none.
    pub fn largest_site(nodes: &[&(NodeId, Labels)]) -> u64 {
        let mut sites: BTreeMap<&str, u64> = BTreeMap::new();
        for site in nodes.iter().filter_map(|(_, labels)| labels.get(SITE)) {
            *sites.entry(site).or_default() += 1;
        }
        sites.into_values().max().unwrap_or(0)
    }
}

fn read_file(file: &Path) -> Result<Fleet> {
    let what = "the inventory cannot be used";
    let wrong = |why: String| {
        Error::new(Kind::Config, what, format!("{}: {why}", file.display())).cure(
            "it is JSON, [{\"node\": \"till-1\", \"labels\": {\"role\": \"till\"}}], or CSV with the columns node and one \
             for each label",
        )
    };
    let bytes = host::file::read_limited(file, MAX_FILE).map_err(|e| Error::io(what, &e))?;
    let bytes =
        bytes.ok_or_else(|| Error::new(Kind::Io, what, format!("{}: no such file", file.display())))?;
    let text = String::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
    let is_json = text.trim_start().starts_with(['[', '{']);
    let nodes = if is_json { from_json(&text) } else { from_csv(&text) }.map_err(wrong)?;
    let mut seen = BTreeSet::new();
    if let Some((twice, _)) = nodes.iter().find(|(node, _)| !seen.insert(node)) {
        return Err(wrong(format!("the node {twice} stands there twice")));
    }
    match u64::try_from(nodes.len()) {
        Ok(0) => Err(wrong("there is no node in it".into())),
        Ok(n) if n <= MAX_NODES => Ok(Fleet::Nodes(nodes)),
        _ => Err(wrong(format!("more than {MAX_NODES} nodes"))),
    }
}

/// A list of nodes, or an object in which one stands under `nodes` or `items`.
fn from_json(text: &str) -> std::result::Result<Vec<(NodeId, Labels)>, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let list = match &value {
        Value::Object(members) => ["nodes", "items"].iter().find_map(|key| members.get(*key)),
        other => Some(other),
    };
    let list = list.and_then(Value::as_array).ok_or("there is no list of nodes")?;
    list.iter()
        .enumerate()
        .map(|(n, entry)| json_node(entry).map_err(|why| format!("entry {n}: {why}")))
        .collect()
}

fn json_node(entry: &Value) -> std::result::Result<(NodeId, Labels), String> {
    let name = NAMES.iter().find_map(|key| entry.get(key)?.as_str()).ok_or("it has no \"node\"")?;
    let mut labels = Labels::new();
    // What the fleet server knows by itself stands beside the labels.
    let beside = entry.get(SITE).and_then(Value::as_str).map(|site| (SITE, site));
    let given = entry.get("labels").and_then(Value::as_object).into_iter().flatten();
    for (key, value) in given {
        let value =
            value.as_str().ok_or_else(|| format!("the label {key:?} is no text: write it in quotes"))?;
        put(&mut labels, key, value)?;
    }
    if let Some((key, value)) = beside
        && !labels.contains_key(key)
    {
        put(&mut labels, key, value)?;
    }
    Ok((name.parse().map_err(|e| format!("{e}"))?, labels))
}

/// Comma-separated values (RFC 4180). Neither a node's name nor a label can hold a comma, a quote or a line end, so quotes
/// can only be around a whole value. An empty value is no label.
fn from_csv(text: &str) -> std::result::Result<Vec<(NodeId, Labels)>, String> {
    let cell = |cell: &str| -> String {
        let cell = cell.trim();
        cell.strip_prefix('"').and_then(|c| c.strip_suffix('"')).unwrap_or(cell).to_owned()
    };
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let (_, head) = lines.next().ok_or("it is empty")?;
    let columns: Vec<String> = head.split(',').map(cell).collect();
    let name = NAMES
        .iter()
        .find_map(|name| columns.iter().position(|c| c.eq_ignore_ascii_case(name)))
        .ok_or("its first line names no column node")?;
    let mut nodes = Vec::new();
    for (n, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |why: String| format!("line {}: {why}", n + 1);
        let cells: Vec<String> = line.split(',').map(cell).collect();
        if cells.len() != columns.len() {
            return Err(wrong(format!("{} values for {} columns", cells.len(), columns.len())));
        }
        let mut labels = Labels::new();
        for (column, value) in
            columns.iter().zip(&cells).enumerate().filter(|(n, _)| *n != name).map(|(_, c)| c)
        {
            if !value.is_empty() {
                put(&mut labels, column, value).map_err(wrong)?;
            }
        }
        nodes.push((cells[name].parse().map_err(|e| wrong(format!("{e}")))?, labels));
    }
    Ok(nodes)
}

/// A label that no selector could name is a mistake of whoever made the list.
fn put(labels: &mut Labels, key: &str, value: &str) -> std::result::Result<(), String> {
    key.parse::<LabelKey>().map_err(|e| e.to_string())?;
    value.parse::<LabelValue>().map_err(|e| format!("label {key}: {e}"))?;
    labels.insert(key.to_owned(), value.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn a_list_of_nodes_is_read_from_json_and_from_csv() {
        let wanted = vec![
            ("till-1".parse().unwrap(), labels(&[("role", "till"), ("site", "0815")])),
            ("kiosk-9".parse().unwrap(), labels(&[("role", "kiosk")])),
        ];
        let json = r#"[{"node":"till-1","labels":{"role":"till","site":"0815"}},{"node":"kiosk-9","labels":{"role":"kiosk"}}]"#;
        assert_eq!(from_json(json).unwrap(), wanted);
        let rows = r#"{"items":[{"name":"till-1","site":"0815","labels":{"role":"till"}},{"id":"kiosk-9","labels":{"role":"kiosk"}}]}"#;
        assert_eq!(from_json(rows).unwrap(), wanted);
        assert_eq!(from_csv("node,role,site\ntill-1,till,0815\n\nkiosk-9,\"kiosk\",\n").unwrap(), wanted);
        assert_eq!(from_csv("\u{feff}Role,Name\r\n").unwrap(), []);
    }

    #[test]
    fn what_is_no_list_of_nodes_is_said_with_its_line() {
        for (text, why) in [
            ("", "empty"),
            ("role,site\n", "no column node"),
            ("node,role\na,till,x\n", "line 2: 3 values for 2 columns"),
            ("node,role\n../a,till\n", "line 2"),
            ("node,role\na,a till\n", "line 2: label role"),
            ("node,a role\na,till\n", "label key"),
        ] {
            let found = from_csv(text).unwrap_err();
            assert!(found.contains(why), "{text:?}: {found}");
        }
        for (text, why) in [
            ("[", "EOF"),
            ("{}", "no list"),
            (r#"[{"labels":{}}]"#, "entry 0: it has no \"node\""),
            (r#"[{"node":"a","labels":{"n":1}}]"#, "no text"),
        ] {
            let found = from_json(text).unwrap_err();
            assert!(found.contains(why), "{text:?}: {found}");
        }
    }

    #[test]
    fn a_node_that_stands_there_twice_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nodes.csv");
        std::fs::write(&file, "node\na\nb\na\n").unwrap();
        assert!(read_file(&file).unwrap_err().to_string().contains("the node a stands there twice"));
        std::fs::write(&file, "node\n").unwrap();
        assert!(read_file(&file).unwrap_err().to_string().contains("no node"));
    }
}
