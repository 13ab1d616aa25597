//! Tests of the whole system: the programs that `cargo xtask build` made, the official SDKs, stock WASI hosts. All
//! tests are modules of one program, because linking a program takes seconds.

#![allow(missing_docs, clippy::unwrap_used)]

mod bad_input;
mod cli;
mod command_line;
mod component;
mod conformance;
mod corpus;
mod emulator;
mod faults;
mod guide;
mod host;
mod hosts;
mod keeper;
mod provider_control;
mod provider_exec;
mod provider_files;
mod sdk;
