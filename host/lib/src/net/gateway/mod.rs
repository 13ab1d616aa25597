//! A door for hosts that speak only HTTP/1.1: see [`server`].

mod doors;
mod reply;
mod rewrite;
mod server;
mod web;

pub use server::Gateway;
