//! The compliance question: which bundle, packages and advisories had node X, or every node, on date D. Asked here page by
//! page, or written whole as CSV or NDJSON, here and at the command line.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::answer::{Query, json, next};
use super::nodes::{known, packages};
use super::problem::{Answer, Problem};
use super::times;
use crate::app::App;
use crate::store::compliance::{self, Asked, Line};
use crate::store::sql::Sql;
use crate::store::{Result as StoreResult, Store, rollouts};

/// Lines that are asked for at a time.
const PIECE: i64 = 500;

/// Pieces that wait for a slow reader.
const AHEAD: usize = 4;

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A header and a line for each node.
    Csv,
    /// A JSON object on a line for each node.
    Ndjson,
}

/// What bundles and installed sets were looked up for the lines before.
#[derive(Default)]
struct Looked {
    advisories: HashMap<String, Option<Vec<Value>>>,
    inventories: HashMap<String, Option<Vec<Value>>>,
    /// Of a bundle, those that concern nodes with an installed set: most nodes of a fleet have the same.
    concerning: HashMap<(String, String), Option<Vec<Value>>>,
}

/// Sets of packages, and what concerns them, that are remembered while an answer is written.
const MAX_LOOKED: usize = 200;

impl Looked {
    fn inventory(&mut self, sql: &mut dyn Sql, id: &str) -> StoreResult<Option<Vec<Value>>> {
        if let Some(known) = self.inventories.get(id) {
            return Ok(known.clone());
        }
        let found = compliance::inventory(sql, id)?.map(|text| packages(&text));
        if self.inventories.len() >= MAX_LOOKED {
            self.inventories.clear();
        }
        self.inventories.insert(id.to_owned(), found.clone());
        Ok(found)
    }

    fn advisories(&mut self, sql: &mut dyn Sql, id: &str) -> StoreResult<Option<Vec<Value>>> {
        if let Some(known) = self.advisories.get(id) {
            return Ok(known.clone());
        }
        let found = rollouts::advisories(sql, id)?.and_then(|text| serde_json::from_str(&text).ok());
        self.advisories.insert(id.to_owned(), found.clone());
        Ok(found)
    }

    /// The advisories that concern a node with this bundle and installed set.
    fn concerning(
        &mut self,
        sql: &mut dyn Sql,
        had: &compliance::Install,
    ) -> StoreResult<Option<Vec<Value>>> {
        let key = (had.index.clone(), had.inventory.clone());
        if let Some(known) = self.concerning.get(&key) {
            return Ok(known.clone());
        }
        let installed = self.inventory(sql, &had.inventory)?;
        let found = self.advisories(sql, &had.index)?.map(|all| relevant(all, installed.as_deref()));
        if self.concerning.len() >= MAX_LOOKED {
            self.concerning.clear();
        }
        self.concerning.insert(key, found.clone());
        Ok(found)
    }

    /// A line as it is answered.
    fn answer(&mut self, sql: &mut dyn Sql, line: Line, with_packages: bool) -> StoreResult<Value> {
        let had = line.had;
        let (mut advisories, mut installed) = (None, None);
        if let Some(had) = &had {
            advisories = self.concerning(sql, had)?;
            if with_packages {
                installed = self.inventory(sql, &had.inventory)?;
            }
        }
        let text =
            |pick: fn(&compliance::Install) -> &String| had.as_ref().map(pick).filter(|it| !it.is_empty());
        Ok(json!({
            "node": line.node,
            "site": line.site,
            "variant": line.variant,
            "bundle": text(|it| &it.bundle),
            "cycle": text(|it| &it.cycle),
            "index": text(|it| &it.index),
            "since": had.as_ref().map(|it| times::text(it.since)),
            "inventory": text(|it| &it.inventory),
            "advisories": advisories,
            "packages": installed,
            "outcome": Some(line.outcome).filter(|it| !it.is_empty()),
            "outcomeAt": times::maybe(line.outcome_at),
        }))
    }
}

/// The advisories of packages that the node has: of what it does not have, it was never in danger. Without a list of
/// packages, all.
fn relevant(all: Vec<Value>, installed: Option<&[Value]>) -> Vec<Value> {
    let names: Option<BTreeSet<&str>> =
        installed.map(|packages| packages.iter().filter_map(|package| package["name"].as_str()).collect());
    let concerns = |advisory: &Value| {
        let Some(names) = &names else { return true };
        let of = advisory["packages"].as_array();
        of.is_none_or(|of| of.iter().filter_map(Value::as_str).any(|name| names.contains(name)))
    };
    all.into_iter()
        .filter(concerns)
        .map(|it| json!({"id": it["id"], "severity": it["severity"], "source": it["source"]}))
        .collect()
}

/// `GET /api/v1/compliance`
pub async fn compliance(State(app): State<App>, headers: HeaderMap, query: Query) -> Answer {
    query.only(&["at", "node", "format", "packages", "limit", "cursor"], &["label"])?;
    let at = query.at(app.now())?;
    let with_packages = query.flag("packages")?;
    let limit = query.limit()?;
    let after: Option<String> = query.cursor()?;
    let asked = Asked {
        at,
        node: query.text("node").map(known).transpose()?.map(str::to_owned),
        labels: query.labels()?,
        after: after.unwrap_or_default(),
        limit,
    };
    let format = match query.text("format") {
        None | Some("json") => {
            let items = app
                .store
                .read(move |sql| {
                    let mut looked = Looked::default();
                    let lines = compliance::at(sql, &asked)?;
                    lines
                        .into_iter()
                        .map(|line| looked.answer(sql, line, with_packages))
                        .collect::<StoreResult<Vec<_>>>()
                })
                .await?;
            let behind = next(items.len(), limit, || items.last().map(|it| it["node"].clone()));
            return json(&headers, &json!({"at": times::text(at), "items": items, "next": behind}));
        }
        Some("csv") => Format::Csv,
        Some("ndjson") => Format::Ndjson,
        Some(other) => {
            return Err(Problem::bad_request(format!("format={other:?} is not json, csv or ndjson")));
        }
    };
    let kind = match format {
        Format::Csv => "text/csv; charset=utf-8",
        Format::Ndjson => "application/x-ndjson",
    };
    let (sender, receiver) = mpsc::channel::<io::Result<Vec<u8>>>(AHEAD);
    let store = app.store.clone();
    tokio::task::spawn_blocking(move || {
        let mut out = Pieces(sender.clone());
        if let Err(why) = export(&store, asked, format, with_packages, &mut out) {
            // The connection is broken off: nobody shall take half of it for the whole.
            log::warn!("a compliance export broke off: {why}");
            let _ = sender.blocking_send(Err(why));
        }
    });
    let body = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let name = format!(
        "attachment; filename=\"compliance-{}.{}\"",
        &times::text(at)[..10],
        match format {
            Format::Csv => "csv",
            Format::Ndjson => "ndjson",
        }
    );
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(body)).into_response())
}

struct Pieces(mpsc::Sender<io::Result<Vec<u8>>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(bytes.to_vec())).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the answer whole, a piece at a time. Blocks.
///
/// # Errors
/// If the database is away, or `out` does not take it.
pub fn export(
    store: &Store,
    mut asked: Asked,
    format: Format,
    with_packages: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut looked = Looked::default();
    asked.limit = PIECE;
    if format == Format::Csv {
        out.write_all(b"at,node,site,variant,bundle,cycle,since,inventory,advisories,outcome,outcomeAt\r\n")?;
    }
    loop {
        let lines = store
            .read_now(|sql| {
                let lines = compliance::at(sql, &asked)?;
                lines
                    .into_iter()
                    .map(|line| looked.answer(sql, line, with_packages))
                    .collect::<StoreResult<Vec<_>>>()
            })
            .map_err(io::Error::other)?;
        let mut piece = Vec::new();
        for line in &lines {
            match format {
                Format::Csv => csv(&mut piece, asked.at, line),
                Format::Ndjson => {
                    serde_json::to_writer(&mut piece, line)?;
                    piece.push(b'\n');
                }
            }
        }
        if !piece.is_empty() {
            out.write_all(&piece)?;
        }
        match lines.last().and_then(|line| line["node"].as_str()) {
            Some(node) if lines.len() as i64 == PIECE => asked.after = node.to_owned(),
            _ => return out.flush(),
        }
    }
}

fn csv(out: &mut Vec<u8>, at: i64, line: &Value) {
    let advisories = line["advisories"]
        .as_array()
        .map(|all| all.iter().filter_map(|it| it["id"].as_str()).collect::<Vec<_>>().join(" "));
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let fields = [
        times::text(at),
        text("node"),
        text("site"),
        text("variant"),
        text("bundle"),
        text("cycle"),
        text("since"),
        text("inventory"),
        advisories.unwrap_or_default(),
        text("outcome"),
        text("outcomeAt"),
    ];
    let fields: Vec<String> = fields.iter().map(|field| csv_field(field)).collect();
    out.extend_from_slice(fields.join(",").as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// RFC 4180; and what a spreadsheet would take for a formula is text.
fn csv_field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_neither_two_nor_a_formula() {
        assert_eq!(csv_field("plain"), "plain");
        assert_eq!(csv_field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(csv_field("=HYPERLINK(1)"), "'=HYPERLINK(1)");
    }

    #[test]
    fn advisories_are_those_of_packages_that_the_node_has() {
        let all = vec![
            json!({"id": "CVE-1", "severity": "high", "source": "openssl", "packages": ["libssl3"]}),
            json!({"id": "CVE-2", "severity": "low", "source": "vim", "packages": ["vim"]}),
        ];
        let installed = [json!({"name": "libssl3"})];
        assert_eq!(relevant(all.clone(), Some(&installed)).len(), 1);
        assert_eq!(relevant(all, None).len(), 2);
    }
}
