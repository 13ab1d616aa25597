//! The copies of volumes that containers see: each container gets its own copy when it starts.
//!
//! As on the service, other containers see a container's writes after they are committed; containers that already run must
//! reload as well. With background commits, a running container's changes are committed whenever the volume is read: when
//! another container starts with it or reloads it, or when a client lists or reads its files. Changes are also committed when
//! the container itself reloads, and when it ends.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use container_isolation::rootfs::{Replica, Root};
use container_isolation::{Bind, remove_tree};
use modal_proto::client::VolumeMount;
use parking_lot::Mutex;

/// The copies of one volume. The lock is held while files of the volume are read or changed.
#[derive(Debug, Default)]
pub struct Shared {
    views: Mutex<Vec<Weak<View>>>,
}

/// One container's copy of one volume.
#[derive(Debug)]
struct View {
    /// `None` after the container has ended. Its files are removed then, which must not be committed as deletions.
    replica: Mutex<Option<Replica>>,
    writes: bool,
    /// Whether changes are committed in the background while the container runs.
    background: bool,
}

/// A container's copies of all volumes that it mounts.
#[derive(Debug, Default)]
pub struct Views {
    views: Vec<(Arc<Shared>, Arc<View>)>,
    /// The bind mounts for the container.
    binds: Vec<Bind>,
    directory: PathBuf,
}

/// A volume to mount in a container.
#[derive(Debug)]
pub struct Wanted {
    /// Id of the volume.
    pub id: String,
    /// The copies of this volume that containers have.
    pub shared: Arc<Shared>,
    /// Directory of the committed files.
    pub committed: PathBuf,
    /// Mount path and options from the request.
    pub mount: VolumeMount,
}

impl Shared {
    /// Commits background changes, then runs `work` on the committed files in `directory`. Blocks.
    ///
    /// # Errors
    ///
    /// Fails if the directory cannot be opened, or with the error of `work`.
    pub fn with<T>(&self, directory: &std::path::Path, work: impl FnOnce(&Root) -> io::Result<T>) -> io::Result<T> {
        let views = self.views.lock();
        commit(&views);
        work(&Root::open(directory)?)
    }
}

/// Commits the changes of running containers that have background commits enabled.
fn commit(views: &[Weak<View>]) {
    for view in views.iter().filter_map(Weak::upgrade).filter(|view| view.writes && view.background) {
        if let Some(Err(error)) = view.replica.lock().as_mut().map(Replica::commit) {
            tracing::warn!(%error, "cannot commit what a container has written to a volume");
        }
    }
}

impl Views {
    /// Makes a container's copies of volumes in `directory`, one subdirectory for each volume.
    ///
    /// # Errors
    ///
    /// Fails if the files cannot be copied.
    pub async fn open(directory: PathBuf, mounts: Vec<Wanted>) -> anyhow::Result<Views> {
        if mounts.is_empty() {
            return Ok(Views::default());
        }
        tokio::task::spawn_blocking(move || {
            let mut made = Views { directory, ..Views::default() };
            for Wanted { id, shared, committed, mount } in mounts {
                let own = made.directory.join(&id);
                let mut views = shared.views.lock();
                commit(&views);
                let replica = Replica::new(committed, own.clone()).inspect_err(|_| {
                    let _ = remove_tree(&made.directory);
                })?;
                let view = Arc::new(View {
                    replica: Mutex::new(Some(replica)),
                    writes: !mount.read_only,
                    background: mount.allow_background_commits,
                });
                views.retain(|view| view.strong_count() > 0);
                views.push(Arc::downgrade(&view));
                drop(views);
                made.views.push((shared, view));
                made.binds.push(bind(own, mount.sub_path.as_deref(), &mount.mount_path, mount.read_only));
            }
            anyhow::Ok(made)
        })
        .await?
    }

    /// Returns the bind mounts for the container.
    pub fn binds(&self) -> Vec<Bind> {
        self.binds.clone()
    }

    /// Commits the container's changes, and then updates its copies with the changes that others have committed.
    ///
    /// # Errors
    ///
    /// Fails if changes cannot be committed, or if the copies cannot be updated.
    pub async fn reload(self: &Arc<Self>) -> anyhow::Result<()> {
        let views = self.clone();
        tokio::task::spawn_blocking(move || {
            for (shared, view) in &views.views {
                let others = shared.views.lock();
                commit(&others);
                let mut replica = view.replica.lock();
                let Some(replica) = replica.as_mut() else { continue };
                if view.writes {
                    replica.commit()?;
                }
                replica.refresh()?;
            }
            anyhow::Ok(())
        })
        .await?
    }

    /// Removes the copies of a container that has ended. Commits its changes first if `keep` is set.
    pub async fn close(self: &Arc<Self>, keep: bool) {
        if self.views.is_empty() {
            return;
        }
        let views = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut committed = Ok(());
            for (shared, view) in &views.views {
                let _others = shared.views.lock();
                let replica = view.replica.lock().take();
                if let Some(mut replica) = replica.filter(|_| keep && view.writes) {
                    committed = committed.and(replica.commit().map(drop));
                }
            }
            committed.and_then(|()| remove_tree(&views.directory))
        });
        if let Ok(Err(error)) = done.await {
            tracing::warn!(%error, "cannot commit what a container has written to its volumes");
        }
    }
}

/// Returns a bind mount of the directory `source`, or of its subdirectory `inside`, at `target`.
pub fn bind(source: PathBuf, inside: Option<&str>, target: &str, read_only: bool) -> Bind {
    Bind { source, inside: relative(inside), target: PathBuf::from(target), read_only }
}

fn relative(inside: Option<&str>) -> PathBuf {
    Path::new(inside.unwrap_or_default().trim_matches('/')).to_owned()
}
