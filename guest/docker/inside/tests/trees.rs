//! Trees: archives of directories.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use crate::{
    harness::{Answer, Sandbox},
    needs_root,
};

/// An entry of an archive, with a header that is written by hand: no library writes the wrong ones.
fn entry(name: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[148..156].copy_from_slice(b"        ");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().div_ceil(512) * 512, 0);
    block
}

fn unpack(sandbox: &Sandbox, id: &str, entries: &[Vec<u8>]) -> Answer {
    sandbox.put("tree", &[entries.concat(), vec![0; 1024]].concat());
    let id = format!("transfer={id}");
    sandbox.call("write-tree", &[&sandbox.at("target"), &id, "file=tree", "eof=1", "user=65534:65534"])
}

fn exists(sandbox: &Sandbox, name: &str) -> bool {
    fs::symlink_metadata(sandbox.path(name)).is_ok()
}

#[test]
fn a_tree_survives_a_round_trip() {
    needs_root!();
    let sandbox = Sandbox::new();
    let long = "n".repeat(200);
    let source = sandbox.path("source");
    fs::create_dir_all(source.join("dir").join(&long)).unwrap();
    fs::write(source.join("file"), vec![7; 70_001]).unwrap();
    fs::write(source.join("empty"), "").unwrap();
    fs::write(source.join("dir").join(&long).join("ümläut"), "x").unwrap();
    fs::hard_link(source.join("file"), source.join("zz-hard")).unwrap();
    symlink("/etc/passwd", source.join("link")).unwrap();
    symlink("l".repeat(150), source.join("long-link")).unwrap();
    fs::set_permissions(source.join("file"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::create_dir(source.join("closed")).unwrap();
    fs::write(source.join("closed/inner"), "y").unwrap();
    fs::set_permissions(source.join("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    let mut archive = Vec::new();
    loop {
        let offset = format!("offset={}", archive.len());
        let answer = sandbox.call("read-tree", &[&sandbox.at("source"), "transfer=r", &offset, "max=30000"]).ok();
        archive.extend(answer.data());
        if answer.json() == r#"{"end":true}"# {
            break;
        }
    }
    // GNU tar reads it too.
    fs::write(sandbox.path("archive.tar"), &archive).unwrap();
    let listing = std::process::Command::new("tar").arg("tf").arg(sandbox.path("archive.tar")).output().unwrap();
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    assert!(listing.starts_with("./\n./closed/\n./closed/inner\n./dir/\n"), "{listing}");
    for (index, piece) in archive.chunks(40_000).enumerate() {
        sandbox.put("piece", piece);
        let offset = format!("offset={}", index * 40_000);
        let eof = format!("eof={}", u8::from((index + 1) * 40_000 >= archive.len()));
        let args = [
            sandbox.at("target/tree"),
            "transfer=w".into(),
            offset,
            eof,
            "file=piece".into(),
            "user=65534:65534".into(),
        ];
        sandbox.call("write-tree", &args.each_ref().map(String::as_str)).ok();
    }
    let compare = std::process::Command::new("diff")
        .args(["-r", "--no-dereference"])
        .arg(&source)
        .arg(sandbox.path("target/tree"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&compare.stdout), "");
    let metadata = |name: &str| fs::symlink_metadata(sandbox.path("target/tree").join(name)).unwrap();
    assert_eq!((metadata("file").mode() & 0o7777, metadata("closed").mode() & 0o7777), (0o751, 0o555));
    assert_eq!((metadata("file").uid(), metadata("link").uid(), metadata("dir").gid()), (65534, 65534, 65534));
    assert_eq!((metadata("file").ino(), metadata("file").nlink()), (metadata("zz-hard").ino(), 2));
    assert_eq!(metadata("file").mtime(), fs::metadata(source.join("file")).unwrap().mtime());
    assert_eq!(metadata("dir").mtime(), fs::metadata(source.join("dir")).unwrap().mtime());
}

#[test]
fn archives_of_gnu_tar_are_unpacked() {
    needs_root!();
    let sandbox = Sandbox::new();
    let name = format!("{0}/{0}/file", "d".repeat(90));
    let file = sandbox.path("source").join(&name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "content").unwrap();
    for format in ["gnu", "pax", "ustar"] {
        let source = sandbox.path("source").display().to_string();
        let archive = std::process::Command::new("tar")
            .args(["-c", "-C", &source, &format!("--format={format}"), "."])
            .output()
            .unwrap();
        assert!(archive.status.success());
        sandbox.put("tree", &archive.stdout);
        let target = format!("target-{format}");
        sandbox.call("write-tree", &[&sandbox.at(&target), &format!("transfer={format}"), "file=tree", "eof=1"]).ok();
        assert_eq!(fs::read_to_string(sandbox.path(&target).join(&name)).unwrap(), "content", "{format}");
    }
}

#[test]
fn entries_cannot_leave_the_directory() {
    needs_root!();
    let sandbox = Sandbox::new();
    let outside = sandbox.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let out = outside.display().to_string();
    let good = || entry("good", b'0', "", b"good");
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("parent", vec![good(), entry("../outside/x", b'0', "", b"x")]),
        ("inner", vec![good(), entry("a/../../outside/x", b'0', "", b"x")]),
        ("absolute", vec![good(), entry(&format!("{out}/x"), b'0', "", b"x")]),
        ("hard", vec![good(), entry("x", b'1', "../outside/secret", b"")]),
        ("hard-absolute", vec![good(), entry("x", b'1', &format!("{out}/secret"), b"")]),
        ("device", vec![good(), entry("x", b'3', "", b"")]),
        ("unknown", vec![good(), entry("x", b'S', "", b"")]),
    ];
    for (id, entries) in &cases {
        assert_eq!(unpack(&sandbox, id, entries).code(), "invalid", "{id}");
        assert!(!exists(&sandbox, "target"), "{id}: nothing is written");
    }
    let through: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("link", vec![entry("l", b'2', &out, b""), entry("l/x", b'0', "", b"x")]),
        ("relative", vec![entry("m", b'2', "../outside", b""), entry("m/x", b'0', "", b"x")]),
        ("directory", vec![entry("n", b'2', &out, b""), entry("n/", b'5', "", b"")]),
        ("hard-through", vec![entry("o", b'2', &out, b""), entry("y", b'1', "o/secret", b"")]),
    ];
    for (id, entries) in &through {
        assert_eq!(unpack(&sandbox, id, entries).code(), "invalid", "{id}");
        assert!(!exists(&sandbox, "target/y"));
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    // A file replaces a link instead of following it.
    symlink(outside.join("secret"), sandbox.path("target/z")).unwrap();
    unpack(&sandbox, "replace", &[entry("z", b'0', "", b"new")]).ok();
    assert!(fs::symlink_metadata(sandbox.path("target/z")).unwrap().is_file());
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
}

#[test]
fn malformed_archives_are_refused() {
    needs_root!();
    let sandbox = Sandbox::new();
    let put = |id: &str, bytes: &[u8]| {
        sandbox.put("tree", bytes);
        sandbox.call("write-tree", &[&sandbox.at("target"), &format!("transfer={id}"), "file=tree", "eof=1"])
    };
    let file = entry("file", b'0', "", &[b'x'; 2000]);
    for length in [100, 511, 512, 1000, 2000] {
        assert_eq!(
            put(&format!("cut{length}"), &file[..length]).error(),
            ("invalid".into(), "tree".into()),
            "{length}"
        );
    }
    let mut wrong = file.clone();
    wrong[3] ^= 1;
    assert_eq!(put("sum", &wrong).code(), "invalid");
    assert_eq!(put("text", b"this is no archive").code(), "invalid");
    assert!(!exists(&sandbox, "target"));
    put("empty", b"").ok();
    assert!(fs::metadata(sandbox.path("target")).unwrap().is_dir(), "the directory is created");
    // Without the zeros at its end it is complete too.
    put("open", &file).ok();
    assert_eq!(fs::read(sandbox.path("target/file")).unwrap().len(), 2000);
}

#[test]
fn an_unpacked_tree_replaces_entries() {
    needs_root!();
    let sandbox = Sandbox::new();
    unpack(&sandbox, "a", &[entry("f", b'0', "", b"old"), entry("d/x", b'0', "", b"x")]).ok();
    unpack(&sandbox, "b", &[entry("f", b'0', "", b"new"), entry("d/y", b'0', "", b"y")]).ok();
    assert_eq!(fs::read_to_string(sandbox.path("target/f")).unwrap(), "new");
    assert!(exists(&sandbox, "target/d/x") && exists(&sandbox, "target/d/y"));
    assert_eq!(unpack(&sandbox, "c", &[entry("d", b'0', "", b"x")]).code(), "file:is-a-directory");
    assert_eq!(unpack(&sandbox, "d", &[entry("f/x", b'0', "", b"x")]).code(), "file:not-a-directory");
    let again = unpack(&sandbox, "b", &[entry("f", b'0', "", b"ignored")]).ok();
    assert!(again.json().starts_with(r#"{"offset":"#));
    assert_eq!(fs::read_to_string(sandbox.path("target/f")).unwrap(), "new", "a repetition does nothing");
    assert_eq!(sandbox.call("read-tree", &[&sandbox.at("target/f"), "transfer=r"]).code(), "file:not-a-directory");
    assert_eq!(sandbox.call("read-tree", &[&sandbox.at("none"), "transfer=r"]).code(), "file:not-found");
}

#[test]
fn the_directory_of_the_helper_is_left_out() {
    needs_root!();
    let sandbox = Sandbox::new();
    let root = sandbox.base().parent().unwrap().join(format!("{}-root", sandbox.base().file_name().unwrap().display()));
    fs::create_dir_all(root.join("own")).unwrap();
    fs::write(root.join("file"), "x").unwrap();
    let base = format!("base={}", root.join("own").display());
    let path = format!("path={}", root.display());
    let output = std::process::Command::new(crate::harness::PROGRAM)
        .args(["read-tree", &base, &path, "transfer=r"])
        .output()
        .unwrap();
    let data = Answer::of(&output).ok().data();
    fs::remove_dir_all(&root).unwrap();
    let text = String::from_utf8_lossy(&data);
    assert!(text.contains("./file\0") && !text.contains("own"), "{} bytes", data.len());
}
