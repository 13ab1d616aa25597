//! Output of the program: results on standard output, everything else on standard error, failures in three parts.
//!
//! No other module prints.

pub mod failure;
pub mod junit;
pub mod line;
pub mod print;
pub mod results;
pub mod text;
pub mod voice;

pub use failure::{DEADLINE, FAILED, Failure, INTERRUPTED, UNREAD, is_broken_pipe};
pub use line::printable;
pub use print::{Array, Rows, print, print_json, print_lines, print_own, print_text, table};
pub use voice::{Voice, fail_usage};
