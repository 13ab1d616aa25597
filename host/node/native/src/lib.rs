//! The native module of the npm package `sandbox-host`: a shell over `sandbox-bridge` for Node.
//!
//! The JavaScript part numbers its calls, and keeps the promise of each call by its number. [`sys`] passes a call to its
//! [`channel`], which runs it on the threads of the bridge. The result returns to JavaScript by the number of the call. No
//! call has a thread of its own.

mod channel;
mod sys;
