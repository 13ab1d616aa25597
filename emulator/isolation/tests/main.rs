//! Tests of containers and of the file tools in them. They are one program, since linking one takes seconds.

#![allow(missing_docs)]

mod containers;
mod fstools;
