//! What the two databases have in common: a statement, values in, rows out, and transactions.
//!
//! Every statement of this program is written once and runs on both. So it keeps to what both know: `$1` for values,
//! `BIGINT` and `TEXT`, `ON CONFLICT`, `RETURNING`, common table expressions. Sums are cast to `BIGINT`, for PostgreSQL makes
//! `NUMERIC` of them. What differs stands in [`Dialect`].

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;

/// A value that goes into a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// A whole number; times are seconds since 1970, yes and no are 1 and 0.
    Int(i64),
    /// Text without NUL, which PostgreSQL cannot hold: whoever takes text from outside refuses it.
    Text(Cow<'a, str>),
}

impl From<i64> for Value<'_> {
    fn from(n: i64) -> Self {
        Value::Int(n)
    }
}

impl From<bool> for Value<'_> {
    fn from(yes: bool) -> Self {
        Value::Int(i64::from(yes))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A value that comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A whole number.
    Int(i64),
    /// Text.
    Text(String),
}

/// A row that comes out; each of its columns is taken once.
#[derive(Clone, Debug)]
pub struct Row(pub Vec<Cell>);

impl Row {
    /// A number; 0 for nothing.
    ///
    /// # Errors
    /// If the column is none: a mistake of this program.
    pub fn int(&self, column: usize) -> Result<i64> {
        match self.0.get(column) {
            Some(Cell::Int(n)) => Ok(*n),
            Some(Cell::Null) => Ok(0),
            other => Err(wrong(column, other)),
        }
    }

    /// A number, or nothing.
    ///
    /// # Errors
    /// As [`Row::int`].
    pub fn maybe_int(&self, column: usize) -> Result<Option<i64>> {
        match self.0.get(column) {
            Some(Cell::Null) => Ok(None),
            _ => self.int(column).map(Some),
        }
    }

    /// Text, which is taken out; empty for nothing.
    ///
    /// # Errors
    /// As [`Row::int`].
    pub fn text(&mut self, column: usize) -> Result<String> {
        match self.0.get_mut(column) {
            Some(Cell::Text(text)) => Ok(std::mem::take(text)),
            Some(Cell::Null) => Ok(String::new()),
            other => Err(wrong(column, other.map(|cell| &*cell))),
        }
    }

    /// Text that is not empty, which is taken out, or nothing.
    ///
    /// # Errors
    /// As [`Row::int`].
    pub fn maybe_text(&mut self, column: usize) -> Result<Option<String>> {
        Ok(Some(self.text(column)?).filter(|text| !text.is_empty()))
    }
}

fn wrong(column: usize, cell: Option<&Cell>) -> StoreError {
    StoreError::Broken(format!("column {column} is {cell:?}"))
}

/// Why the database did not do something.
#[derive(Debug)]
pub enum StoreError {
    /// It is not there, or not there any more: another try may succeed.
    Away(String),
    /// It refused the statement, or has something that this program did not write.
    Broken(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Away(why) => write!(f, "the database is not available: {why}"),
            StoreError::Broken(why) => write!(f, "the database refuses: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// What everything here returns.
pub type Result<T> = std::result::Result<T, StoreError>;

/// What the databases say in other words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL, and what speaks as it does.
    Postgres,
}

impl Dialect {
    /// Behind a SELECT in a transaction that will write those rows. SQLite has one writer at a time anyway.
    pub fn for_update(self) -> &'static str {
        match self {
            Dialect::Sqlite => "",
            Dialect::Postgres => " FOR UPDATE",
        }
    }

    /// A column that numbers the rows.
    pub fn serial(self) -> &'static str {
        match self {
            Dialect::Sqlite => "INTEGER PRIMARY KEY AUTOINCREMENT",
            Dialect::Postgres => "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        }
    }

    /// `LIKE`, whatever the case of ASCII letters. SQLite's own is that.
    pub fn like(self) -> &'static str {
        match self {
            Dialect::Sqlite => "LIKE",
            Dialect::Postgres => "ILIKE",
        }
    }
}

/// A connection, in a transaction.
pub trait Sql {
    /// The rows of a query, or of what a statement returns.
    ///
    /// # Errors
    /// If the database is away or refuses.
    fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>>;

    /// How many rows a statement changed.
    ///
    /// # Errors
    /// If the database is away or refuses.
    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64>;

    /// Several statements without values.
    ///
    /// # Errors
    /// If the database is away or refuses.
    fn batch(&mut self, sql: &str) -> Result<()>;

    /// Which database it is.
    fn dialect(&self) -> Dialect;
}

/// The first row of a query, if there is one.
///
/// # Errors
/// If the database is away or refuses.
pub fn first(sql: &mut dyn Sql, statement: &str, values: &[Value<'_>]) -> Result<Option<Row>> {
    Ok(sql.query(statement, values)?.into_iter().next())
}

/// Rows go in many at a time: each statement costs a way to the database and back. Few different lengths, so that each
/// statement is prepared once.
const LENGTHS: [usize; 3] = [100, 10, 1];

/// Cuts `rows` into pieces of the lengths that statements are prepared for.
pub fn pieces<T>(mut rows: &[T]) -> Vec<&[T]> {
    let mut out = Vec::new();
    for length in LENGTHS {
        while rows.len() >= length {
            let (piece, rest) = rows.split_at(length);
            out.push(piece);
            rows = rest;
        }
    }
    out
}

/// `(CAST($1 AS BIGINT),CAST($2 AS TEXT)),…`: `rows` rows of columns of these types.
pub fn tuples(types: &[&str], rows: usize) -> String {
    let mut out = String::new();
    for row in 0..rows {
        out.push_str(if row > 0 { ",(" } else { "(" });
        for (column, kind) in types.iter().enumerate() {
            let comma = if column > 0 { "," } else { "" };
            // Writing to a String cannot fail.
            let _ = write!(out, "{comma}CAST(${} AS {kind})", row * types.len() + column + 1);
        }
        out.push(')');
    }
    out
}

/// `$FROM,$FROM+1,…`: a list of `count` values, the first being number `from`.
pub fn places(from: usize, count: usize) -> String {
    let mut out = String::new();
    for n in from..from + count {
        let _ = write!(out, "{}${n}", if n > from { "," } else { "" });
    }
    out
}

/// Runs `before` tuples `after` for all `rows`, whose columns are of `types`; what it returns.
///
/// # Errors
/// If the database is away or refuses.
pub fn many(
    sql: &mut dyn Sql,
    before: &str,
    types: &[&str],
    rows: &[Vec<Value<'_>>],
    after: &str,
) -> Result<Vec<Row>> {
    let mut out = Vec::new();
    for piece in pieces(rows) {
        let values: Vec<Value<'_>> = piece.iter().flatten().cloned().collect();
        out.extend(sql.query(&format!("{before} {} {after}", tuples(types, piece.len())), &values)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_in_pieces_of_few_lengths_and_none_is_lost() {
        let rows: Vec<u32> = (0..234).collect();
        let pieces = pieces(&rows);
        assert_eq!(pieces.concat(), rows);
        assert!(pieces.iter().all(|piece| LENGTHS.contains(&piece.len())));
        assert_eq!(pieces.len(), 2 + 3 + 4);
        assert_eq!(
            tuples(&["TEXT", "BIGINT"], 2),
            "(CAST($1 AS TEXT),CAST($2 AS BIGINT)),(CAST($3 AS TEXT),CAST($4 AS BIGINT))"
        );
        assert_eq!(places(3, 2), "$3,$4");
    }
}
