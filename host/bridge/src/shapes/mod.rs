//! The JSON shapes of the records of the interface (`wit/types.wit`), in both directions.
//!
//! `PROTOCOL.md` has the rules. [`record`] and [`variant`] define a type with the shape and both conversions at once. Types
//! with shorthands on input read JSON by themselves: images, sandboxes, sidecars, commands, signals.

/// Implements `Deserialize` for a struct with `#[serde(remote = "Self")]`, which has the derived functions under their own
/// names. It is read from an object only. Derived code alone would also accept an array with the values of all fields.
macro_rules! from_object {
    ($name:ident) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Self::deserialize($crate::shapes::basic::Fields(from))
            }
        }
    };
}
pub(crate) use from_object;

/// Defines mirrors of records. Each field has the name that it has in the interface, and a type that implements `Shape`.
macro_rules! record {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, remote = "Self", expecting = "an object")]
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: $kind,)*
        }

        from_object!($name);

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, to)
            }
        }

        impl $crate::shapes::basic::Shape for $name {
            type Wit = sandbox_host::types::$name;

            fn from_wit(wit: Self::Wit) -> Self {
                $name { $($field: $crate::shapes::basic::Shape::from_wit(wit.$field),)* }
            }

            fn into_wit(self) -> Self::Wit {
                sandbox_host::types::$name { $($field: $crate::shapes::basic::Shape::into_wit(self.$field),)* }
            }
        }
    )*};
}

/// Defines mirrors of enums and variants. A case with a payload names it: `Exited(code: i32)`.
macro_rules! variant {
    ($($(#[$meta:meta])* $name:ident { $($case:ident $(($value:ident: $kind:ty))?),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub(crate) enum $name {
            $($case $(($kind))?,)*
        }

        impl $crate::shapes::basic::Shape for $name {
            type Wit = sandbox_host::types::$name;

            fn from_wit(wit: Self::Wit) -> Self {
                match wit {
                    $(sandbox_host::types::$name::$case $(($value))? =>
                        $name::$case $(($crate::shapes::basic::Shape::from_wit($value)))?,)*
                }
            }

            fn into_wit(self) -> Self::Wit {
                match self {
                    $($name::$case $(($value))? =>
                        sandbox_host::types::$name::$case $(($crate::shapes::basic::Shape::into_wit($value)))?,)*
                }
            }
        }
    )*};
}

pub(crate) mod basic;
pub(crate) mod command;
pub(crate) mod image;
pub(crate) mod results;
pub(crate) mod spec;
