//! What interrupted emulators leave in the parent of their state directories, and its removal by the next emulator.

use std::path::{Path, PathBuf};

use modal_emulator::{Emulator, Options};

fn options(parent: &Path) -> Options {
    let program = Some(PathBuf::from(env!("CARGO_BIN_EXE_modal-emulator")));
    Options { program, state_dir: Some(parent.to_owned()), ..Options::default() }
}

fn left(parent: &Path) -> usize {
    std::fs::read_dir(parent).unwrap().count()
}

#[tokio::test]
async fn a_port_that_is_taken_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let refused = Emulator::start(Options { listen, ..options(parent.path()) }).await.unwrap_err();
    assert!(refused.to_string().contains("cannot listen on"), "{refused:#}");
    assert_eq!(left(parent.path()), 0);
}

/// The directory of such an emulator had no lock file any more, so it looked like a directory that was just being created.
#[test]
fn an_emulator_that_was_dropped_is_cleared_away_by_the_next() {
    let parent = tempfile::tempdir().unwrap();
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let first = runtime();
    drop(first.block_on(Emulator::start(options(parent.path()))).unwrap());
    drop(first);
    let second = runtime();
    let emulator = second.block_on(Emulator::start(options(parent.path()))).unwrap();
    assert_eq!(left(parent.path()), 1);
    second.block_on(emulator.shutdown());
    assert_eq!(left(parent.path()), 0);
}
