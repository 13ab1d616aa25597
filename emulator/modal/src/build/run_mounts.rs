//! Mounts for the time of a RUN command: files of the context, of stages and images, caches, empty directories, secrets.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use container_isolation::rootfs::{Attributes, Root};
use container_isolation::{DirectoryError, MountSpec};
use tokio::sync::OwnedMutexGuard;

use crate::build::directories::{remove, remove_in_background};
use crate::build::glob::clean;
use crate::build::mount_options::{Kind, Mount, parse};
use crate::build::steps::{Build, absolute, blocking};
use crate::model::build_caches::Sharing;
use crate::model::ids;

/// Directory of secrets whose mount names no target.
const SECRETS: &str = "/run/secrets";

/// Name of the file that contains a secret, in a directory of its own.
const SECRET: &str = "secret";

/// The mounts of one command.
#[derive(Debug, Default)]
pub struct Mounted {
    /// Environment variables that contain secrets.
    pub env: Vec<(String, String)>,
    /// Paths of the mounts in the container.
    targets: Vec<PathBuf>,
    /// Paths that were created in the image as mount points, relative to the root, parents first.
    stubs: Vec<PathBuf>,
    /// Directories of the machine that are removed after the command.
    temporary: Vec<PathBuf>,
    /// The directory name of each cache, and the lock that is held for it, by cache id.
    caches: BTreeMap<String, (String, Option<OwnedMutexGuard<()>>)>,
}

impl Build {
    /// Mounts the values of `--mount`. Records each mount in `mounted`, also if a later one fails.
    pub(super) async fn mount(&mut self, values: &[String], mounted: &mut Mounted) -> Result<(), String> {
        let mut mounts = Vec::new();
        for value in values {
            let mount = parse(value, &|text| self.expand(text))?;
            if let Some(target) = self.target(&mount, mounted)? {
                mounts.push((mount, target));
            }
        }
        if mounts.is_empty() {
            return Ok(());
        }
        let root = self.stage()?.root().await?;
        let targets: Vec<PathBuf> = mounts.iter().map(|(_, target)| target.clone()).collect();
        let places = blocking(move || {
            // Links are resolved now, because the command may change them before the unmount.
            let targets: Vec<PathBuf> = targets.iter().map(|target| Path::new("/").join(root.real(target))).collect();
            Ok((missing(&root, &targets), targets))
        });
        let (stubs, targets) = places.await?;
        mounted.stubs = stubs;
        // All caches are locked in the order of their ids and each only once, so that commands cannot deadlock.
        let caches = mounts.iter().filter(|(mount, _)| mount.kind == Kind::Cache);
        let caches: BTreeMap<String, Sharing> =
            caches.map(|(mount, target)| (cache_id(mount, target), mount.sharing)).collect();
        for (id, sharing) in caches {
            let state = self.state.clone();
            let taken = state.caches.take(&id, sharing).await;
            mounted.caches.insert(id, taken);
        }
        for ((mount, given), target) in mounts.into_iter().zip(targets) {
            let spec = self.spec(&mount, &given, target.clone(), mounted).await?;
            let shown = target.display();
            let done = self.stage()?.mount(spec).await;
            done.map_err(|error| match error {
                DirectoryError::NoSource => format!("{}: not found in the source", mount.source),
                DirectoryError::NotADirectory => {
                    format!("cannot mount at {shown}: a directory and a file are not the same")
                }
                DirectoryError::Failed(error) => format!("cannot mount at {shown}: {error:#}"),
                error => format!("cannot mount at {shown}: {error}"),
            })?;
            if !mounted.targets.contains(&target) {
                mounted.targets.push(target);
            }
        }
        Ok(())
    }

    /// Removes the mounts, and the directories and empty files that were created as mount points.
    pub(super) async fn unmount(&mut self, mounted: Mounted) -> Result<(), String> {
        let mut done = Ok(());
        for target in mounted.targets.iter().rev() {
            done = done.and(self.stage()?.unmount(target).await);
        }
        if !mounted.stubs.is_empty() {
            let (root, stubs) = (self.stage()?.root().await?, mounted.stubs);
            blocking(move || {
                for stub in stubs.iter().rev() {
                    // Fails if the command has put something into the mount point, which then stays.
                    let _ = root.remove_empty(stub);
                }
                Ok(())
            })
            .await?;
        }
        for directory in mounted.temporary {
            remove_in_background(directory);
        }
        done
    }

    /// Returns the path of a mount; `None` if the mount only sets a variable, or if its optional secret is not given.
    fn target(&mut self, mount: &Mount, mounted: &mut Mounted) -> Result<Option<PathBuf>, String> {
        let mut target = mount.target.clone();
        if mount.kind == Kind::Secret {
            let id = secret_id(mount);
            let Some((_, value)) = self.secrets.iter().rev().find(|(name, _)| *name == id) else {
                return if mount.required {
                    Err(format!("the secret {id} is required, and not given"))
                } else {
                    Ok(None)
                };
            };
            if let Some(name) = &mount.env {
                mounted.env.push((name.clone(), value.clone()));
            }
            if target.is_none() && mount.env.is_none() {
                let name = id.rsplit('/').next().unwrap_or_default();
                target = Some(format!("{SECRETS}/{name}"));
            }
        }
        let Some(target) = target else { return Ok(None) };
        let target = absolute(self.stage()?.image.config.workdir.as_deref(), &target);
        if target == "/" { Err("nothing can be mounted at /".to_owned()) } else { Ok(Some(target.into())) }
    }

    /// Returns what to mount. `given` is the target as written in the Dockerfile, which is the id of a cache without an id.
    async fn spec(
        &mut self,
        mount: &Mount,
        given: &Path,
        target: PathBuf,
        mounted: &mut Mounted,
    ) -> Result<MountSpec, String> {
        let mut spec = MountSpec {
            source: clean(&mount.source).into(),
            read_only: mount.read_only,
            from_scratch: true,
            ..MountSpec::default()
        };
        match mount.kind {
            Kind::Bind => match &mount.from {
                None => spec.layers = vec![self.context().await?],
                Some(name) => {
                    let built = match self.earlier_stage(name) {
                        Some(at) => self.finish_stage(at).await?,
                        None => self.base(name)?,
                    };
                    (spec.layers, spec.from_scratch) = (built.layers, built.from_scratch);
                }
            },
            Kind::Cache => {
                let name = mounted.caches.get(&cache_id(mount, given)).map(|(name, _)| name.as_str());
                let directory = self.state.layers().join(name.unwrap_or_default());
                if !directory.is_dir() {
                    self.new_cache(mount, &directory).await?;
                }
                (spec.directory, spec.source) = (Some(directory), PathBuf::new());
            }
            Kind::Tmpfs => spec.disk = mount.size,
            Kind::Secret => {
                let id = secret_id(mount);
                let value = self.secrets.iter().rev().find(|(name, _)| *name == id).map(|(_, value)| value.clone());
                let directory = self.state.layers().join(ids::id("secret"));
                mounted.temporary.push(directory.clone());
                let (made, mount) = (directory.clone(), mount.clone());
                let write = move || -> std::io::Result<()> {
                    std::fs::create_dir(&made)?;
                    let file = made.join(SECRET);
                    std::fs::write(&file, value.unwrap_or_default())?;
                    own(&file, &mount, 0o400)
                };
                blocking(move || write().map_err(|e| format!("cannot write a secret: {e}"))).await?;
                (spec.directory, spec.source, spec.read_only) = (Some(directory), SECRET.into(), true);
            }
        }
        spec.target = target;
        Ok(spec)
    }

    /// Creates the directory of a cache with its initial files.
    async fn new_cache(&mut self, mount: &Mount, directory: &Path) -> Result<(), String> {
        let from = match &mount.from {
            Some(name) => Some(self.source_root(name).await?),
            None => None,
        };
        let (part, directory, mount) = (directory.with_extension(ids::id("part")), directory.to_owned(), mount.clone());
        let make = move || -> std::io::Result<()> {
            std::fs::create_dir(&part)?;
            if let Some(from) = from {
                let attributes = Attributes { keep_owner: true, ..Attributes::default() };
                let source = PathBuf::from(clean(&mount.source));
                Root::open(&part)?.copy(&from, &source, Path::new(""), &attributes, None)?;
            }
            own(&part, &mount, 0o755)?;
            // The rename fails if another build has created the cache in the meantime.
            if std::fs::rename(&part, &directory).is_err() {
                remove(&part)?;
            }
            Ok(())
        };
        blocking(move || make().map_err(|e| format!("cannot make a cache: {e}"))).await
    }
}

fn cache_id(mount: &Mount, target: &Path) -> String {
    mount.id.clone().unwrap_or_else(|| target.display().to_string())
}

fn secret_id(mount: &Mount) -> String {
    let target = mount.target.as_deref().unwrap_or_default();
    mount.id.clone().unwrap_or_else(|| target.rsplit('/').next().unwrap_or_default().to_owned())
}

/// Sets the owner and the mode of a mount's file. Without root privileges the owner cannot be changed.
fn own(path: &Path, mount: &Mount, mode: u32) -> std::io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        chown(path, Some(mount.uid), Some(mount.gid))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mount.mode.unwrap_or(mode)))
}

/// Returns the components of these paths that do not exist, relative to the root, parents first.
fn missing(root: &Root, targets: &[PathBuf]) -> Vec<PathBuf> {
    let mut missing = Vec::new();
    for target in targets {
        let mut path = PathBuf::new();
        for part in target.components().skip(1) {
            path.push(part);
            if !missing.contains(&path) && !root.exists(&path) {
                missing.push(path.clone());
            }
        }
    }
    missing
}
