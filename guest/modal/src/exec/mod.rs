//! Commands. From the innermost module to the outermost: one command by its id at Modal ([`process`], [`stdin`],
//! [`output`], [`verdict`]); the provider's own programs in a sandbox ([`placed`], [`helper`], [`shell`], [`script`]);
//! the commands of callers ([`user`], [`start`], [`commands`]).

pub mod commands;
pub mod helper;
pub mod output;
pub mod placed;
pub mod process;
pub mod script;
pub mod shell;
pub mod start;
pub mod stdin;
pub mod user;
pub mod verdict;
