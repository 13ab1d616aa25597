//! The provider on a scripted transport: time is a number, the network a list of answers. What is tested here is what an
//! emulator shows badly.

mod any;
mod calls;
mod control;
mod script;
mod usage;
