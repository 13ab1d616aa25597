//! Runs the checks on a small workspace with known violations, and on this workspace.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{check, rules::Rules, source::Target};

/// Writes files below a new temporary directory.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

/// Returns the violations of a target with these files and this block of the document.
fn faults(rules: &str, files: &[(&str, &str)]) -> Vec<String> {
    let directory = tree(files);
    let target = Target::read(directory.path(), Path::new("src/lib.rs")).unwrap();
    let rules = Rules::parse(&format!("# Title\n```imports\ncrate x:\n{rules}\n```\n")).unwrap();
    let mut found = Vec::new();
    rules.check_target(&target, &mut found);
    found
}

#[test]
fn imports_against_the_direction_are_found() {
    let files = [
        ("src/lib.rs", "mod upper; mod lower;"),
        ("src/upper/mod.rs", "use crate::lower::Thing; pub struct Other;"),
        ("src/lower/mod.rs", "mod part; pub use part::Thing;"),
        ("src/lower/part.rs", "pub struct Thing; fn f() { println!(\"{:?}\", crate::upper::Other) }"),
    ];
    let against = "src/lower/part.rs: imports src/upper/mod.rs, against the direction in docs/architecture.md";
    let circle = "src: these folders import each other in a circle: lower, upper";
    assert_eq!(faults("folder src: upper > lower", &files), [against, circle]);
    let mut found = faults("folder src: lower > upper", &files);
    assert_eq!(
        found.remove(0),
        "src/upper/mod.rs: imports src/lower/part.rs, against the direction in docs/architecture.md"
    );
    assert_eq!(found, [circle]);
}

#[test]
fn a_folder_that_the_document_does_not_name_is_found() {
    let files = [("src/lib.rs", "mod a; mod b;"), ("src/a/mod.rs", ""), ("src/b.rs", "")];
    assert_eq!(faults("folder src: a", &files), ["src/b: is not in docs/architecture.md"]);
    assert_eq!(faults("", &files), ["src: docs/architecture.md has no line `folder src: …`"]);
    assert!(faults("folder src: a, b", &files).is_empty());
}

#[test]
fn circles_of_more_than_three_files_are_found() {
    let ring = |length: usize| {
        let modules: String = (0..length).map(|at| format!("mod m{at}; ")).collect();
        let mut files = BTreeMap::from([("src/lib.rs".to_owned(), modules)]);
        for at in 0..length {
            let next = (at + 1) % length;
            files.insert(format!("src/m{at}.rs"), format!("use super::m{next}; struct S(m{next}::S);"));
        }
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        faults("", &files)
    };
    assert!(ring(3).is_empty());
    assert_eq!(ring(4), ["4 files import each other in a circle: src/m0.rs, src/m1.rs, src/m2.rs, src/m3.rs"]);
}

#[test]
fn re_exports_lead_to_the_file_that_defines_the_item() {
    let files = [
        ("src/lib.rs", "mod a; mod b; pub use a::*; pub use b::{Second as Renamed};"),
        ("src/a.rs", "pub struct First;"),
        ("src/b.rs", "use crate::First; pub struct Second(First);"),
        ("src/c.rs", ""),
    ];
    let directory = tree(&files);
    let target = Target::read(directory.path(), Path::new("src/lib.rs")).unwrap();
    let imports: Vec<_> = target.imports().iter().map(|(a, b)| format!("{} {}", a.display(), b.display())).collect();
    assert_eq!(imports, ["src/b.rs src/a.rs"]);
}

#[test]
fn unsafe_code_outside_sys_and_long_functions_are_found() {
    let long = format!("fn long() {{\n{}}}\n", "    f();\n".repeat(90));
    let files = [
        ("src/lib.rs", "mod sys; mod other;\n#[cfg(test)] mod tests { fn f() { unsafe { g() } } }"),
        ("src/sys.rs", "fn f() { unsafe { g() } }"),
        ("src/other.rs", &format!("fn f() {{ unsafe {{ g() }} }}\n{long}")),
    ];
    assert_eq!(
        faults("", &files),
        [
            "src/other.rs:1: unsafe code outside a module named `sys`",
            "src/other.rs:2: `long` has 92 lines, more than 90"
        ]
    );
}

#[test]
fn names_dependencies_and_vague_words_are_found() {
    let manifest = |name: &str, dependency: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\n{dependency}\n")
    };
    let directory = tree(&[
        ("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"guest/kit\", \"other\"]\n"),
        ("guest/kit/Cargo.toml", &manifest("kit", "other = { path = \"../../other\" }")),
        // The vague word is assembled, because this file is checked too.
        ("guest/kit/src/lib.rs", concat!("// No", "body but Modal knows.\n// The user `nobody`.")),
        ("other/Cargo.toml", &manifest("other", "")),
        ("other/src/lib.rs", ""),
        ("docs/architecture.md", "```imports\ncrate kit:\n```\n"),
        ("docs/security.md", "Safe.\n\n**Tests:** `is_safe`,\n`was_renamed`\n\nAnd `other`.\n"),
        ("other/tests/all.rs", "#[test]\nfn is_safe() {}\n"),
    ]);
    let root = directory.path().canonicalize().unwrap();
    assert_eq!(
        check(&root).unwrap(),
        [
            "kit: depends on other, which docs/architecture.md does not allow",
            "other: docs/architecture.md has no line `crate other`",
            "guest/kit/src/lib.rs:1: names one provider in a crate that fits all",
            "guest/kit/src/lib.rs:1: the vague word `nobody`",
            "docs/security.md: no source file has the test `was_renamed`",
        ]
    );
}

#[test]
fn the_workspace_follows_its_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let found = check(&root).unwrap();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
