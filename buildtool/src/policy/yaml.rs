//! YAML 1.2 as a tree in which every value knows its place, and as the strict tree that policies are read from.
//!
//! Only what JSON has too, and nothing that two readers of YAML understand differently: no tags, no merge keys, no key
//! twice, and the words that YAML 1.1 took for truth values (`yes`, `off`) in quotes only.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use format::json::Json;
use format::policy::{Path, Step};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// The deepest nesting; a policy has 7.
const MAX_DEPTH: usize = 32;

/// The most values of a file, those that aliases repeat counted each time.
const MAX_NODES: usize = 100_000;

/// A place in a file, both from 1; columns are characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    fn of(span: &Span) -> Self {
        Place { line: span.start.line(), column: span.start.col() + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What.
    pub what: String,
}

/// A value and where it begins.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    /// Text, and whether it stands there without quotes.
    Scalar(String, bool),
    List(Vec<Node>),
    /// In file order, each key once.
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
struct Key {
    text: String,
    place: Place,
}

/// The documents of a file that are not empty, and what was wrong with its YAML. What follows an error of syntax is not
/// there.
pub fn documents(text: &str) -> (Vec<Node>, Vec<Fault>) {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0, faults: Vec::new() };
    let mut documents = Vec::new();
    if let Err(fault) = reader.documents(&mut documents) {
        reader.faults.push(fault);
    }
    (documents, reader.faults)
}

struct Reader<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    /// What was given a name, by the parser's number for it.
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    /// What is wrong without making the rest unreadable.
    faults: Vec<Fault>,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Place)>, Fault> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => Ok(Some((event, Place::of(&span)))),
            Some(Err(error)) => {
                let at = error.marker();
                let place = Place { line: at.line(), column: at.col() + 1 };
                Err(Fault { place, what: format!("this is no YAML: {}", error.info()) })
            }
        }
    }

    fn documents(&mut self, documents: &mut Vec<Node>) -> Result<(), Fault> {
        while let Some((event, place)) = self.next()? {
            if matches!(
                event,
                Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) | Event::Alias(_)
            ) {
                let node = self.node(event, place, 0)?;
                if !node.is_nothing() {
                    documents.push(node);
                }
            }
        }
        Ok(())
    }

    /// The value that begins with `event`.
    fn node(&mut self, event: Event<'t>, place: Place, depth: usize) -> Result<Node, Fault> {
        self.count(1, place)?;
        if depth > MAX_DEPTH {
            return Err(Fault { place, what: format!("this is nested more than {MAX_DEPTH} deep") });
        }
        let (anchor, tag, value) = match event {
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(Fault {
                        place,
                        what: "this alias stands inside of what it stands for".into(),
                    });
                };
                self.count(node.size(), place)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, tag, Value::Scalar(text.into_owned(), style == ScalarStyle::Plain))
            }
            Event::SequenceStart(anchor, tag) => (anchor, tag, Value::List(self.list(depth)?)),
            Event::MappingStart(anchor, tag) => (anchor, tag, Value::Map(self.map(depth)?)),
            _ => return Err(Fault { place, what: "a value is missing".into() }),
        };
        if tag.is_some() {
            self.faults.push(Fault { place, what: "a tag means nothing here: take it out".into() });
        }
        let node = Node { place, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut entries = Vec::new();
        loop {
            match self.next()? {
                Some((Event::SequenceEnd, _)) | None => return Ok(entries),
                Some((event, place)) => entries.push(self.node(event, place, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Fault> {
        let mut members = Vec::new();
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        loop {
            let (event, place) = match self.next()? {
                Some((Event::MappingEnd, _)) | None => return Ok(members),
                Some(next) => next,
            };
            let key = self.node(event, place, depth + 1)?;
            let Some((event, place)) = self.next()? else {
                return Ok(members);
            };
            let value = self.node(event, place, depth + 1)?;
            let Value::Scalar(text, plain) = key.value else {
                self.faults.push(Fault { place: key.place, what: "a key must be text".into() });
                continue;
            };
            if plain && is_doubtful_truth(&text) {
                self.faults.push(doubtful(key.place, &text));
            }
            match places.get(&text) {
                Some(first) => self.faults.push(Fault {
                    place: key.place,
                    what: format!("the key {text:?} stands here a second time; the first is at {first}"),
                }),
                None => {
                    places.insert(text.clone(), key.place);
                    members.push((Key { text, place: key.place }, value));
                }
            }
        }
    }

    fn count(&mut self, nodes: usize, place: Place) -> Result<(), Fault> {
        self.nodes += nodes;
        match self.nodes <= MAX_NODES {
            true => Ok(()),
            false => Err(Fault {
                place,
                what: format!("the file has more than {MAX_NODES} values, its aliases counted"),
            }),
        }
    }
}

impl Node {
    /// An empty value: `null`, `~`, or nothing at all.
    fn is_nothing(&self) -> bool {
        matches!(self.scalar(), Some(Scalar::Nothing))
    }

    fn size(&self) -> usize {
        match &self.value {
            Value::Scalar(..) => 1,
            Value::List(entries) => 1 + entries.iter().map(Node::size).sum::<usize>(),
            Value::Map(members) => 1 + members.iter().map(|(_, value)| 1 + value.size()).sum::<usize>(),
        }
    }

    /// The same as a strict tree. What that cannot hold is said in `faults`; a number that is no whole one is nothing
    /// there, which is as wrong everywhere.
    pub fn to_json(&self, faults: &mut Vec<Fault>) -> Json<'_> {
        match &self.value {
            Value::List(entries) => Json::Array(entries.iter().map(|entry| entry.to_json(faults)).collect()),
            Value::Map(members) => {
                let members = members
                    .iter()
                    .map(|(key, value)| (Cow::Borrowed(key.text.as_str()), value.to_json(faults)));
                let mut members: Vec<_> = members.collect();
                members.sort_by(|a, b| a.0.cmp(&b.0));
                Json::Object(members)
            }
            Value::Scalar(text, plain) => match scalar(text, *plain) {
                Scalar::Nothing | Scalar::OtherNumber => Json::Null,
                Scalar::Truth(value) => Json::Bool(value),
                Scalar::Whole(n) => Json::Integer(n),
                Scalar::Text => Json::String(Cow::Borrowed(text)),
                Scalar::Doubtful => {
                    faults.push(doubtful(self.place, text));
                    Json::String(Cow::Borrowed(text))
                }
            },
        }
    }

    /// What stands without quotes where text is wanted, and what it is taken for.
    pub fn unquoted(&self) -> Option<(&str, &'static str)> {
        let Value::Scalar(text, true) = &self.value else {
            return None;
        };
        match scalar(text, true) {
            Scalar::Whole(_) | Scalar::OtherNumber => Some((text, "a number")),
            Scalar::Truth(_) => Some((text, "a truth value")),
            _ => None,
        }
    }

    /// Whether two readers of YAML take it for different things.
    pub fn is_doubtful(&self) -> bool {
        matches!(self.scalar(), Some(Scalar::Doubtful))
    }

    /// The value at `path`, as far as the path goes, and where a person looks for it: a value of one line where it begins,
    /// anything else at its key.
    pub fn find(&self, path: &Path) -> (&Node, Place) {
        let (node, key) = self.walk(path);
        let begins = matches!(node.value, Value::Scalar(..)) && !node.is_nothing();
        (node, if begins { node.place } else { key })
    }

    /// The place of the key, or the beginning of the entry, that `path` ends with.
    pub fn key(&self, path: &Path) -> Place {
        self.walk(path).1
    }

    fn walk(&self, path: &Path) -> (&Node, Place) {
        let (mut node, mut key) = (self, self.place);
        for step in &path.0 {
            let next = match (&node.value, step) {
                (Value::Map(members), Step::Key(wanted)) => {
                    members.iter().find(|(key, _)| key.text == *wanted).map(|(key, value)| (value, key.place))
                }
                (Value::List(entries), Step::Entry(n)) => entries.get(*n).map(|entry| (entry, entry.place)),
                _ => None,
            };
            let Some(next) = next else { break };
            (node, key) = next;
        }
        (node, key)
    }

    fn scalar(&self) -> Option<Scalar> {
        match &self.value {
            Value::Scalar(text, plain) => Some(scalar(text, *plain)),
            _ => None,
        }
    }
}

/// What a scalar is (YAML 1.2.2, section 10.3.2, the core schema).
enum Scalar {
    Nothing,
    Truth(bool),
    Whole(i64),
    /// A fraction, an infinity, not decimal, or too large.
    OtherNumber,
    /// One thing to some readers and another to others.
    Doubtful,
    Text,
}

fn scalar(text: &str, plain: bool) -> Scalar {
    if !plain {
        return Scalar::Text;
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Nothing,
        "true" | "True" | "TRUE" => return Scalar::Truth(true),
        "false" | "False" | "FALSE" => return Scalar::Truth(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if digits(unsigned) {
        // 010 is 10 to YAML 1.2 and 8 to YAML 1.1.
        let octal = unsigned.len() > 1 && unsigned.starts_with('0');
        return match text.parse().ok().filter(|_| !octal) {
            Some(n) => Scalar::Whole(n),
            None if octal => Scalar::Doubtful,
            None => Scalar::OtherNumber,
        };
    }
    let radix = |prefix: &str, valid: fn(&u8) -> bool| {
        text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.as_bytes().iter().all(valid))
    };
    let named = matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN");
    // What is left of `f64::from_str` are names of infinities, which begin with a letter.
    let float = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && text.parse::<f64>().is_ok();
    if named || float || radix("0x", u8::is_ascii_hexdigit) || radix("0o", |c| (b'0'..=b'7').contains(c)) {
        return Scalar::OtherNumber;
    }
    if is_doubtful_truth(text) { Scalar::Doubtful } else { Scalar::Text }
}

/// What YAML 1.1 takes for true or false, and YAML 1.2 for text.
fn is_doubtful_truth(text: &str) -> bool {
    let words = ["y", "n", "yes", "no", "on", "off"];
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn doubtful(place: Place, text: &str) -> Fault {
    let (other, instead) = match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "on" => ("true", "true"),
        "n" | "no" | "off" => ("false", "false"),
        _ => ("a number of base 8", "it without the 0"),
    };
    Fault {
        place,
        what: format!(
            "{text} without quotes is {other} to some readers of YAML and not to others: write {instead}, or \"{text}\" \
             if it is text"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> (Vec<String>, Vec<String>) {
        let (documents, mut faults) = documents(text);
        let json: Vec<String> = documents
            .iter()
            .map(|document| String::from_utf8(document.to_json(&mut faults).canonical()).unwrap())
            .collect();
        (json, faults.iter().map(|fault| format!("{}: {}", fault.place, fault.what)).collect())
    }

    #[test]
    fn scalars_are_what_yaml_1_2_says() {
        for (yaml, json) in [
            ("a: 12", "{\"a\":12}"),
            ("a: -1", "{\"a\":-1}"),
            ("a: '12'", "{\"a\":\"12\"}"),
            ("a: 2026-11-23", "{\"a\":\"2026-11-23\"}"),
            ("a: true", "{\"a\":true}"),
            ("a: \"true\"", "{\"a\":\"true\"}"),
            ("a: ~", "{\"a\":null}"),
            ("a:", "{\"a\":null}"),
            ("a: 1.5", "{\"a\":null}"),
            ("a: 1e3", "{\"a\":null}"),
            ("a: 0x1F", "{\"a\":null}"),
            ("a: 99999999999999999999", "{\"a\":null}"),
            ("a: infinity", "{\"a\":\"infinity\"}"),
            ("a: 10%", "{\"a\":\"10%\"}"),
            ("[1, [x], {b: c}]", "[1,[\"x\"],{\"b\":\"c\"}]"),
            ("a: |\n  x\n  y\n", "{\"a\":\"x\ny\n\"}"),
        ] {
            assert_eq!(one(yaml), (vec![json.to_owned()], vec![]), "{yaml}");
        }
    }

    #[test]
    fn what_readers_understand_differently_is_said() {
        for (yaml, fault) in [
            ("a: yes", "1:4: yes without quotes"),
            ("a: Off", "1:4: Off without quotes"),
            ("on: 1", "1:1: on without quotes"),
            ("a: 010", "1:4: 010 without quotes"),
            ("a: 1\nb: 2\na: 3\n", "3:1: the key \"a\" stands here a second time; the first is at 1:1"),
            ("a: !!str 1", "1:4: a tag means nothing here"),
            ("[1]: 2", "1:1: a key must be text"),
        ] {
            let (_, faults) = one(yaml);
            assert!(faults.len() == 1 && faults[0].starts_with(fault), "{yaml}: {faults:?}");
        }
    }

    #[test]
    fn documents_are_apart_and_empty_ones_are_none() {
        assert_eq!(one("# nothing\n---\na: 1\n---\n---\nb: 2\n...\n").0, ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(one(""), (vec![], vec![]));
    }

    #[test]
    fn what_is_no_yaml_keeps_what_came_before() {
        let (documents, faults) = one("a: 1\n---\nb: [1\nc: 2\n");
        assert_eq!(documents, ["{\"a\":1}"]);
        assert!(faults.len() == 1 && faults[0].contains("this is no YAML"), "{faults:?}");
    }

    #[test]
    fn aliases_are_followed_and_cannot_explode() {
        assert_eq!(one("a: &x [1]\nb: *x\n").0, ["{\"a\":[1],\"b\":[1]}"]);
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        // A million values: enough to be refused, few enough for a machine on which they are not.
        for n in 1..6 {
            let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
            bomb += &format!("a{n}: &a{n} [{aliases}]\n");
        }
        let (documents, faults) = one(&bomb);
        assert!(
            documents.is_empty() && faults.len() == 1 && faults[0].contains("more than 100000 values"),
            "{faults:?}"
        );
        let (_, faults) = one("a: &x [*x]\n");
        assert!(faults.len() == 1 && faults[0].contains("alias"), "{faults:?}");
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(one(&deep).1.len(), 1);
        let deep = (0..2000).fold(String::new(), |text, n| format!("{text}{}a:\n", " ".repeat(n)));
        assert_eq!(one(&deep).1.len(), 1);
    }

    proptest! {
        #[test]
        fn whatever_is_read_does_not_panic(text in "([-a-z0-9:?&*!|>'\"%@`#,\\[\\]{}~. \n\t]|<<|---\n|: |- ){0,60}") {
            let (documents, mut faults) = documents(&text);
            for document in documents {
                document.to_json(&mut faults);
            }
        }

        #[test]
        fn json_is_yaml(number in any::<i64>(), text in "[ -~äß€]{0,20}", key in "[a-z]{1,8}", nested in any::<bool>()) {
            let inner = if nested { serde_json::json!({ "b": [text] }) } else { serde_json::json!(text) };
            let written = serde_json::json!({ key: [number, inner, true] });
            for spelled in [written.to_string(), format!("{written:#}")] {
                prop_assert_eq!(one(&spelled), (vec![written.to_string()], vec![]));
            }
        }
    }
}
