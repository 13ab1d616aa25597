//! Bookkeeping of commands that is the same for every service: output streams that resume at an offset, input that is
//! written in pieces, the head or the tail of long output, time limits, and `run`, which combines all of them.

mod capture;
mod deadline;
mod feed;
mod follow;
mod read;
mod run;

pub use capture::Capture;
pub use deadline::{Deadlines, KILL_TIME, KILLED_WAIT};
pub use feed::feed;
pub use follow::{Follow, Opening, Piece, Pieces, Source};
pub use read::{fill, share};
pub use run::{Running, run};
