//! The listeners: the port that all calls come to ([`server`]), the one for connections by token ([`connect_tokens`]), and what is
//! served over plain HTTP ([`admin`]).

pub mod admin;
pub mod auth;
pub mod connect_tokens;
pub mod cut_body;
pub mod plain;
pub mod server;
