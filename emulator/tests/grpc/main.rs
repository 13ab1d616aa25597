//! The emulator as a raw gRPC client sees it: the edges that the official clients only reach when something goes wrong.

mod auth;
mod bad_input;
mod chaos;
mod client;
mod exec;
mod load;
mod manual;
mod sandbox;
mod stdin;
