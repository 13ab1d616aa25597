//! Carries out COPY and ADD: selects the files and copies them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use container_isolation::rootfs::{Attributes, Root};

use crate::build::glob::{Glob, Rules, above, clean};

/// One COPY or ADD.
pub struct Job {
    /// Root of the source: the context, a stage or an image.
    pub from: Arc<Root>,
    /// Root of the stage.
    pub to: Arc<Root>,
    /// Source paths and patterns.
    pub sources: Vec<String>,
    /// Path in `to`.
    pub target: PathBuf,
    /// Whether the target is a directory to copy into.
    pub into: bool,
    /// Owner and mode of the copies.
    pub attributes: Attributes,
    /// Rules for files that are not copied (`--exclude`).
    pub exclude: Rules,
    /// Whether the directories above a source are kept (`--parents`).
    pub parents: bool,
    /// Whether archives are left for the caller to unpack.
    pub unpack: bool,
}

impl Job {
    /// Copies the files. Returns the paths in `from` of files that look like archives, which the caller has to unpack.
    ///
    /// # Errors
    ///
    /// Returns a text for the build log if a source does not exist or a file cannot be copied.
    pub fn run(self) -> Result<Vec<PathBuf>, String> {
        if self.parents {
            return self.with_parents().map(|()| Vec::new());
        }
        let mut archives = Vec::new();
        let mut found = Vec::new();
        for source in &self.sources {
            let source = clean(source);
            let matches = self.matching(&source).map_err(|e| format!("{source}: {e}"))?;
            if matches.is_empty() && !has_wildcards(&source) {
                return Err(format!("{source}: not found in the source"));
            }
            let from_pattern = has_wildcards(&source);
            found.extend(matches.into_iter().map(|path| (path, from_pattern)));
        }
        let into = self.into || found.len() > 1;
        for (source, from_pattern) in found {
            let failed = |e: std::io::Error| format!("{}: {e}", source.display());
            if self.from.is_dir(&source) {
                let chosen = self.chosen(&source)?;
                let wanted = |path: &Path| chosen.as_ref().is_none_or(|chosen| chosen.contains(path));
                self.to.copy(&self.from, &source, &self.target, &self.attributes, Some(&wanted)).map_err(failed)?;
                continue;
            }
            let name = source.file_name().unwrap_or_default();
            // `--exclude` does not apply to a file that the source names without wildcards.
            if from_pattern
                && [source.to_string_lossy(), name.to_string_lossy()].iter().any(|path| self.exclude.exclude(path))
            {
                continue;
            }
            if self.unpack && self.looks_like_an_archive(&source) {
                archives.push(source);
                continue;
            }
            let target = if into { self.target.join(name) } else { self.target.clone() };
            if target.as_os_str().is_empty() {
                return Err("the target is a directory".to_owned());
            }
            self.to.copy(&self.from, &source, &target, &self.attributes, None).map_err(failed)?;
        }
        Ok(archives)
    }

    /// Returns the paths that match a source pattern. `*`, `?` and `[…]` match characters within one component of a path.
    fn matching(&self, source: &str) -> Result<Vec<PathBuf>, String> {
        let mut found = vec![PathBuf::new()];
        for part in source.split('/').filter(|part| !part.is_empty()) {
            let mut next = Vec::new();
            if has_wildcards(part) {
                let pattern = Glob::path(part, false)?;
                for base in found {
                    let entries = self.from.list(&base).unwrap_or_default();
                    let matches = entries.iter().filter(|entry| pattern.is_match(&entry.name));
                    next.extend(matches.map(|entry| base.join(&entry.name)));
                }
            } else {
                next.extend(found.iter().map(|base| base.join(part)).filter(|path| self.from.exists(path)));
            }
            found = next;
        }
        Ok(found)
    }

    /// Returns the paths below a directory that are copied; `None` if nothing is excluded.
    fn chosen(&self, directory: &Path) -> Result<Option<BTreeSet<PathBuf>>, String> {
        if self.exclude.is_empty() {
            return Ok(None);
        }
        let mut chosen = BTreeSet::new();
        self.walk(directory, "", &|_| true, &|_| true, &mut chosen)?;
        Ok(Some(chosen))
    }

    /// Adds the paths that are wanted and not excluded to `chosen`, with the directories above them.
    fn walk(
        &self,
        base: &Path,
        path: &str,
        wanted: &dyn Fn(&str) -> bool,
        may_hold: &dyn Fn(&str) -> bool,
        chosen: &mut BTreeSet<PathBuf>,
    ) -> Result<(), String> {
        let entries = self.from.list(&base.join(path)).map_err(|e| format!("{}: {e}", base.join(path).display()))?;
        for entry in entries {
            let path = if path.is_empty() { entry.name } else { format!("{path}/{}", entry.name) };
            let excluded = self.exclude.exclude(&path);
            if !excluded && wanted(&path) {
                chosen.extend(above(&path).map(PathBuf::from));
            }
            let descend = !excluded || self.exclude.take_back();
            if entry.is_directory && descend && (wanted(&path) || may_hold(&path)) {
                self.walk(base, &path, wanted, may_hold, chosen)?;
            }
        }
        Ok(())
    }

    /// Copies with `--parents`: sources keep their paths, or the part after `/./` if they have one.
    fn with_parents(self) -> Result<(), String> {
        for source in &self.sources {
            let (base, pattern) = source.split_once("/./").unwrap_or(("", source));
            let (base, pattern) = (clean(base), clean(pattern));
            let glob = Glob::path(&pattern, true)?;
            if !has_wildcards(&pattern) && !self.from.exists(&Path::new(&base).join(&pattern)) {
                return Err(format!("{source}: not found in the source"));
            }
            let start = glob.prefix();
            let wanted = |path: &str| pattern.is_empty() || above(path).any(|path| glob.is_match(path));
            let may_hold = |path: &str| {
                let directory = format!("{path}/");
                start.starts_with(&directory) || directory.starts_with(&start)
            };
            let mut chosen = BTreeSet::new();
            self.walk(Path::new(&base), "", &wanted, &may_hold, &mut chosen)?;
            let wanted = |path: &Path| chosen.contains(path);
            let copied = self.to.copy(&self.from, Path::new(&base), &self.target, &self.attributes, Some(&wanted));
            copied.map_err(|e| format!("{source}: {e}"))?;
        }
        Ok(())
    }

    /// Returns whether a file begins like a tar archive, or like a compressed file that may hold one.
    fn looks_like_an_archive(&self, path: &Path) -> bool {
        let content = self.from.read(path).unwrap_or_default();
        let compressed: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
        compressed.iter().any(|start| content.starts_with(start)) || content.get(257..262) == Some(b"ustar")
    }
}

fn has_wildcards(path: &str) -> bool {
    path.contains(['*', '?', '[', '\\'])
}
