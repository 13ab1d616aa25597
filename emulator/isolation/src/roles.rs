//! The inner roles of the program: a container's init, what mounts images in a running container, and the file tools inside
//! a container.
//!
//! An emulator starts its own program again for them, so that it needs no other file on the machine. Which role it is to
//! play, a program sees by the name it was started under.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use crate::{fstools, inside::init, live_mounts, spawner};

/// Plays an inner role if this process was started for one, and then never returns; otherwise returns at once. To be
/// called first thing in `main` of every program that starts an emulator, before there is any other thread.
pub fn child_entry() {
    let Some(name) = std::env::args_os().next() else { return };
    // The first process of a container bears exactly this name; a path would be another program of that name.
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
