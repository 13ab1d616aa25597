//! Package tools inside containers, which work on the machine's own packages.

use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::client::{World, skipped};

/// Files in the machine's `/etc` that no package owns. The tested package contains one of them.
const STRAY: [&str; 3] = ["/etc/nsswitch.conf", "/etc/profile", "/etc/timezone"];

/// If `/etc` already has a file that a package contains, dpkg asks which one to keep, and fails without an answer.
#[tokio::test]
async fn a_package_is_installed_over_a_file_of_the_machine() {
    let has = |path: &str| Path::new(path).is_file();
    let stray = STRAY.into_iter().find(|path| has(path));
    let (Some(stray), true) = (stray, has("/usr/bin/dpkg-deb") && has("/usr/bin/apt-get")) else {
        return skipped("this machine has no package tools of Debian");
    };
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    let write = |name: &str, content: &str| {
        let path = tree.join(name.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let control =
        "Package: emulator-tiny\nVersion: 1\nArchitecture: all\nMaintainer: me <me@example.com>\nDescription: tiny\n";
    write("DEBIAN/control", control);
    write("DEBIAN/conffiles", &format!("{stray}\n/etc/emulator-tiny\n"));
    write(stray, "from the package\n");
    write("/etc/emulator-tiny", "own\n");
    let package = place.path().join("tiny.deb");
    let built =
        Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&package).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    let content = fs::read(&package).unwrap();
    let sum: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let index = format!("{control}Filename: ./tiny.deb\nSize: {}\nSHA256: {sum}\n\n", content.len());

    let mut world = World::start().await;
    let files = [("repository/tiny.deb", content), ("repository/Packages", index.into_bytes())];
    let lines = [
        "FROM debian",
        "COPY repository /repository",
        "RUN rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* && echo 'deb [trusted=yes] file:/repository ./' > /etc/apt/sources.list",
        "RUN apt-get update && apt-get install -y emulator-tiny && grep -qx own /etc/emulator-tiny",
        "RUN dpkg -s emulator-tiny | grep -qx 'Status: install ok installed' && dpkg -S /bin/sh && dpkg --audit",
        // The machine's packages are listed with their files, and their dependencies are complete.
        "RUN test \"$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\\n' | grep -cE '^ii +(dash|dpkg|coreutils)$')\" = 3",
        "RUN apt-get check && apt-get remove -y emulator-tiny && test ! -e /var/lib/dpkg/info/emulator-tiny.postrm",
    ];
    world.build_with(&lines, &files).await.unwrap();
    world.emulator.shutdown().await;
}
