//! The inner roles of the program: the init of a container, the process that mounts images in a running container, and
//! the file tools inside a container.
//!
//! An emulator executes its own program again for these roles, so that it needs no other file on the machine. The program
//! recognizes its role by `argv[0]`.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use crate::{fstools, inside::init, live_mounts, spawner};

/// Runs an inner role and never returns if this process was started for one; otherwise returns at once. Must be called
/// first in `main` of every program that starts an emulator, before other threads exist.
pub fn child_entry() {
    let Some(name) = std::env::args_os().next() else { return };
    // The init of a container has exactly this name; a path would be another program with that file name.
    if name == spawner::INIT_NAME {
        init::main();
    }
    if name == live_mounts::NAME {
        live_mounts::main();
    }
    let base = name.as_bytes().rsplit(|byte| *byte == b'/').next().map(OsStr::from_bytes);
    if base == Some(OsStr::new(fstools::NAME)) {
        let arguments: Vec<_> = std::env::args_os().collect();
        std::process::exit(fstools::run(&arguments));
    }
}
