//! The listeners: the main port ([`server`]), the port for connections by connect token ([`connect_tokens`]), and the
//! administration endpoint on the main port ([`admin`]).

pub mod admin;
pub mod auth;
pub mod connect_tokens;
pub mod cut_body;
pub mod plain;
pub mod server;
