//! Watches.

use std::fs;

use crate::{
    harness::{Sandbox, lives, until},
    needs_root,
};

/// Calls for events until there are some that `wanted` accepts, and returns all of them with the last position.
fn events(sandbox: &Sandbox, args: &[&str], wanted: impl Fn(&str) -> bool) -> (String, u64) {
    let mut all = String::new();
    let mut position = 0;
    until("the events", || {
        let at = format!("position={position}");
        let json = sandbox
            .call("watch", &[&[sandbox.at("dir").as_str(), "id=w", &at, "wait=1000"], args].concat())
            .ok()
            .json();
        let (events, rest) = json.split_once(r#"],"next":"#).unwrap();
        all.push_str(events);
        position = rest.split(',').next().unwrap().parse().unwrap();
        wanted(&all)
    });
    (all, position)
}

#[test]
fn changes_are_reported() {
    needs_root!();
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("dir")).unwrap();
    sandbox.call("watch", &[&sandbox.at("dir"), "id=w", "user=65534:65534"]).ok();
    let path = |name: &str| sandbox.path("dir").join(name);
    fs::write(path("a"), "x").unwrap();
    fs::rename(path("a"), path("b")).unwrap();
    fs::remove_file(path("b")).unwrap();
    fs::create_dir(path("sub")).unwrap();
    fs::write(path("sub/unseen"), "x").unwrap();
    fs::write(path("last"), "x").unwrap();
    let (all, position) = events(&sandbox, &[], |all| all.contains("last"));
    let paths =
        |names: &[&str]| names.iter().map(|name| format!("\"{}\"", path(name).display())).collect::<Vec<_>>().join(",");
    let expected = [
        format!(r#"{{"kind":"created","paths":[{}]}}"#, paths(&["a"])),
        format!(r#"{{"kind":"modified","paths":[{}]}}"#, paths(&["a"])),
        format!(r#"{{"kind":"modified","paths":[{}]}}"#, paths(&["a", "b"])),
        format!(r#"{{"kind":"removed","paths":[{}]}}"#, paths(&["b"])),
        format!(r#"{{"kind":"created","paths":[{}]}}"#, paths(&["sub"])),
    ];
    let mut rest = all.as_str();
    for part in &expected {
        rest = rest.split_once(part.as_str()).unwrap_or_else(|| panic!("{part} in {all}")).1;
    }
    assert!(!all.contains("unseen"), "the watch is not recursive: {all}");
    let first = sandbox.call("watch", &[&sandbox.at("dir"), "id=w", "position=0", "max=1"]).ok().json();
    assert!(first.starts_with(&format!(r#"{{"events":[{}],"next":"#, expected[0])), "{first}");
    let none = sandbox.call("watch", &[&sandbox.at("dir"), "id=w", &format!("position={position}")]).ok().json();
    assert!(none.starts_with(r#"{"events":["#) && none.ends_with(r#""end":false}"#), "{none}");
}

#[test]
fn new_directories_are_watched_too() {
    needs_root!();
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("dir/old")).unwrap();
    sandbox.call("watch", &[&sandbox.at("dir"), "id=w", "recursive=1"]).ok();
    fs::write(sandbox.path("dir/old/one"), "x").unwrap();
    fs::create_dir_all(sandbox.path("dir/new/deep")).unwrap();
    fs::write(sandbox.path("dir/new/deep/two"), "x").unwrap();
    let (all, _) = events(&sandbox, &["recursive=1"], |all| all.contains("deep/two") && all.contains("old/one"));
    let count = |text: &str| {
        all.matches(&format!(r#"{{"kind":"created","paths":["{}"]}}"#, sandbox.path(text).display())).count()
    };
    assert!(count("dir/new") == 1 && count("dir/new/deep") >= 1 && count("dir/new/deep/two") >= 1, "{all}");
}

#[test]
fn a_watch_ends_by_a_signal_or_with_its_directory() {
    needs_root!();
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("dir")).unwrap();
    sandbox.call("watch", &[&sandbox.at("dir"), "id=w"]).ok();
    let page = fs::read(sandbox.base().join("files/w/state")).unwrap();
    let watcher = u32::from_ne_bytes(page[16..20].try_into().unwrap());
    assert!(lives(watcher));
    sandbox.call("signal", &["id=w", "signal=15"]).ok();
    until("the end of the watcher", || !lives(watcher));
    let ended = r#"{"events":[],"next":0,"end":true}"#;
    assert_eq!(sandbox.call("watch", &[&sandbox.at("dir"), "id=w", "wait=30000"]).json(), ended);
    sandbox.call("watch", &[&sandbox.at("dir"), "id=v"]).ok();
    fs::remove_dir(sandbox.path("dir")).unwrap();
    until("the end of the watch", || {
        let json = sandbox.call("watch", &[&sandbox.at("dir"), "id=v", "wait=1000"]).json();
        json.contains(r#""kind":"removed""#) && json.ends_with(r#""end":true}"#)
    });
}

#[test]
fn a_watch_needs_the_rights_of_the_user() {
    needs_root!();
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.call("watch", &[&sandbox.at("dir"), "id=w"]).code(), "file:not-found");
    fs::create_dir(sandbox.path("dir")).unwrap();
    let closed = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
    fs::set_permissions(sandbox.path("dir"), closed).unwrap();
    let user = "user=65534:65534";
    assert_eq!(sandbox.call("watch", &[&sandbox.at("dir"), "id=w", user]).code(), "file:permission-denied");
    sandbox.call("watch", &[&sandbox.at("dir"), "id=w"]).ok();
}
