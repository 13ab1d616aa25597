//! Tests of the emulator: RPCs as a raw client sends them, random requests, the program. They are one program, since linking
//! one takes seconds.

#![allow(missing_docs)]

mod fuzz;
mod grpc;
#[path = "../../../tests/src/internet.rs"]
mod internet;
#[path = "../../../tests/src/own_process.rs"]
mod own_process;
mod program;
mod sys;
