//! What is typed in configuration files, and whether it is what a key wants. The only `toml`.
//!
//! A section asks for its keys by name and kind ([`Keys::text`] …). What is in the file and was not asked for is unknown;
//! so a key stands in one place, where it is read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use format::near::nearest;
use toml::de::{DeTable, DeValue};

/// A value as typed, and where.
#[derive(Clone, Debug)]
pub(super) struct Typed {
    line: usize,
    pub(super) value: Value,
}

/// The kinds of values.
#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Boolean(bool),
    Array(Vec<Typed>),
    Table(Table),
    /// What no key wants, in the file's own words: a fraction, a date.
    Other(String),
}

/// A section, or a file.
pub(super) type Table = BTreeMap<String, Typed>;

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::String(_) => "text",
            Value::Integer(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::Array(_) => "a list",
            Value::Table(_) => "a section",
            Value::Other(_) => "a fraction or a date",
        }
    }
}

/// What stands in a file.
///
/// # Errors
/// If that is no TOML: the line, and what is wrong there.
pub(super) fn parse(text: &str) -> Result<Table, String> {
    let wrong = |at: usize, what: &str| format!("line {}: {}", line(text, at), what.replace('\n', " "));
    let document =
        DeTable::parse(text).map_err(|e| wrong(e.span().map_or(0, |span| span.start), e.message()))?;
    table(text, document.get_ref()).map_err(|at| wrong(at, "a number beyond 2^63"))
}

fn line(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// # Errors
/// Where a number stands that is too large.
fn table(text: &str, typed: &DeTable<'_>) -> Result<Table, usize> {
    let mut table = Table::new();
    for (key, value) in typed {
        let line = line(text, key.span().start);
        table.insert(key.get_ref().to_string(), Typed { line, value: self::value(text, value)? });
    }
    Ok(table)
}

fn value(text: &str, typed: &toml::Spanned<DeValue<'_>>) -> Result<Value, usize> {
    let span = typed.span();
    Ok(match typed.get_ref() {
        DeValue::String(value) => Value::String(value.to_string()),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Integer(number) => {
            Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| span.start)?)
        }
        DeValue::Float(_) | DeValue::Datetime(_) => {
            Value::Other(text.get(span).unwrap_or_default().to_owned())
        }
        DeValue::Array(items) => {
            let item = |item| Ok(Typed { line: line(text, span.start), value: value(text, item)? });
            Value::Array(items.iter().map(item).collect::<Result<_, usize>>()?)
        }
        DeValue::Table(typed) => Value::Table(table(text, typed)?),
    })
}

/// Puts one file over what others said, key by key.
pub(super) fn merge(into: &mut Table, from: Table) {
    for (key, typed) in from {
        match (into.get_mut(&key).map(|old| &mut old.value), typed.value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, Typed { line: typed.line, value });
            }
        }
    }
}

/// The keys of one section.
pub(super) struct Keys<'t> {
    table: &'t Table,
    /// What was asked for.
    known: Vec<&'static str>,
    /// All that is wrong, with its line.
    wrong: &'t RefCell<Vec<(usize, String)>>,
}

/// Reads a whole table with `read`.
///
/// # Errors
/// What is wrong first, with its line.
pub(super) fn read<T>(table: &Table, read: impl FnOnce(&mut Keys<'_>) -> T) -> Result<T, String> {
    let wrong = RefCell::default();
    let value = Keys::of(table, &wrong, read);
    match wrong.into_inner().into_iter().min_by_key(|(line, _)| *line) {
        None => Ok(value),
        Some((line, what)) => Err(format!("line {line}: {what}")),
    }
}

impl<'t> Keys<'t> {
    fn of<T>(
        table: &'t Table,
        wrong: &'t RefCell<Vec<(usize, String)>>,
        read: impl FnOnce(&mut Keys<'t>) -> T,
    ) -> T {
        let mut keys = Keys { table, known: Vec::new(), wrong };
        let value = read(&mut keys);
        keys.refuse_others();
        value
    }

    /// What was not asked for is unknown. Says which key was probably meant.
    fn refuse_others(&self) {
        for (key, typed) in self.table.iter().filter(|(key, _)| !self.known.contains(&key.as_str())) {
            let what = match nearest(key, self.known.iter().copied()) {
                Some(meant) => format!("there is no key `{key}` here; did you mean `{meant}`?"),
                None => format!("there is no key `{key}` here, but {}", self.known.join(", ")),
            };
            self.wrong.borrow_mut().push((typed.line, what));
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'t Typed> {
        self.known.push(key);
        self.table.get(key)
    }

    fn refuse(&self, key: &str, typed: &Typed, wanted: &str) {
        let what = format!("`{key}` must be {wanted}, and is {}", typed.value.kind());
        self.wrong.borrow_mut().push((typed.line, what));
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        let typed = self.get(key)?;
        match &typed.value {
            Value::String(text) => return Some(text.clone()),
            _ => self.refuse(key, typed, "a text in quotes"),
        }
        None
    }

    /// A text without which its section says nothing.
    pub(super) fn required(&mut self, key: &'static str) -> String {
        let text = self.text(key);
        if text.is_none() && !self.table.contains_key(key) {
            let line = self.table.values().map(|typed| typed.line).min().unwrap_or(1);
            self.wrong.borrow_mut().push((line, format!("the key `{key}` is missing here")));
        }
        text.unwrap_or_default()
    }

    /// The path of a file or folder.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// `true` or `false`.
    pub(super) fn truth(&mut self, key: &'static str) -> Option<bool> {
        let typed = self.get(key)?;
        match typed.value {
            Value::Boolean(truth) => return Some(truth),
            _ => self.refuse(key, typed, "true or false"),
        }
        None
    }

    /// A number that `N` can hold.
    pub(super) fn number<N: TryFrom<i64>>(&mut self, key: &'static str) -> Option<N> {
        let typed = self.get(key)?;
        match typed.value {
            Value::Integer(number) => {
                let fits = N::try_from(number).ok();
                if fits.is_none() {
                    let what = format!("`{key}` cannot be {number}");
                    self.wrong.borrow_mut().push((typed.line, what));
                }
                return fits;
            }
            _ => self.refuse(key, typed, "a whole number"),
        }
        None
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let typed = self.get(key)?;
        if let Value::Array(items) = &typed.value {
            let text = |item: &Typed| match &item.value {
                Value::String(text) => Some(text.clone()),
                _ => None,
            };
            if let Some(texts) = items.iter().map(text).collect() {
                return Some(texts);
            }
        }
        self.refuse(key, typed, "a list of texts, such as [\"…\"]");
        None
    }

    /// A list of paths; none: an empty one.
    pub(super) fn paths(&mut self, key: &'static str) -> Vec<PathBuf> {
        self.texts(key).unwrap_or_default().into_iter().map(PathBuf::from).collect()
    }

    /// Names that the administrator gives, each with a text.
    pub(super) fn named_texts(&mut self, key: &'static str) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        let Some(typed) = self.get(key) else { return texts };
        let Value::Table(table) = &typed.value else {
            self.refuse(key, typed, "a section");
            return texts;
        };
        for (name, typed) in table {
            match &typed.value {
                Value::String(text) => drop(texts.insert(name.clone(), text.clone())),
                _ => self.refuse(&format!("{key}.{name}"), typed, "a text in quotes"),
            }
        }
        texts
    }

    /// A section, which is read as an empty one where it is not there.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Keys<'t>) -> T) -> T {
        static EMPTY: Table = Table::new();
        let table = match self.get(key) {
            Some(Typed { value: Value::Table(table), .. }) => table,
            Some(other) => {
                self.refuse(key, other, "a section");
                &EMPTY
            }
            None => &EMPTY,
        };
        Keys::of(table, self.wrong, read)
    }

    /// A list of sections.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Keys<'t>) -> T,
    ) -> Vec<T> {
        let Some(typed) = self.get(key) else { return Vec::new() };
        let mut read_all = Vec::new();
        let items: &[Typed] = match &typed.value {
            Value::Array(items) => items,
            _ => &[],
        };
        for item in items {
            if let Value::Table(table) = &item.value {
                read_all.push(Keys::of(table, self.wrong, &mut read));
            }
        }
        if read_all.len() != items.len() || !matches!(typed.value, Value::Array(_)) {
            self.refuse(key, typed, "a list of sections, such as [{ … }]");
        }
        read_all
    }
}
