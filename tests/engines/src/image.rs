//! Root file systems of the test images, made of the packages `busybox-static` and `bash-static`.

use std::{fs, io, path::Path, process::Command};

use tar::{Builder, EntryType, Header};

/// The images that each container engine has. Both have all programs of busybox in `/bin`, the users `root` and `agent`
/// (1000), and the command `sh`. `tools` has `/bin/bash` too. `wget` of the static busybox crashes, `nc` and `httpd` work.
pub const IMAGES: [&str; 2] = ["busybox:latest", "tools:latest"];

/// The instructions that complete an image after its import.
pub(crate) const CHANGES: [&str; 2] =
    ["ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", r#"CMD ["sh"]"#];

const FOLDERS: [(&str, u32, u64); 12] = [
    ("bin", 0o755, 0),
    ("dev", 0o755, 0),
    ("etc", 0o755, 0),
    ("home", 0o755, 0),
    ("home/agent", 0o755, 1000),
    ("proc", 0o555, 0),
    ("root", 0o700, 0),
    ("sys", 0o555, 0),
    ("tmp", 0o1777, 0),
    ("usr", 0o755, 0),
    ("usr/bin", 0o755, 0),
    ("var", 0o755, 0),
];

const FILES: [(&str, &str); 2] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000:agent:/home/agent:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n"),
];

/// Creates the root file system of an image of [`IMAGES`] as a tar archive. `packages` is the folder with the unpacked
/// packages.
///
/// # Errors
///
/// Fails if a program is neither there nor on the machine.
pub(crate) fn archive(image: &str, packages: &Path) -> io::Result<Vec<u8>> {
    let busybox = program(packages, "busybox")?;
    let mut tar = Builder::new(Vec::new());
    for (name, mode, owner) in FOLDERS {
        add(&mut tar, name, EntryType::Directory, mode, owner, &[])?;
    }
    for (name, text) in FILES {
        add(&mut tar, name, EntryType::Regular, 0o644, 0, text.as_bytes())?;
    }
    add(&mut tar, "bin/busybox", EntryType::Regular, 0o755, 0, &fs::read(&busybox)?)?;
    let listed = Command::new(&busybox).arg("--list").output()?;
    for name in String::from_utf8_lossy(&listed.stdout).lines().filter(|name| *name != "busybox") {
        link(&mut tar, &format!("bin/{name}"), "busybox")?;
    }
    // The first lines of scripts name it by this path.
    link(&mut tar, "usr/bin/env", "/bin/env")?;
    if image.starts_with("tools") {
        add(&mut tar, "bin/bash", EntryType::Regular, 0o755, 0, &fs::read(program(packages, "bash-static")?)?)?;
        link(&mut tar, "usr/bin/bash", "/bin/bash")?;
    }
    tar.into_inner()
}

/// Finds a program in the unpacked packages or on the machine.
fn program(packages: &Path, name: &str) -> io::Result<std::path::PathBuf> {
    [packages.join("usr/bin"), "/usr/bin".into(), "/bin".into()]
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("the program {name} is missing")))
}

fn header(kind: EntryType, mode: u32, owner: u64, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_size(size as u64);
    header
}

fn add(tar: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, mode: u32, owner: u64, data: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(kind, mode, owner, data.len()), name, data)
}

fn link(tar: &mut Builder<Vec<u8>>, name: &str, target: &str) -> io::Result<()> {
    tar.append_link(&mut header(EntryType::Symlink, 0o777, 0, 0), name, target)
}
