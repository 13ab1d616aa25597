//! Bookkeeping of commands that is the same for every service: an output stream that is resumed at its offset, input that is
//! fed in pieces, the head or the tail of long output, time limits, and all of it in one call.

mod capture;
mod deadline;
mod feed;
mod follow;
mod read;
mod run;

pub use capture::Capture;
pub use deadline::{Deadlines, SWEEP_TIME, SWEPT_WAIT};
pub use feed::feed;
pub use follow::{Follow, Opening, Piece, Pieces, Source};
pub use read::{fill, share};
pub use run::{Running, run};
