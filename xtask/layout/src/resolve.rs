//! Resolves a path in the code to the file that defines the named item.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::source::{Module, Target};

/// Largest number of re-exports that are followed. Deeper chains do not occur, and a circle of re-exports must end.
const MAX_DEPTH: usize = 16;

/// The result of a resolved path.
enum Found {
    /// The module with this path.
    Module(Vec<String>),
    /// An item of the module with this path.
    Item(Vec<String>),
}

impl Found {
    fn module(self) -> Vec<String> {
        match self {
            Self::Module(module) | Self::Item(module) => module,
        }
    }
}

impl Target {
    /// Returns the pairs of files of which the first imports the second. A file does not import itself.
    pub fn imports(&self) -> BTreeSet<(&Path, &Path)> {
        let mut found = BTreeSet::new();
        for (path, module) in &self.modules {
            let named = module.paths.iter().map(|named| (named, false));
            for (named, public) in named.chain(module.public.iter().map(|named| (named, true))) {
                let Some(target) = self.resolve(path, named, 0) else { continue };
                let target = target.module();
                // A re-export of the module's own children is not an import.
                if public && target.starts_with(path) {
                    continue;
                }
                if let Some(file) = self.modules.get(&target).map(|target| &target.file)
                    && *file != module.file
                {
                    found.insert((module.file.as_path(), file.as_path()));
                }
            }
        }
        found
    }

    /// Returns all files of the target.
    pub fn files(&self) -> BTreeSet<&PathBuf> {
        self.modules.values().map(|module| &module.file).collect()
    }

    /// Resolves `path` as named in the module `from`. Returns `None` if it leads out of the crate.
    fn resolve(&self, from: &[String], path: &[String], depth: usize) -> Option<Found> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" | "$crate" => self.walk(Vec::new(), rest, depth),
            "self" => self.walk(from.to_vec(), rest, depth),
            "super" => self.walk_up(from, rest, depth),
            _ if depth > MAX_DEPTH => None,
            name => {
                let module = self.modules.get(from)?;
                if self.modules.contains_key(&child(from, name)) || module.names.contains_key(name) {
                    return self.walk(from.to_vec(), path, depth);
                }
                None
            }
        }
    }

    fn walk_up(&self, from: &[String], rest: &[String], depth: usize) -> Option<Found> {
        let (_, parent) = from.split_last()?;
        match rest.split_first() {
            Some((next, rest)) if next == "super" => self.walk_up(parent, rest, depth),
            _ => self.walk(parent.to_vec(), rest, depth),
        }
    }

    /// Follows names from a module downwards.
    fn walk(&self, mut at: Vec<String>, path: &[String], depth: usize) -> Option<Found> {
        if depth > MAX_DEPTH {
            return None;
        }
        for name in path {
            let below = child(&at, name);
            let module = self.modules.get(&at)?;
            if self.modules.contains_key(&below) {
                at = below;
                continue;
            }
            if module.items.contains(name) {
                return Some(Found::Item(at));
            }
            match self.imported(&at, module, name, depth) {
                Some(Found::Module(target)) => at = target,
                Some(item) => return Some(item),
                // The name is defined by a macro or belongs to another crate.
                None if module.names.contains_key(name) => return None,
                None => return Some(Found::Item(at)),
            }
        }
        Some(Found::Module(at))
    }

    /// Resolves a name that the module at `at` imports.
    fn imported(&self, at: &[String], module: &Module, name: &str, depth: usize) -> Option<Found> {
        if let Some(target) = module.names.get(name) {
            return self.resolve(at, target, depth + 1);
        }
        module.globs.iter().find_map(|glob| {
            let target = self.resolve(at, glob, depth + 1)?.module();
            let from = self.modules.get(&target)?;
            if from.items.contains(name) {
                return Some(Found::Item(target));
            }
            if self.modules.contains_key(&child(&target, name)) {
                return Some(Found::Module(child(&target, name)));
            }
            from.names.get(name).and_then(|path| self.resolve(&target, path, depth + 1))
        })
    }
}

fn child(of: &[String], name: &str) -> Vec<String> {
    let mut path = of.to_vec();
    path.push(name.to_owned());
    path
}
