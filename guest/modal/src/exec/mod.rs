//! Commands.

pub mod argv;
pub mod inside;
pub mod output;
pub mod process;
pub mod run;
pub mod signal;
pub mod user;
