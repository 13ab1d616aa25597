//! What containers see of volumes: each has a copy of its own, made when it starts.
//!
//! As on the service, what a container writes is seen by others once it is committed, and by those that run already once
//! they reload. A container's changes are committed in the background while it runs: here at the moment when the volume
//! is read (another container starts with it or reloads, a client lists or reads its files). They are committed as
//! well when it reloads itself, and when it ends.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use container_isolation::rootfs::{Replica, Root};
use container_isolation::{Bind, remove_tree};
use modal_proto::client::VolumeMount;
use parking_lot::Mutex;

/// What containers have of one volume. The lock is held while files of the volume are read or changed.
#[derive(Debug, Default)]
pub struct Shared {
    views: Mutex<Vec<Weak<View>>>,
}

/// One container's copy of one volume.
#[derive(Debug)]
struct View {
    /// None once the container has ended: its files are removed then, and must not be taken for deleted by it.
    replica: Mutex<Option<Replica>>,
    writes: bool,
    /// Its changes are committed while it runs.
    background: bool,
}

/// A container's copies of all volumes that it has mounted.
#[derive(Debug, Default)]
pub struct Views {
    views: Vec<(Arc<Shared>, Arc<View>)>,
    /// What has to be mounted.
    binds: Vec<Bind>,
    directory: PathBuf,
}

/// A volume to mount.
#[derive(Debug)]
pub struct Wanted {
    /// The volume's id.
    pub id: String,
    /// What containers have of it.
    pub shared: Arc<Shared>,
    /// The directory of what has been committed to it.
    pub committed: PathBuf,
    /// Where and how.
    pub mount: VolumeMount,
}

impl Shared {
    /// Does something with a volume's committed files. Blocks.
    pub fn with<T>(&self, directory: &std::path::Path, work: impl FnOnce(&Root) -> io::Result<T>) -> io::Result<T> {
        let views = self.views.lock();
        commit(&views);
        work(&Root::open(directory)?)
    }
}

/// Commits the changes of those that run.
fn commit(views: &[Weak<View>]) {
    for view in views.iter().filter_map(Weak::upgrade).filter(|view| view.writes && view.background) {
        if let Some(Err(error)) = view.replica.lock().as_mut().map(Replica::commit) {
            tracing::warn!(%error, "cannot commit what a container has written to a volume");
        }
    }
}

impl Views {
    /// Makes the copies for a container.
    /// `directory` is where they are made, one for each volume.
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

    /// What has to be mounted.
    pub fn binds(&self) -> Vec<Bind> {
        self.binds.clone()
    }

    /// Commits the container's changes, and shows it those that others have committed.
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

    /// Commits the changes of a container that has ended, if `keep`, and removes the copies.
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

/// A directory to mount.
pub fn bind(source: PathBuf, inside: Option<&str>, target: &str, read_only: bool) -> Bind {
    Bind { source, inside: relative(inside), target: PathBuf::from(target), read_only }
}

fn relative(inside: Option<&str>) -> PathBuf {
    Path::new(inside.unwrap_or_default().trim_matches('/')).to_owned()
}
