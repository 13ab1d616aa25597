//! Copies the part of the machine's `/etc` that programs in containers need, without data about the machine or its users.
//!
//! Three filters are applied. Only names that programs are known to need are copied ([`NEEDED`]); all other names are
//! omitted, even if they are readable. Only files that every user of the machine may read are copied. Files with a
//! private key, or with a password in a URL, are omitted. The account files are generated: they contain system accounts,
//! without users and passwords.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink},
    path::Path,
};

use super::make::make_directory;

/// Names in `/etc` that programs need, in groups; `*` at the end matches any suffix. Account files and the container's
/// own files are generated, not copied.
const NEEDED: [&str; 8] = [
    // The dynamic linker, the C library and their configuration.
    "ld.so.cache ld.so.conf ld.so.conf.d nsswitch.conf host.conf gai.conf protocols services rpc networks ethertypes netconfig \
     bindresvport.blacklist localtime timezone locale.alias locale.conf locale.gen vconsole.conf libaudit.conf gss xattr.conf",
    // The identity of the system.
    "debian_version os-release lsb-release lsb-release.d issue issue.net alpine-release arch-release fedora-release \
     redhat-release centos-release rocky-release SuSE-release system-release*",
    // The choice between alternative programs, and certificates.
    "alternatives ssl pki ca-certificates ca-certificates.conf crypto-policies gnutls selinux",
    // Shells, terminals, login.
    "bash.bashrc bashrc bash_completion bash_completion.d profile skel shells inputrc terminfo DIR_COLORS* login.defs pam.d \
     pam.conf security adduser.conf deluser.conf csh* zsh* zprofile fish",
    // Package managers.
    "apt dpkg debconf.conf ucf.conf apk dnf yum* rpm pacman.conf pacman.d",
    // Programming languages and their tools.
    "perl python* java* maven gradle ant R php ruby* lua julia octave* dotnet ghc gdb debuginfod gprofng.rc ccache.conf openmpi \
     libibverbs.d",
    // File types and documents.
    "mime.types mailcap mailcap.order magic magic.mime groff manpath.config man_db.conf papersize texmf sgml xml \
     dictionaries-common fonts ImageMagick* ghostscript mke2fs.conf e2scrub.conf",
    // Editors and displays.
    "vim nanorc emacs screenrc tmux.conf X11 gtk* xdg glvnd vulkan",
];

/// Names that are omitted at any depth below those.
const NOT_NEEDED: [&str; 5] = ["private", "auth.conf", "auth.conf.d", "opasswd", "credentials"];

/// Maximum size of a file, in bytes. Larger files are data, not configuration, and would slow down every start.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The first id of human users, and the id that stands for unmapped ids, which is a system account.
const PEOPLE: u32 = 1000;
const OVERFLOW_ID: u32 = 65_534;

/// Fills `to`, an empty directory, with the files that containers see of `from`, the machine's `/etc`.
pub(crate) fn make(from: &Path, to: &Path, privileged: bool) -> io::Result<()> {
    let wanted = |name: &str| {
        NEEDED.iter().flat_map(|group| group.split_whitespace()).any(|needed| match needed.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == needed,
        })
    };
    copy(from, to, privileged, &|name| wanted(name))?;
    accounts(from, to)?;
    fs::write(to.join("machine-id"), "")?;
    symlink("/proc/self/mounts", to.join("mtab"))
}

/// Copies the files that every user may read and that contain no secrets.
fn copy(from: &Path, to: &Path, privileged: bool, wanted: &dyn Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(from)?.flatten() {
        let name = entry.file_name();
        let (source, target) = (entry.path(), to.join(&name));
        let Some(name) = name.to_str().filter(|name| wanted(name) && !NOT_NEEDED.contains(name)) else { continue };
        // Files may vanish in the meantime, and files that cannot be read are not copied.
        let Ok(found) = fs::symlink_metadata(&source) else { continue };
        let copied = if found.is_symlink() {
            // A second hard link to the symbolic link, which has the owner already, costs less than a new one. Symbolic
            // links cannot be changed, so that container and machine do not notice.
            if fs::hard_link(&source, &target).is_ok() {
                continue;
            }
            fs::read_link(&source).and_then(|link| symlink(link, &target))
        } else if found.is_dir() && found.mode() & 0o005 == 0o005 {
            make_directory(&target, found.mode() & 0o7777).and_then(|()| copy(&source, &target, privileged, &|_| true))
        } else if found.is_file() && found.mode() & 0o004 != 0 && found.len() <= LARGEST && !is_key(name) {
            match fs::read(&source) {
                Ok(content) if !is_secret(&content) => {
                    let mode = fs::Permissions::from_mode(found.mode() & 0o7777);
                    fs::write(&target, content).and_then(|()| fs::set_permissions(&target, mode))
                }
                _ => continue,
            }
        } else {
            continue;
        };
        match copied {
            Ok(()) if privileged => lchown(&target, Some(found.uid()), Some(found.gid()))?,
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Returns whether the name is that of a key file in a binary format, which cannot be recognized by its content.
fn is_key(name: &str) -> bool {
    [".key", ".p12", ".pfx", ".keytab"].iter().any(|end| name.ends_with(end)) || name.starts_with("id_")
}

/// Returns whether a file contains a private key, or a URL with a password.
fn is_secret(content: &[u8]) -> bool {
    contains(content, b"PRIVATE KEY-----") || has_password(content)
}

fn contains(content: &[u8], what: &[u8]) -> bool {
    content.windows(what.len()).any(|part| part == what)
}

/// Searches for `://user:password@`.
fn has_password(content: &[u8]) -> bool {
    let starts = content.windows(3).enumerate().filter(|(_, part)| part == b"://").map(|(at, _)| at + 3);
    starts.into_iter().any(|start| {
        let rest = &content[start..];
        let end = rest.iter().position(|byte| byte.is_ascii_whitespace() || b"/\"'<>,;".contains(byte));
        let authority = &rest[..end.unwrap_or(rest.len())];
        let user = authority.iter().position(|byte| *byte == b'@').map(|at| &authority[..at]);
        user.is_some_and(|user| user.contains(&b':'))
    })
}

/// Writes the account files: only system accounts, without passwords.
fn accounts(from: &Path, to: &Path) -> io::Result<()> {
    let read = |name: &str| String::from_utf8_lossy(&fs::read(from.join(name)).unwrap_or_default()).into_owned();
    let system = |line: &&str| {
        let id = line.split(':').nth(2).and_then(|id| id.parse::<u32>().ok());
        id.is_some_and(|id| id < PEOPLE || id == OVERFLOW_ID)
    };
    let passwd: Vec<String> = read("passwd").lines().filter(system).map(str::to_owned).collect();
    let name = |line: &String| line.split(':').next().unwrap_or_default().to_owned();
    let names: Vec<String> = passwd.iter().map(name).collect();
    let group: Vec<String> = read("group")
        .lines()
        .filter(system)
        .filter_map(|line| {
            let (front, members) = line.rsplit_once(':')?;
            let members: Vec<&str> = members.split(',').filter(|one| names.iter().any(|name| name == one)).collect();
            Some(format!("{front}:{}", members.join(",")))
        })
        .collect();
    let shadow: Vec<String> = names.iter().map(|name| format!("{name}:*:19700:0:99999:7:::")).collect();
    let gshadow: Vec<String> = group.iter().map(|line| format!("{}:*::", name(line))).collect();
    let none = Vec::new();
    for (name, lines, mode) in [
        ("passwd", &passwd, 0o644),
        ("group", &group, 0o644),
        ("shadow", &shadow, 0o640),
        ("gshadow", &gshadow, 0o640),
        ("subuid", &none, 0o644),
        ("subgid", &none, 0o644),
    ] {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(to.join(name), text)?;
        fs::set_permissions(to.join(name), fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_programs_need_and_no_secrets() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |name: &str, content: &str, mode: u32| {
            let path = from.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n";
        for (name, content, mode) in [
            ("ssl/certs/ca.pem", "-----BEGIN CERTIFICATE-----\n", 0o644),
            ("ssl/certs/server.pem", pem, 0o644),
            ("ssl/private/open.txt", "x", 0o644),
            ("ssl/shut.cnf", "x", 0o640),
            ("apt/sources.list", "deb https://mirror.example/debian stable main\n", 0o644),
            ("apt/sources.list.d/paid.list", "deb https://me:secret@mirror.example/debian stable main\n", 0o644),
            ("apt/auth.conf.d/mirror", "machine mirror.example login me\n", 0o644),
            ("skel/note.sh", "# see https://example.com/a@b:c\n", 0o755),
            ("profile.d/proxy.sh", "export TOKEN=x\n", 0o644),
            ("pip.conf", "[global]\nindex-url = https://inside.example/\n", 0o644),
            ("wifi-passwords", "x", 0o644),
            ("environment", "TOKEN=x\n", 0o644),
            ("java-17-openjdk/security/id_rsa", "x", 0o644),
            ("python3/tls.key", "x", 0o644),
            ("python3/debian_config", "x", 0o644),
        ] {
            write(name, content, mode);
        }
        write(
            "passwd",
            "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann Other:/home/ann:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
            0o644,
        );
        write("group", "root:x:0:\nsudo:x:27:ann,root\nann:x:1000:\n", 0o644);
        symlink("../skel/note.sh", from.path().join("ssl/certs/link")).unwrap();
        make(from.path(), to.path(), false).unwrap();
        let link = "ssl/certs/link";
        assert_eq!(fs::read_link(to.path().join(link)).unwrap(), Path::new("../skel/note.sh"));
        let inode = |place: &Path| fs::symlink_metadata(place.join(link)).unwrap().ino();
        assert_eq!(inode(from.path()), inode(to.path()));
        let there = |name: &str| to.path().join(name).exists();
        for name in ["ssl/certs/ca.pem", "apt/sources.list", "skel/note.sh", "python3/debian_config", "machine-id"] {
            assert!(there(name), "{name}");
        }
        for name in [
            "ssl/certs/server.pem",
            "ssl/private",
            "ssl/shut.cnf",
            "apt/sources.list.d/paid.list",
            "apt/auth.conf.d",
            "profile.d",
            "pip.conf",
            "wifi-passwords",
            "environment",
            "java-17-openjdk/security/id_rsa",
            "python3/tls.key",
        ] {
            assert!(!there(name), "{name}");
        }
        let read = |name: &str| fs::read_to_string(to.path().join(name)).unwrap();
        assert_eq!(read("passwd").matches("ann").count() + read("group").matches("ann").count(), 0);
        assert_eq!(read("group"), "root:x:0:\nsudo:x:27:root\n");
        assert_eq!(read("shadow"), "root:*:19700:0:99999:7:::\nnobody:*:19700:0:99999:7:::\n");
        assert_eq!(fs::metadata(to.path().join("skel/note.sh")).unwrap().mode() & 0o777, 0o755);
    }
}
