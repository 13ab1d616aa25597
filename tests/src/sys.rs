//! The unsafe code of this crate.

use std::{os::unix::process::CommandExt as _, process::Command};

use nix::sched::{CloneFlags, unshare};

/// Makes the program of `command` start in a network namespace of its own. With `user_maps`, it also gets a user namespace,
/// and each text is written to its file in `/proc/self` there.
pub fn start_in_new_network(command: &mut Command, user_maps: Option<[(&'static str, String); 3]>) {
    let enter = move || {
        let Some(maps) = &user_maps else {
            return Ok(unshare(CloneFlags::CLONE_NEWNET)?);
        };
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
        maps.iter().try_for_each(|(file, map)| std::fs::write(file, map))
    };
    // SAFETY: between fork and exec `enter` only makes system calls, on texts that were allocated before the fork. It takes no
    // lock and, since the paths are short, allocates nothing.
    unsafe { command.pre_exec(enter) };
}
