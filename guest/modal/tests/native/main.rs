//! Tests of the provider on a scripted transport, whose clock is a number and whose network is a list of responses.
//! They cover cases that are hard to produce with an emulator.

#![allow(clippy::unwrap_used)]

mod any;
mod calls;
mod control;
mod script;
mod usage;
