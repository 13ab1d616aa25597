//! Builds whose processes attack the emulator.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::client::World;

/// Number of directories that one build creates.
const DIRECTORIES: usize = 200;

/// Replaces each directory `/w/N` with a link to a directory of the machine as soon as it exists. Keeps running after the line
/// that starts it.
const EXCHANGE: &str = "\
import ctypes, os
os.makedirs('/w')
os.makedirs('/l')
for n in range(200):
    os.symlink('CANARY', '/l/%d' % n)
if os.fork():
    os._exit(0)
os.setsid()
os.closerange(0, 3)
exchange = ctypes.CDLL(None).renameat2
for n in range(200):
    made, link = b'/w/%d' % n, b'/l/%d' % n
    while exchange(-100, made, -100, link, 2) != 0:
        pass
";

fn attributes(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.mode(), found.uid(), found.gid())
}

/// COPY, WORKDIR and mounts create directories and change their modes and owners, while a process of the build replaces the
/// directories with links.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_put_in_the_way_of_a_build_lead_nowhere() {
    let mut world = World::start().await;
    let outside = tempfile::tempdir().unwrap();
    let canary = outside.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "content").unwrap();
    fs::set_permissions(&canary, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(canary.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    let places = [canary.clone(), canary.join("file"), outside.path().to_owned()];
    let before: Vec<_> = places.iter().map(|place| attributes(place)).collect();
    // Without root privileges there is no other owner.
    let owner = if nix::unistd::geteuid().is_root() { "--chown=1234:1234" } else { "" };
    let exchange = EXCHANGE.replace("CANARY", canary.to_str().unwrap());
    let exchange = serde_json::to_string(&["python3", "-c", &exchange]).unwrap();
    for round in 0..8 {
        let mut lines = vec![
            "FROM debian AS from".to_owned(),
            format!("RUN mkdir -p /tree/d && echo inside >/tree/file && echo inside >/tree/d/file # {round}"),
            "FROM debian".to_owned(),
            format!("RUN {exchange}"),
        ];
        lines.extend((0..DIRECTORIES).map(|number| match number % 10 {
            // Mounts create directories as well, and afterwards remove those that are empty.
            7 if number % 50 == 7 => format!("RUN --mount=type=tmpfs,target=/w/{number}/a/b true"),
            // COPY creates one or two directories and copies files into them.
            3 => format!("COPY --from=from {owner} --chmod=777 /tree/file /w/{number}/"),
            6 => format!("COPY --from=from {owner} --chmod=777 /tree /w/{number}/a"),
            9 => format!("COPY --from=from {owner} --chmod=777 /tree/d /w/{number}"),
            _ => format!("WORKDIR /w/{number}"),
        }));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        if let Err(error) = world.build(&lines).await {
            // The build may fail because a directory was replaced. The error must name the line.
            assert!(["(COPY", "(WORKDIR", "(RUN --mount"].iter().any(|line| error.contains(line)), "{error}");
        }
        for (place, before) in places.iter().zip(&before) {
            assert_eq!(attributes(place), *before, "{} in round {round}", place.display());
        }
        let names: Vec<_> = fs::read_dir(&canary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
        assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "content");
    }
    world.emulator.shutdown().await;
}
