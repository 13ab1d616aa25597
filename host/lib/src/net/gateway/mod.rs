//! A gateway to a provider for hosts that support only HTTP/1.1: see [`server`].

mod doors;
mod pages;
mod reply;
mod rewrite;
mod server;
mod web;

pub use server::Gateway;
