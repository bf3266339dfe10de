//! JSON as security needs it: read strictly, and written in the one canonical form that is signed.
//!
//! Reading refuses what two readers could understand differently: duplicate keys, numbers that are not integers,
//! anything after the value; and what is made to hurt: nesting over 128 levels (serde_json's own limit) or a
//! text over the caller's size. Canonical JSON is the OLPC form that TUF uses: keys sorted by code point, no
//! white space, only `"` and `\` escaped.

mod tree;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Why a text was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError(pub String);

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JsonError {}

/// A JSON value without floating point numbers and without duplicate keys. Borrows its strings where it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer from −2^63 to 2^63−1.
    Integer(i64),
    /// An integer from 2^63 to 2^64−1. Apart from the others, because a type that holds both would make every value in
    /// a tree a third larger.
    Large(u64),
    /// A string.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object, its members sorted by key.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Reads one value from `bytes`, which must be UTF-8 and hold nothing else.
    ///
    /// # Errors
    /// What is wrong, with line and column.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let value = Strict.deserialize(&mut deserializer).map_err(|e| JsonError(e.to_string()))?;
        deserializer.end().map_err(|e| JsonError(e.to_string()))?;
        Ok(value)
    }

    /// The member `key` of an object.
    pub fn member(&self, key: &str) -> Option<&Json<'a>> {
        match self {
            Json::Object(members) => {
                members.binary_search_by(|(k, _)| k.as_ref().cmp(key)).ok().map(|at| &members[at].1)
            }
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// Takes the member `key` out of an object, in which `null` is left.
    pub fn take(&mut self, key: &str) -> Option<Json<'a>> {
        match self {
            Json::Object(members) => {
                let at = members.binary_search_by(|(k, _)| k.as_ref().cmp(key)).ok()?;
                Some(std::mem::replace(&mut members[at].1, Json::Null))
            }
            _ => None,
        }
    }

    /// Gives an object the member `key`, in place of one that it has.
    ///
    /// # Errors
    /// If it is no object.
    pub fn insert(&mut self, key: &'a str, value: Json<'a>) -> Result<(), JsonError> {
        let Json::Object(members) = self else { return Err(JsonError("not an object".into())) };
        match members.binary_search_by(|(k, _)| k.as_ref().cmp(key)) {
            Ok(at) => members[at].1 = value,
            Err(at) => members.insert(at, (Cow::Borrowed(key), value)),
        }
        Ok(())
    }

    /// The same value, borrowing from nobody.
    pub fn into_owned(self) -> Json<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Json::Null => Json::Null,
            Json::Bool(value) => Json::Bool(value),
            Json::Integer(value) => Json::Integer(value),
            Json::Large(value) => Json::Large(value),
            Json::String(text) => Json::String(owned(text)),
            Json::Array(items) => Json::Array(items.into_iter().map(Json::into_owned).collect()),
            Json::Object(members) => Json::Object(
                members.into_iter().map(|(key, value)| (owned(key), value.into_owned())).collect(),
            ),
        }
    }

    /// The canonical form: what a signature covers and a key id is made of.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(write_string, &mut |piece| out.extend_from_slice(piece));
        out
    }

    /// The same value as JSON that everybody reads: the canonical form, but for its strings, which are escaped as JSON
    /// wants it.
    pub fn to_text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(write_escaped, &mut |piece| out.extend_from_slice(piece));
        out
    }

    /// The canonical form, taken from the end of `text`, before its last byte, if it stands there; otherwise made. What
    /// we publish is canonical as a whole, and then what is signed needs no memory of its own.
    ///
    /// It is the same bytes either way, found by comparing every one of them.
    pub fn canonical_within<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        let mut length = 0;
        self.write(write_string, &mut |piece| length += piece.len());
        let end = text.len().saturating_sub(1);
        let Some(candidate) = end.checked_sub(length).map(|start| &text[start..end]) else {
            return Cow::Owned(self.canonical());
        };
        let (mut rest, mut same) = (candidate, true);
        self.write(write_string, &mut |piece| match rest.split_at_checked(piece.len()) {
            Some((head, tail)) if head == piece => rest = tail,
            _ => same = false,
        });
        if same { Cow::Borrowed(candidate) } else { Cow::Owned(self.canonical()) }
    }

    /// Gives the value to `out`, piece by piece: the canonical form, its strings as `string` writes them.
    fn write(&self, string: WriteString, out: &mut dyn FnMut(&[u8])) {
        match self {
            Json::Null => out(b"null"),
            Json::Bool(true) => out(b"true"),
            Json::Bool(false) => out(b"false"),
            Json::Integer(n) => out(n.to_string().as_bytes()),
            Json::Large(n) => out(n.to_string().as_bytes()),
            Json::String(s) => string(s, out),
            Json::Array(items) => {
                out(b"[");
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out(b",");
                    }
                    item.write(string, out);
                }
                out(b"]");
            }
            Json::Object(members) => {
                out(b"{");
                for (i, (key, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out(b",");
                    }
                    string(key, out);
                    out(b":");
                    value.write(string, out);
                }
                out(b"}");
            }
        }
    }
}

/// Writes a string in one of its forms.
type WriteString = fn(&str, &mut dyn FnMut(&[u8]));

/// Everything raw but the two characters that would end or begin an escape; a newline in a PEM key stays a newline.
fn write_string(text: &str, out: &mut dyn FnMut(&[u8])) {
    out(b"\"");
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'"' || *b == b'\\') {
        let (plain, special) = rest.split_at(at);
        out(plain);
        out(b"\\");
        out(&special[..1]);
        rest = &special[1..];
    }
    out(rest);
    out(b"\"");
}

/// As JSON wants it (RFC 8259 section 7).
fn write_escaped(text: &str, out: &mut dyn FnMut(&[u8])) {
    // A string can always be written.
    out(&serde_json::to_vec(text).unwrap_or_default());
}

/// The canonical form of a value that serialises without floating point numbers.
///
/// # Errors
/// If it does not.
pub fn canonical<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, JsonError> {
    let text = serde_json::to_vec(value).map_err(|e| JsonError(e.to_string()))?;
    Ok(Json::parse(&text)?.canonical())
}

/// Reads a document of type `T`: strictly, as [`Json::parse`] does.
///
/// # Errors
/// What is wrong; of what is no JSON, with line and column.
pub fn read<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, JsonError> {
    T::deserialize(Json::parse(bytes)?)
}

/// JSON for people: each member on a line of its own, as serde_json's own pretty form.
///
/// Made of the tight form, so that what writes a type is compiled once and not for each form.
///
/// # Errors
/// If the value is none that JSON has.
pub fn pretty<T: serde::Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(value).map(|tight| indented(&tight))
}

/// JSON for people, out of the tight form, such as [`Json::to_text`]'s.
pub fn indented(tight: &[u8]) -> Vec<u8> {
    let (mut out, mut depth, mut in_string, mut is_escaped) = (Vec::new(), 0, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    for (at, &byte) in tight.iter().enumerate() {
        if in_string {
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            out.push(byte);
            continue;
        }
        let is_empty = |closing: u8| tight.get(at + 1) == Some(&closing);
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                depth += 1;
                // The closing one is two code points after the opening one, of both.
                if !is_empty(byte + 2) {
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth -= 1;
                if at.checked_sub(1).is_none_or(|before| tight[before] != byte - 2) {
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    out
}

/// Walks a document and refuses duplicate keys anywhere in it, in little memory.
///
/// # Errors
/// What is wrong, with line and column; those of `reader`.
pub fn refuse_duplicates(reader: impl std::io::Read) -> Result<(), JsonError> {
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    NoDuplicates
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|e| JsonError(e.to_string()))
}

/// Reads one field of a document that is walked, by way of its tree: for `#[serde(deserialize_with)]`.
///
/// # Errors
/// As [`Json::parse`], and what does not fit `T`.
pub(crate) fn by_tree<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    T::deserialize(Strict.deserialize(deserializer)?).map_err(de::Error::custom)
}

/// As [`by_tree`], for an array of which no more than one element's tree is in memory.
///
/// # Errors
/// As [`by_tree`].
pub(crate) fn each_by_tree<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    struct Each<T>(PhantomData<T>);

    impl<'de, T: serde::Deserialize<'de>> Visitor<'de> for Each<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element_seed(Strict)? {
                items.push(T::deserialize(item).map_err(de::Error::custom)?);
            }
            Ok(items)
        }
    }

    deserializer.deserialize_seq(Each(PhantomData))
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Json<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value without floating point numbers")
    }
    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Integer(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(i64::try_from(value).map_or(Json::Large(value), Json::Integer))
    }
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Borrowed(value)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Owned(value.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict)? {
            items.push(item);
        }
        items.shrink_to_fit();
        Ok(Json::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut members: Vec<(Cow<'de, str>, Json<'de>)> = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            members.push((key, map.next_value_seed(Strict)?));
        }
        // UTF-8 byte order is code point order.
        members.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(pair) = members.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(duplicate(&pair[0].0));
        }
        // A tree of small objects would be mostly room for members that never come.
        members.shrink_to_fit();
        Ok(Json::Object(members))
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

fn duplicate<E: de::Error>(key: &str) -> E {
    let shown: String = key.chars().take(80).collect();
    E::custom(format_args!("the key {shown:?} stands twice in one object"))
}

/// Walks a value and keeps nothing but the keys of the objects that are open.
struct NoDuplicates;

impl<'de> DeserializeSeed<'de> for NoDuplicates {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NoDuplicates {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(NoDuplicates)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys: std::collections::BTreeSet<Cow<'de, str>> = Default::default();
        while let Some(key) = map.next_key_seed(Key)? {
            if keys.contains(&key) {
                return Err(duplicate(&key));
            }
            keys.insert(key);
            map.next_value_seed(NoDuplicates)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canon(text: &str) -> Result<String, JsonError> {
        Json::parse(text.as_bytes()).map(|v| String::from_utf8(v.canonical()).unwrap())
    }

    #[test]
    fn canonical_form_is_sorted_tight_and_raw() {
        assert_eq!(
            canon(r#" { "b" : [1, -2, true, null], "a" : "x\ny\"\\" } "#).unwrap(),
            "{\"a\":\"x\ny\\\"\\\\\",\"b\":[1,-2,true,null]}"
        );
        // Code point order, not UTF-16 order: U+FF5E sorts before U+1F600.
        assert_eq!(canon("{\"\u{1F600}\":1,\"\u{FF5E}\":2}").unwrap(), "{\"\u{FF5E}\":2,\"\u{1F600}\":1}");
    }

    #[test]
    fn ambiguous_or_hostile_text_is_refused() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            "1.0",
            "1e3",
            "{} {}",
            "{",
            "[1,]",
            "\"\u{0}\"",
            "18446744073709551616",
        ] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Json::parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(Json::parse(b"\"\xff\"").is_err());
        assert!(read::<serde_json::Value>(br#"{"x":{"a":1,"a":2}}"#).is_err());
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Sample {
        small: u8,
        text: Option<String>,
        list: Vec<Kind>,
        #[serde(default)]
        pair: (u64, bool),
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Kind {
        Plain,
        With(i64),
        Fields { a: String },
    }

    #[test]
    fn a_type_is_read_or_what_is_wrong_is_said() {
        let text = r#"{"small":255,"text":null,"list":["plain",{"with":-3},{"fields":{"a":"\n"}}],
            "pair":[18446744073709551615,true],"unknown":{"x":[1]}}"#;
        let list = vec![Kind::Plain, Kind::With(-3), Kind::Fields { a: "\n".into() }];
        let sample = Sample { small: 255, text: None, list, pair: (u64::MAX, true) };
        assert_eq!(read(text.as_bytes()), Ok(sample));
        for (text, why) in [
            (r#"{"text":null,"list":[]}"#, "missing field `small`"),
            (r#"{"small":256,"list":[]}"#, "256"),
            (r#"{"small":-1,"list":[]}"#, "-1"),
            (r#"{"small":"1","list":[]}"#, "string"),
            (r#"{"small":1,"list":["other"]}"#, "unknown variant `other`"),
            (r#"{"small":1,"list":[{"plain":1}]}"#, "carries nothing"),
            (r#"{"small":1,"list":{}}"#, "map"),
            (r#"{"small":1,"list":[],"text":7}"#, "7"),
            (r#"{"small":1,"list":[],"pair":[1]}"#, "length"),
            (r#"[1,null,[]]"#, "sequence"),
            ("{", "line 1"),
        ] {
            let error = read::<Sample>(text.as_bytes()).unwrap_err();
            assert!(error.0.contains(why), "{text}: {error}");
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into)
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn the_canonical_form_does_not_depend_on_how_a_value_was_spelled(value in any_json()) {
            let compact = serde_json::to_vec(&value).unwrap();
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            prop_assert_eq!(Json::parse(&compact).unwrap().canonical(), Json::parse(&pretty).unwrap().canonical());
        }

        #[test]
        fn a_value_is_read_as_the_library_reads_it(value in any_json()) {
            let text = serde_json::to_vec(&value).unwrap();
            prop_assert_eq!(read::<serde_json::Value>(&text), Ok(value));
        }

        #[test]
        fn the_form_for_people_is_the_librarys(value in any_json()) {
            prop_assert_eq!(pretty(&value).unwrap(), serde_json::to_vec_pretty(&value).unwrap());
        }

        #[test]
        fn the_canonical_form_is_the_same_wherever_it_is_taken_from(value in any_json(), around in any::<Vec<u8>>(), flip in any::<prop::sample::Index>()) {
            let text = serde_json::to_vec(&value).unwrap();
            let json = Json::parse(&text).unwrap();
            let canonical = json.canonical();
            let within = [around.as_slice(), &canonical, b"}"].concat();
            prop_assert!(matches!(json.canonical_within(&within), Cow::Borrowed(_)));
            prop_assert_eq!(json.canonical_within(&within), canonical.as_slice());
            prop_assert_eq!(json.canonical_within(&around), canonical.as_slice());
            let mut other = within;
            let at = around.len() + flip.index(canonical.len());
            other[at] ^= 1;
            prop_assert_eq!(json.canonical_within(&other), canonical.as_slice());
            prop_assert!(matches!(json.canonical_within(&other), Cow::Owned(_)));
        }
    }
}
