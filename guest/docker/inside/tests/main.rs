//! Tests that run the program as it runs in a container, with another directory than `/.sandbox`.
//!
//! They need root, because the program changes users and owners.

#![allow(missing_docs, clippy::unwrap_used)]

mod commands;
mod files;
mod harness;
mod init;
mod input;
mod process_tree;
mod terminals;
mod trees;
mod users;
mod watches;
