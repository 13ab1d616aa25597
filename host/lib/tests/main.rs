//! Tests of the host library and of the program `sandbox`, against a test component and test servers. They are a single
//! program, because linking takes seconds.

#![allow(missing_docs, clippy::unwrap_used)]

mod builds;
mod common;
mod gateway;
mod hostile;
#[expect(dead_code, reason = "shared with tests that need all of it")]
#[path = "../../../tests/src/http_client.rs"]
mod http_client;
mod instances;
mod loading;
mod manifest;
#[expect(dead_code, reason = "shared with tests that need all of it")]
#[path = "../../../tests/src/own_process.rs"]
mod own_process;
mod process;
mod proxy;
mod single;
mod wire;
