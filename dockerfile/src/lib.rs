//! Parses Dockerfiles by the rules of Docker's own parser, without file or network access. The host library and the
//! provider component share this crate, so that both find the same instructions, stages and context files.
//!
//! [`parse`] finds the instructions. It accepts every text, because the builder reports errors. [`Instruction`] gives
//! the meaning of an instruction, and [`expand`] replaces variables.

mod expand;
mod instruction;
mod lines;
mod words;

pub use expand::{Value, expand};
pub use instruction::{Mount, Needs, Part, Stage, Transfer, is_remote};
pub use lines::{File, Instruction, has_entry_point, parse, syntax, up_to_stage};
pub use words::{flags, json_list, opens_document, words};
