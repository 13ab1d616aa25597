//! Tests of the emulator: gRPC calls of a raw client, random requests, and the program. All tests are one binary, because
//! linking one takes seconds.

#![allow(missing_docs, clippy::unwrap_used)]

mod fuzz;
mod grpc;
#[expect(dead_code, reason = "shared with tests that are not asynchronous")]
#[path = "../../../tests/src/http_client.rs"]
mod http_client;
#[path = "../../../tests/src/internet.rs"]
mod internet;
#[path = "../../../tests/src/own_process.rs"]
mod own_process;
mod program;
mod sys;
