//! Containers that reach their limits of memory and disk.

use std::time::Duration;

use modal_emulator::Options;
use modal_proto::client as proto;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use proto::generic_result::GenericStatus;

use super::client::{World, skipped};

const MIB: u64 = 1 << 20;

/// A Python program that allocates and fills 300 MiB.
const HOG: &str =
    "import ctypes; x = bytearray(300 << 20); ctypes.memset((ctypes.c_char * len(x)).from_buffer(x), 1, len(x))";

fn limited(world: &World, command: &[&str]) -> proto::Sandbox {
    proto::Sandbox {
        entrypoint_args: command.iter().map(|word| (*word).to_owned()).collect(),
        resources: Some(proto::Resources { memory_mb_max: 64, ..Default::default() }),
        ..world.definition()
    }
}

/// Returns whether this machine limits memory. The emulator reports at its start if it does not.
fn limits_memory(world: &World) -> bool {
    world.emulator.state().engine.limits_missing().iter().all(|missing| !missing.contains("memory limits"))
}

#[tokio::test]
async fn running_out_of_memory_is_told_as_such() {
    let mut world = World::start().await;
    if !limits_memory(&world) {
        return skipped("this machine does not limit memory");
    }
    // The kernel kills the entry point itself, or the child of an entry point.
    for command in [["python3", "-c", HOG].as_slice(), &["sh", "-c", &format!("python3 -c '{HOG}'; exit $?")]] {
        let definition = limited(&world, command);
        let sandbox = world.sandbox_with(definition).await;
        let result = world.wait(&sandbox.id).await.unwrap();
        assert_eq!((result.status(), result.exitcode), (GenericStatus::KernelOomKill, 137), "{result:?}");
    }
    // A killed exec does not end the sandbox, and a later exit for another reason is not reported as out of memory.
    let definition = limited(&world, &["sh", "-c", "until test -e /end; do sleep 0.01; done; exit 3"]);
    let mut sandbox = world.sandbox_with(definition).await;
    sandbox.start("hog", &format!("python3 -c '{HOG}'")).await;
    assert_eq!(sandbox.wait("hog").await.unwrap(), 137);
    sandbox.start("end", "touch /end").await;
    let result = world.wait(&sandbox.id).await.unwrap();
    assert_eq!((result.status(), result.exitcode), (GenericStatus::Failure, 3), "{result:?}");
}

#[tokio::test]
async fn a_full_disk_ends_what_filled_it() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can mount a small disk");
    }
    // A small disk that only this thread and its children see.
    let parent = tempfile::tempdir().unwrap();
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
    nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    nix::mount::mount(Some("disk"), parent.path(), Some("tmpfs"), MsFlags::empty(), Some("size=256m")).unwrap();
    let options =
        Options { state_dir: Some(parent.path().to_owned()), keep_free: Some(128 * MIB), ..Options::default() };
    let mut world = World::with(options).await;
    let mut bystander = world.sandbox().await;
    let scripts = [
        // The disk is filled by files of the sandbox, or by the output of a command.
        "dd if=/dev/zero of=/fill bs=1M",
        "cat /dev/zero; sleep 1000",
    ];
    for script in scripts {
        let mut filler = world.sandbox().await;
        filler.start("fill", script).await;
        let result = world.wait(&filler.id).await.expect("it is ended");
        assert_eq!((result.status(), result.exitcode), (GenericStatus::InternalFailure, 137), "{script}: {result:?}");
        assert!(result.exception.contains("disk"), "{}", result.exception);
        // The files of the sandbox are removed after it has ended.
        let free =
            || nix::sys::statvfs::statvfs(parent.path()).map(|disk| disk.blocks_available() * disk.fragment_size());
        let room = async {
            while free().unwrap() < 128 * MIB {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), room).await.expect("there is room again");
    }
    bystander.start("x", "echo lives").await;
    assert_eq!(bystander.read("x", 0, 0).await.unwrap().0, b"lives\n");
}
