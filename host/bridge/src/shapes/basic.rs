//! The trait of all shapes, and lists of pairs.

use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// A type with the JSON shape of a type of the interface.
pub(crate) trait Shape: Sized {
    /// The type of the interface.
    type Wit;

    fn from_wit(wit: Self::Wit) -> Self;
    fn into_wit(self) -> Self::Wit;
}

macro_rules! same {
    ($($kind:ty),*) => {$(
        impl Shape for $kind {
            type Wit = $kind;

            fn from_wit(wit: $kind) -> $kind {
                wit
            }

            fn into_wit(self) -> $kind {
                self
            }
        }
    )*};
}

same!(String, bool, u16, u32, u64, i32, f64);

impl<T: Shape> Shape for Vec<T> {
    type Wit = Vec<T::Wit>;

    fn from_wit(wit: Self::Wit) -> Self {
        wit.into_iter().map(T::from_wit).collect()
    }

    fn into_wit(self) -> Self::Wit {
        self.into_iter().map(T::into_wit).collect()
    }
}

impl<T: Shape> Shape for Option<T> {
    type Wit = Option<T::Wit>;

    fn from_wit(wit: Self::Wit) -> Self {
        wit.map(T::from_wit)
    }

    fn into_wit(self) -> Self::Wit {
        self.map(T::into_wit)
    }
}

impl<A: Shape, B: Shape> Shape for (A, B) {
    type Wit = (A::Wit, B::Wit);

    fn from_wit((first, second): Self::Wit) -> Self {
        (A::from_wit(first), B::from_wit(second))
    }

    fn into_wit(self) -> Self::Wit {
        (self.0.into_wit(), self.1.into_wit())
    }
}

/// Names with texts: an array of two-element arrays, and on input also an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Pairs(pub(crate) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PairVisitor(std::marker::PhantomData)).map(Pairs)
    }
}

impl Shape for Pairs {
    type Wit = Vec<(String, String)>;

    fn from_wit(wit: Self::Wit) -> Self {
        Pairs(wit)
    }

    fn into_wit(self) -> Self::Wit {
        self.0
    }
}

/// Names with JSON values. The interface has them as JSON text, which is also their form on output.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Extras(pub(crate) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Extras {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let values: Vec<(String, Value)> = from.deserialize_any(PairVisitor(std::marker::PhantomData))?;
        Ok(Extras(values.into_iter().map(|(name, value)| (name, value.to_string())).collect()))
    }
}

impl Shape for Extras {
    type Wit = Vec<(String, String)>;

    fn from_wit(wit: Self::Wit) -> Self {
        Extras(wit)
    }

    fn into_wit(self) -> Self::Wit {
        self.0
    }
}

/// One name with a JSON value, in an array.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Extra(String, String);

impl<'de> Deserialize<'de> for Extra {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (name, value) = <(String, Value)>::deserialize(from)?;
        Ok(Extra(name, value.to_string()))
    }
}

impl Shape for Extra {
    type Wit = (String, String);

    fn from_wit((name, value): Self::Wit) -> Self {
        Extra(name, value)
    }

    fn into_wit(self) -> Self::Wit {
        (self.0, self.1)
    }
}

/// Reads an array of pairs, or an object.
struct PairVisitor<V>(std::marker::PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for PairVisitor<V> {
    type Value = Vec<(String, V)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object, or an array of arrays with a name and a value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = items.next_element()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = entries.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

/// Reads any type from an object. Derived code for a struct accepts objects and arrays, and this leaves it only the object.
pub(crate) struct Fields<D>(pub(crate) D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Fields<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Reads an object whose shorthands are replaced before it is decoded. `what` names it in errors.
pub(crate) fn object<E: Error>(value: Value, what: &str) -> Result<Map<String, Value>, E> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(E::custom(format!("{what} must be an object, and not {}", kind(&other)))),
    }
}

/// Replaces the shorthand `short` of an object by the field `long` with the value that `expand` makes of it. A shorthand
/// that is null counts as left out.
pub(crate) fn shorthand<E: Error>(
    map: &mut Map<String, Value>,
    short: &str,
    long: &str,
    expand: impl FnOnce(Value) -> Result<Value, E>,
) -> Result<(), E> {
    let Some(value) = map.remove(short).filter(|value| !value.is_null()) else { return Ok(()) };
    if map.get(long).is_some_and(|value| !value.is_null()) {
        return Err(E::custom(format!("`{short}` and `{long}` exclude each other")));
    }
    map.insert(long.to_owned(), expand(value)?);
    Ok(())
}

/// Returns the name of the type of a JSON value.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

pub(crate) fn yes() -> bool {
    true
}
