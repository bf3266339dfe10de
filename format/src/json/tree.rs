//! Types out of a tree that was read strictly, through serde.
//!
//! Not through serde_json, which would have every type read text: look for its next token, say where that is, and take an
//! array for a struct. Here a type is compiled against a value that is there already, which is a tenth of the agent less;
//! and what two readers could understand differently was refused before.

use std::borrow::Cow;

use serde::de::{self, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::{Json, JsonError};

impl de::Error for JsonError {
    fn custom<T: std::fmt::Display>(what: T) -> Self {
        JsonError(what.to_string())
    }
}

/// What stands there, for whoever wanted something else.
fn unexpected<'j>(json: &'j Json<'_>) -> Unexpected<'j> {
    match json {
        Json::Null => Unexpected::Unit,
        Json::Bool(value) => Unexpected::Bool(*value),
        Json::Integer(value) => Unexpected::Signed(*value),
        Json::Large(value) => Unexpected::Unsigned(*value),
        Json::String(text) => Unexpected::Str(text),
        Json::Array(_) => Unexpected::Seq,
        Json::Object(_) => Unexpected::Map,
    }
}

/// Compiled once, where a visitor's own words would be compiled with each.
fn wrong(json: &Json<'_>, expected: &dyn de::Expected) -> JsonError {
    JsonError::invalid_type(unexpected(json), expected)
}

fn visit_text<'de, V: Visitor<'de>>(text: Cow<'de, str>, visitor: V) -> Result<V::Value, JsonError> {
    match text {
        Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
        Cow::Owned(text) => visitor.visit_string(text),
    }
}

/// Numbers and truths.
macro_rules! small {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            match self {
                Json::Bool(value) => visitor.visit_bool(value),
                Json::Integer(value) => visitor.visit_i64(value),
                Json::Large(value) => visitor.visit_u64(value),
                other => Err(wrong(&other, &visitor)),
            }
        }
    )*};
}

macro_rules! text {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            match self {
                Json::String(text) => visit_text(text, visitor),
                other => Err(wrong(&other, &visitor)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Json<'de> {
    type Error = JsonError;

    small! { deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
    deserialize_u16 deserialize_u32 deserialize_u64 }

    text! { deserialize_str deserialize_string deserialize_identifier deserialize_char }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self {
            Json::Null => visitor.visit_unit(),
            Json::String(text) => visit_text(text, visitor),
            Json::Array(_) => self.deserialize_seq(visitor),
            Json::Object(_) => self.deserialize_map(visitor),
            Json::Bool(_) | Json::Integer(_) | Json::Large(_) => self.deserialize_u64(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self {
            Json::Null => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self {
            Json::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            other => Err(wrong(&other, &visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self {
            Json::Object(members) => {
                visitor.visit_map(Members { members: members.into_iter(), value: Json::Null })
            }
            other => Err(wrong(&other, &visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        match self {
            Json::String(name) => visitor.visit_enum(name.into_deserializer()),
            Json::Object(members) if members.len() == 1 => match members.into_iter().next() {
                Some((name, value)) => visitor.visit_enum(Variant { name, value }),
                None => Err(JsonError::custom("an empty object is no variant")),
            },
            other => Err(wrong(&other, &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { i128 u128 f32 f64 bytes byte_buf unit unit_struct tuple_struct }
}

/// An array that is walked.
struct Items<'de>(std::vec::IntoIter<Json<'de>>);

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, JsonError> {
        self.0.next().map(|item| seed.deserialize(item)).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// An object that is walked.
struct Members<'de> {
    members: std::vec::IntoIter<(Cow<'de, str>, Json<'de>)>,
    value: Json<'de>,
}

impl<'de> de::MapAccess<'de> for Members<'de> {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, JsonError> {
        let Some((key, value)) = self.members.next() else { return Ok(None) };
        self.value = value;
        seed.deserialize(Json::String(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, JsonError> {
        seed.deserialize(std::mem::replace(&mut self.value, Json::Null))
    }
}

/// A variant that carries something: an object with its name as the only key.
struct Variant<'de> {
    name: Cow<'de, str>,
    value: Json<'de>,
}

impl<'de> de::EnumAccess<'de> for Variant<'de> {
    type Error = JsonError;
    type Variant = Json<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Json<'de>), JsonError> {
        Ok((seed.deserialize(Json::String(self.name))?, self.value))
    }
}

impl<'de> de::VariantAccess<'de> for Json<'de> {
    type Error = JsonError;

    fn unit_variant(self) -> Result<(), JsonError> {
        match self {
            Json::Null => Ok(()),
            other => Err(wrong(&other, &"a variant that carries nothing")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, JsonError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_map(visitor)
    }
}
