//! The listeners: the port that all calls come to, the one for connections by token, and what is served over plain HTTP.

pub mod admin;
pub mod auth;
pub mod connect_tokens;
pub mod server;
