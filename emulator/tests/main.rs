//! Tests of the emulator: containers, the tools for files, RPCs as a raw client sends them, random requests. They are one
//! program, since linking one takes seconds.

#![allow(missing_docs)]

mod fstools;
mod fuzz;
mod grpc;
#[path = "../../tests/src/internet.rs"]
mod internet;
mod isolation;
#[path = "../../tests/src/own_process.rs"]
mod own_process;
mod program;
