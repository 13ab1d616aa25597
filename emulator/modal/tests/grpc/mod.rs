//! Tests with a raw gRPC client, for edge cases that the official clients reach only after failures.

mod auth;
mod bad_input;
mod builds;
mod chaos;
pub mod client;
mod endings;
mod exec;
mod hostile_build;
mod leftovers;
mod load;
mod logs;
mod manual;
mod network;
mod packages;
mod robust;
mod sandbox;
mod stdin;
mod together;
