//! Tests of the host library and the program `sandbox` against a component and servers made for tests. They are one program,
//! since linking one takes seconds.

#![allow(missing_docs)]

mod common;
mod gateway;
mod hostile;
mod instances;
mod loading;
#[expect(dead_code, reason = "shared with tests that need all of it")]
#[path = "../../../tests/src/own_process.rs"]
mod own_process;
mod process;
mod proxy;
mod wire;
