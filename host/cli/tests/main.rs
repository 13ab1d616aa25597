//! Tests of the program `sandbox` against a component and servers made for tests. They are one program, since linking one takes
//! seconds.

#![allow(missing_docs, clippy::unwrap_used)]

mod cli;
#[path = "../../lib/tests/common/mod.rs"]
mod common;
mod untrusted;
