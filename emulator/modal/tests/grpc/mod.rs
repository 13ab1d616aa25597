//! The emulator as a raw gRPC client sees it: the edges that the official clients only reach when something goes wrong.

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
