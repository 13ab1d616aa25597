//! Dockerfile text taken apart, by the rules of Docker's own parser and with no file or network access. The host library and
//! the provider component share this crate, so that both find the same instructions, stages and context files.
//!
//! [`parse`] finds the instructions; it accepts every text, since the builder reports what it cannot carry out.
//! [`Instruction`] tells what one of them means; [`expand`] puts in the values of variables.

mod expand;
mod instruction;
mod lines;
mod words;

pub use expand::{Value, expand};
pub use instruction::{Mount, Stage, Transfer, is_remote};
pub use lines::{File, Instruction, has_entry_point, parse, up_to_stage};
pub use words::{flags, json_list, opens_document, words};
