//! The node table, filtered, sorted and paged by the database, and what there is of one node.
//!
//! A page begins behind the last row of the one before, found by an index: the thousandth page costs what the first one does.

use super::node_state::NodeState;
use super::sql::{Result, Row, Sql, Value, first};

/// What a table may be sorted by. Each is a column, and the id behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// By id.
    Name,
    /// By state: the effective one.
    State,
    /// By site.
    Site,
    /// By variant.
    Variant,
    /// By the version of the installed bundle.
    Bundle,
    /// By when it was heard of last.
    LastSeen,
    /// By since when it fails; those that do not are first, or last.
    FailingSince,
}

impl Sort {
    /// As it is asked for: `-lastSeen`; and whether it is the other way round.
    pub fn parse(text: &str) -> Option<(Sort, bool)> {
        let (down, name) = match text.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let sort = match name {
            "name" => Sort::Name,
            "state" => Sort::State,
            "site" => Sort::Site,
            "variant" => Sort::Variant,
            "bundle" => Sort::Bundle,
            "lastSeen" => Sort::LastSeen,
            "failingSince" => Sort::FailingSince,
            _ => return None,
        };
        Some((sort, down))
    }

    fn is_number(self) -> bool {
        matches!(self, Sort::LastSeen | Sort::FailingSince)
    }

    fn column(self, silent_before: i64) -> String {
        match self {
            Sort::Name => "n.id".into(),
            Sort::State => effective_state(silent_before),
            Sort::Site => "n.site".into(),
            Sort::Variant => "n.variant".into(),
            Sort::Bundle => "n.bundle".into(),
            Sort::LastSeen => "n.last_seen".into(),
            Sort::FailingSince => "n.failing_since".into(),
        }
    }
}

/// The state that a node counts as: what it said, unless it never said anything, or not since then. An expression over `n`.
pub fn effective_state(silent_before: i64) -> String {
    format!(
        "CASE WHEN n.last_seen = 0 THEN 'never-reported' WHEN n.last_seen < {silent_before} THEN 'silent' \
         ELSE n.state END"
    )
}

/// Which nodes.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Effective states, any of them.
    pub states: Vec<String>,
    /// Equal to these, by column.
    pub equal: Vec<(&'static str, String)>,
    /// All of these labels.
    pub labels: Vec<(String, String)>,
    /// In the id or the summary.
    pub text: Option<String>,
    /// Whoever was not heard of since then is silent.
    pub silent_before: i64,
    /// How they are sorted, and whether the other way round.
    pub sort: Option<(Sort, bool)>,
    /// Behind this one: the value it is sorted by, and the id.
    pub behind: Option<(String, String)>,
    /// So many.
    pub limit: i64,
}

/// A page, and how many nodes there are.
#[derive(Debug)]
pub struct Page {
    /// Each with the value that it is sorted by.
    pub rows: Vec<(NodeState, String)>,
    /// All that were asked for.
    pub total: i64,
}

/// Asks for nodes whose key counts.
///
/// # Errors
/// If the database is away or refuses.
pub fn list(sql: &mut dyn Sql, asked: &Asked) -> Result<Page> {
    let (filter, mut values) = filter(sql, asked);
    let total = first(sql, &format!("SELECT COUNT(*) FROM nodes n WHERE {filter}"), &values)?;
    let total = total.map_or(Ok(0), |row| row.int(0))?;

    let (sort, down) = asked.sort.unwrap_or((Sort::Name, false));
    let column = sort.column(asked.silent_before);
    let (than, direction) = if down { ("<", " DESC") } else { (">", "") };
    let mut statement = format!(
        "SELECT {}, {column} FROM nodes n WHERE {filter}",
        NodeState::columns().split(", ").map(|name| format!("n.{name}")).collect::<Vec<_>>().join(", ")
    );
    if let Some((value, id)) = &asked.behind {
        let value =
            if sort.is_number() { Value::Int(value.parse().unwrap_or_default()) } else { Value::from(value) };
        values.extend([value, Value::from(id)]);
        let (value, id) = (values.len() - 1, values.len());
        statement += &format!(" AND ({column}, n.id) {than} (${value}, ${id})");
    }
    values.push(asked.limit.into());
    statement += &format!(" ORDER BY {column}{direction}, n.id{direction} LIMIT ${}", values.len());
    let row = |mut row: Row| {
        let state = NodeState::read(&mut row)?;
        let value = match sort.is_number() {
            true => row.int(NodeState::WIDTH)?.to_string(),
            false => row.text(NodeState::WIDTH)?,
        };
        Ok((state, value))
    };
    let rows = sql.query(&statement, &values)?.into_iter().map(row).collect::<Result<_>>()?;
    Ok(Page { rows, total })
}

fn filter<'a>(sql: &dyn Sql, asked: &'a Asked) -> (String, Vec<Value<'a>>) {
    let mut out = String::from("n.key_state = 'active'");
    let mut values: Vec<Value<'_>> = Vec::new();
    if !asked.states.is_empty() {
        let from = values.len() + 1;
        values.extend(asked.states.iter().map(Value::from));
        let places = super::sql::places(from, asked.states.len());
        out += &format!(" AND {} IN ({places})", effective_state(asked.silent_before));
    }
    for (column, wanted) in &asked.equal {
        values.push(wanted.into());
        out += &format!(" AND n.{column} = ${}", values.len());
    }
    for (name, value) in &asked.labels {
        values.extend([Value::from(name), Value::from(value)]);
        let (name, value) = (values.len() - 1, values.len());
        out += &format!(
            " AND n.id IN (SELECT l.node FROM node_labels l WHERE l.name = ${name} AND l.value = ${value})"
        );
    }
    if let Some(text) = &asked.text {
        // What means something in a pattern means itself.
        let escaped = text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
        values.push(format!("%{escaped}%").into());
        let (like, at) = (sql.dialect().like(), values.len());
        out += &format!(r" AND (n.id {like} ${at} ESCAPE '\' OR n.summary {like} ${at} ESCAPE '\')");
    }
    (out, values)
}

/// One node, whatever became of its key.
///
/// # Errors
/// If the database is away or refuses.
pub fn one(sql: &mut dyn Sql, id: &str) -> Result<Option<NodeState>> {
    let statement = format!("SELECT {} FROM nodes WHERE id = $1", NodeState::columns());
    first(sql, &statement, &[id.into()])?.map(|mut row| NodeState::read(&mut row)).transpose()
}

/// Its latest status, as it signed it.
///
/// # Errors
/// If the database is away or refuses.
pub fn status(sql: &mut dyn Sql, id: &str) -> Result<Option<String>> {
    first(sql, "SELECT body FROM statuses WHERE node = $1", &[id.into()])?
        .map(|mut row| row.text(0))
        .transpose()
}

/// A report as it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: String,
    /// When it happened.
    pub at: i64,
    /// When it came.
    pub received: i64,
    /// The canonical form that was signed.
    pub body: String,
}

/// Its reports, newest first, behind the one of this time and id.
///
/// # Errors
/// If the database is away or refuses.
pub fn reports(
    sql: &mut dyn Sql,
    id: &str,
    behind: Option<(i64, String)>,
    limit: i64,
) -> Result<Vec<Stored>> {
    let (at, report) = behind.unwrap_or((i64::MAX, String::new()));
    let rows = sql.query(
        "SELECT id, at, received, body FROM reports WHERE node = $1 AND (at < $2 OR (at = $2 AND id < $3))
         ORDER BY at DESC, id DESC LIMIT $4",
        &[id.into(), at.into(), report.into(), limit.into()],
    )?;
    let stored = |mut row: Row| {
        Ok(Stored { id: row.text(0)?, at: row.int(1)?, received: row.int(2)?, body: row.text(3)? })
    };
    rows.into_iter().map(stored).collect()
}

/// Nodes that changed after this millisecond, in the order of their change, and the last of these moments.
///
/// # Errors
/// If the database is away or refuses.
pub fn changed_since(sql: &mut dyn Sql, after: i64, limit: i64) -> Result<(Vec<String>, i64)> {
    let rows = sql.query(
        "SELECT id, changed FROM nodes WHERE changed > $1 ORDER BY changed LIMIT $2",
        &[after.into(), limit.into()],
    )?;
    let mut last = after;
    let mut ids = Vec::new();
    for mut row in rows {
        last = last.max(row.int(1)?);
        ids.push(row.text(0)?);
    }
    Ok((ids, last))
}
