//! The functions of a plugin as plain functions that return boxed futures.
//!
//! The compiler generates the code of an asynchronous function in every crate that awaits it. Without this module, each
//! program that uses the library would contain the conversions of all arguments and replies once more.

use wasmtime::Store;

use crate::interface::{Bound, Guest, table};
use crate::runtime::call::Answer;
use crate::runtime::store::State;
use crate::types::*;

/// The functions of an instance.
#[derive(Clone, Copy)]
pub(crate) struct Functions<'a>(Guest<'a>);

impl<'a> Functions<'a> {
    /// Returns the functions of an instance.
    pub(crate) fn of(bound: &'a Bound) -> Functions<'a> {
        Functions(bound.guest())
    }
}

/// Defines a method for each function of the interfaces.
macro_rules! boxed {
    ($($interface:ident {
        $($function:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*
    })*) => {
        // The interface determines the number of arguments.
        #[allow(clippy::too_many_arguments)]
        impl<'a> Functions<'a> {$($(
            pub(crate) fn $function(
                self,
                store: &'a mut Store<State>,
                $($name: $kind),*
            ) -> Answer<'a, $answer> {
                Box::pin(self.0.$function(store, $($name),*))
            }
        )*)*}
    };
}

table!(boxed);
