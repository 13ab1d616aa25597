//! The host library for C: `sandbox_host.h` documents its functions. `sys` has the functions with C types, and `library` what
//! they do.

mod library;
mod sys;
