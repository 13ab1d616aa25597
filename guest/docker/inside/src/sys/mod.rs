//! The system calls for which `rustix` has no safe function.
//!
//! The program never has a second thread. The safety of [`process::fork`] depends on that.

pub mod page;
pub mod process;
#[cfg(all(target_env = "musl", not(test)))]
mod unwind;
