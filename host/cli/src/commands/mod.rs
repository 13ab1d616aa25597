//! The subcommands.

pub mod alter;
pub mod copy;
pub mod doctor;
pub mod live;
pub mod manage;
pub mod network;
pub mod plugin;
pub mod run;
pub mod terminal;
