//! The rules of `docs/architecture.md`, and their comparison with the sources.
//!
//! The document contains code blocks with the language `imports`. Each line has one of these forms:
//!
//! - `crate NAME: OTHER, OTHER`: the crate may depend on these crates of the workspace;
//! - `folder PATH: a > b, c > d`: of the entries of this source folder, each may import those that stand to the right of a `>`
//!   after it. Entries between commas do not import each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    graph::circles,
    source::{MAX_FUNCTION_LINES, Target},
    workspace::Package,
};

/// Largest number of files that may import each other in a circle. Larger circles cannot be understood one file at a
/// time.
const MAX_FILES_IN_CIRCLE: usize = 3;

/// The folder of the crate that fits every provider, and the provider name that it must not contain.
const NEUTRAL_CRATE: (&str, &str) = ("guest/kit", "modal");

/// The document that names the tests of each promise.
const PROMISES: &str = "docs/security.md";

/// Words that hide the subject of a sentence.
const VAGUE_WORDS: &[&str] = &["anybody", "nobody", "somebody", "whoever", "whom"];

/// The rules of the document.
#[derive(Default)]
pub struct Rules {
    /// The workspace crates that each crate may depend on.
    crates: BTreeMap<String, BTreeSet<String>>,
    /// The layer of each entry of each source folder. The uppermost layer is 0.
    folders: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Rules {
    /// Reads the blocks `imports` of a document.
    ///
    /// # Errors
    ///
    /// Fails if the document has no such block, or a line of one has another form.
    pub fn parse(document: &str) -> Result<Self> {
        let mut rules = Self::default();
        let mut inside = false;
        for line in document.lines().map(str::trim) {
            if line.starts_with("```") {
                inside = line == "```imports";
            } else if inside && !line.is_empty() && !line.starts_with('#') {
                rules.parse_line(line).with_context(|| format!("in the line `{line}` of docs/architecture.md"))?;
            }
        }
        ensure!(!rules.crates.is_empty(), "docs/architecture.md has no block `imports` with lines `crate …`");
        Ok(rules)
    }

    fn parse_line(&mut self, line: &str) -> Result<()> {
        let (head, tail) = line.split_once(':').unwrap_or((line, ""));
        let (kind, name) = head.split_once(' ').context("it must begin with `crate NAME` or `folder PATH`")?;
        let names = |text: &str| -> Vec<String> {
            text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
        };
        match kind {
            "crate" => {
                self.crates.insert(name.to_owned(), names(tail).into_iter().collect());
            }
            "folder" => {
                let layers = tail.split('>').enumerate();
                let layers = layers.flat_map(|(layer, text)| names(text).into_iter().map(move |name| (name, layer)));
                self.folders.insert(name.to_owned(), layers.collect());
            }
            _ => anyhow::bail!("it must begin with `crate` or `folder`"),
        }
        Ok(())
    }

    /// Adds a line for each dependency of a crate that is not allowed.
    pub fn check_package(&self, package: &Package, found: &mut Vec<String>) {
        let Some(allowed) = self.crates.get(&package.name) else {
            found.push(format!("{}: docs/architecture.md has no line `crate {}`", package.name, package.name));
            return;
        };
        for name in package.dependencies.iter().filter(|name| !allowed.contains(*name)) {
            found.push(format!("{}: depends on {name}, which docs/architecture.md does not allow", package.name));
        }
    }

    /// Adds a line for each import, unsafe block and long function of a target that is not allowed.
    pub fn check_target(&self, target: &Target, found: &mut Vec<String>) {
        let imports = target.imports();
        let imports: Vec<_> = imports.iter().map(|(from, to)| (*from, *to)).collect();
        self.check_layers(target, &imports, found);
        check_circles(target, &imports, found);
        for (file, line) in &target.unsafe_code {
            let in_sys = file.components().any(|part| matches!(part.as_os_str().to_str(), Some("sys" | "sys.rs")));
            if !in_sys {
                found.push(format!("{}:{line}: unsafe code outside a module named `sys`", file.display()));
            }
        }
        for (file, line, name, lines) in &target.long_functions {
            let file = file.display();
            found.push(format!("{file}:{line}: `{name}` has {lines} lines, more than {MAX_FUNCTION_LINES}"));
        }
    }

    fn check_layers(&self, target: &Target, imports: &[(&Path, &Path)], found: &mut Vec<String>) {
        let has_folders =
            target.files().iter().any(|file| entry(&target.folder, file).is_some_and(|(_, folder)| folder));
        let folder = target.folder.display().to_string();
        let Some(layers) = self.folders.get(&folder) else {
            if has_folders {
                found.push(format!("{folder}: docs/architecture.md has no line `folder {folder}: …`"));
            }
            return;
        };
        let mut missing = BTreeSet::new();
        for file in target.files() {
            if let Some((name, _)) = entry(&target.folder, file)
                && !layers.contains_key(&name)
            {
                missing.insert(name);
            }
        }
        found.extend(missing.iter().map(|name| format!("{folder}/{name}: is not in docs/architecture.md")));
        for (from, to) in imports {
            let (Some((upper, _)), to_entry) = (entry(&target.folder, from), entry(&target.folder, to)) else {
                continue;
            };
            let lower = to_entry.map(|(name, _)| name);
            if lower.as_ref() == Some(&upper) {
                continue;
            }
            // The root file composes the crate, so no other file may import it.
            let lower_layer = lower.as_ref().map_or(Some(&0), |name| layers.get(name));
            if let (Some(upper_layer), Some(lower_layer)) = (layers.get(&upper), lower_layer)
                && (upper_layer >= lower_layer || lower.is_none())
            {
                let (from, to) = (from.display(), to.display());
                found.push(format!("{from}: imports {to}, against the direction in docs/architecture.md"));
            }
        }
    }

    /// Adds a line for each forbidden name and vague word in a text file.
    ///
    /// # Errors
    ///
    /// Fails if a folder or a file cannot be read.
    pub fn check_texts(&self, root: &Path, found: &mut Vec<String>) -> Result<()> {
        let mut functions = BTreeSet::new();
        let mut names = Vec::new();
        list_files(root, Path::new(""), &mut names)?;
        for name in names.iter().map(String::as_str) {
            let prose = [".rs", ".py", ".md"].iter().any(|end| name.ends_with(end)) && !name.contains("/corpus/");
            let neutral = name.starts_with(NEUTRAL_CRATE.0);
            if !(prose || neutral) {
                continue;
            }
            let text = fs::read(root.join(name)).with_context(|| format!("could not read {name}"))?;
            let text = String::from_utf8_lossy(&text);
            functions.extend(function_names(&text));
            for (number, line) in text.lines().enumerate() {
                let place = format!("{name}:{}", number + 1);
                if neutral && line.to_lowercase().contains(NEUTRAL_CRATE.1) {
                    found.push(format!("{place}: names one provider in a crate that fits all"));
                }
                if prose && name != "xtask/layout/src/rules.rs" {
                    let words = vague_words(line).map(|word| format!("{place}: the vague word `{word}`"));
                    found.extend(words);
                }
            }
        }
        check_test_names(root, &functions, found);
        Ok(())
    }
}

/// Collects the paths of the files below `folder`, relative to `root`. Leaves out hidden files and what builds and tests create.
fn list_files(root: &Path, folder: &Path, names: &mut Vec<String>) -> Result<()> {
    let path = root.join(folder);
    for entry in fs::read_dir(&path).with_context(|| format!("could not list {}", path.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || ["target", "node_modules", "__pycache__"].contains(&name.as_str()) {
            continue;
        }
        let kind = entry.file_type()?;
        let inner = folder.join(&name);
        if kind.is_dir() {
            list_files(root, &inner, names)?;
        } else if kind.is_file() {
            names.push(inner.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(())
}

/// Finds tests that [`PROMISES`] names and that no file contains.
fn check_test_names(root: &Path, sources: &BTreeSet<String>, found: &mut Vec<String>) {
    let Ok(document) = fs::read_to_string(root.join(PROMISES)) else { return };
    let lists = document.split("**Tests:**").skip(1).map(|rest| rest.split("\n\n").next().unwrap_or_default());
    for name in lists.flat_map(|list| list.split('`').skip(1).step_by(2)) {
        if !sources.contains(name) {
            found.push(format!("{PROMISES}: no source file has the test `{name}`"));
        }
    }
}

/// Returns the names of the functions in a Rust or Python file.
fn function_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    words.windows(2).filter(|pair| matches!(pair[0], "fn" | "def")).map(|pair| pair[1].to_owned()).collect()
}

fn check_circles(target: &Target, imports: &[(&Path, &Path)], found: &mut Vec<String>) {
    let texts: Vec<_> =
        imports.iter().map(|(from, to)| (from.display().to_string(), to.display().to_string())).collect();
    for circle in circles(texts.iter().map(|(from, to)| (from.as_str(), to.as_str()))) {
        if circle.len() > MAX_FILES_IN_CIRCLE {
            found.push(format!("{} files import each other in a circle: {}", circle.len(), circle.join(", ")));
        }
    }
    // Circles of folders with the same parent folder.
    let mut parents: BTreeMap<&Path, BTreeSet<(String, String)>> = BTreeMap::new();
    for (from, to) in imports {
        for parent in from.ancestors().skip(1).take_while(|parent| parent.starts_with(&target.folder)) {
            if let (Some((from, true)), Some((to, true))) = (entry(parent, from), entry(parent, to)) {
                parents.entry(parent).or_default().insert((from, to));
            }
        }
    }
    for (parent, edges) in parents {
        for circle in circles(edges.iter().map(|(from, to)| (from.as_str(), to.as_str()))) {
            let parent = parent.display();
            found.push(format!("{parent}: these folders import each other in a circle: {}", circle.join(", ")));
        }
    }
}

/// Returns the entry of `folder` that `file` belongs to, without `.rs`, and whether it is a folder. Returns `None` for
/// the file of the folder's own module and for files elsewhere.
fn entry(folder: &Path, file: &Path) -> Option<(String, bool)> {
    let below = file.strip_prefix(folder).ok()?;
    let first = below.components().next()?.as_os_str().to_str()?;
    if below.components().nth(1).is_some() {
        return Some((first.to_owned(), true));
    }
    let name = first.strip_suffix(".rs").unwrap_or(first);
    // `x.rs` and the folder `x/` next to it are the same module.
    (!matches!(name, "mod" | "lib" | "main")).then(|| (name.to_owned(), false))
}

/// Returns the vague words of a line of prose. Words in quotes or capitals are names, and so is the user after
/// `chown` or `user:`.
fn vague_words(line: &str) -> impl Iterator<Item = &'static str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let prose = words.iter().enumerate().filter(|(at, word)| {
        let names_user = *at > 0 && ["chown", "user:"].contains(&words[at - 1]);
        word.chars().skip(1).all(|letter| !letter.is_uppercase()) && !names_user
    });
    let prose: Vec<String> =
        prose.map(|(_, word)| word.trim_matches(['(', ')', '.', ',', ';', ':', '?', '!']).to_lowercase()).collect();
    VAGUE_WORDS.iter().copied().filter(move |vague| prose.iter().any(|word| word == vague))
}
