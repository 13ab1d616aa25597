//! The interface: its records, the error that its functions give, and the checks of their arguments that are the same for
//! every provider. Imports nothing of the other folders.

pub mod check;
pub mod error;
pub mod ids;
pub mod time;
pub mod wit;

pub use error::{Error, Result};
