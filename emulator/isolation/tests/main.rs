//! Tests of containers and of the file tools. They are a single program because linking one takes seconds.

#![allow(missing_docs, clippy::unwrap_used)]

mod containers;
mod fstools;
