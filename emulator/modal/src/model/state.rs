//! Everything the emulator knows: one set of tables behind one lock, and directories for what is too big for memory.
//!
//! The lock is held for look-ups and changes of these tables only, never across a wait. What has a life of its own
//! (sandboxes, builds) sits in the tables as a shared handle and locks itself.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use container_isolation::Engine;
use container_network::Names;
use modal_proto::client as proto;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::build_caches::Caches;
use crate::model::error::Error;
use crate::model::faults::Chaos;
use crate::model::ids;
use crate::model::image::Image;
use crate::model::image_names::Tag;
use crate::model::options::Options;
use crate::model::peers::Peers;
use crate::model::sandbox::Sandbox;
use crate::model::tokens::Signer;
use crate::model::values::{check_variables, now};
use crate::model::volume_views::Shared;

/// Ended sandboxes whose results and output can still be asked for: the newest. A record has a few kilobytes, and up to 32
/// KiB of output; what is longer is on disk.
const ENDED_SANDBOXES: usize = 4096;

/// The environment meant by an empty name.
pub const DEFAULT_ENVIRONMENT: &str = "main";

/// One emulator's state.
#[derive(Debug)]
pub struct State {
    /// As it was started.
    pub options: Options,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens for connections by token.
    pub front: SocketAddr,
    /// Whose connections are answered.
    pub peers: Peers,
    /// Makes containers.
    pub engine: Arc<Engine>,
    /// Resolves names for sandboxes.
    pub names: Arc<Names>,
    /// Makes and checks tokens.
    pub signer: Signer,
    /// Its own directory; gone when it ends.
    pub dir: PathBuf,
    /// Everything with an id.
    pub tables: Mutex<Tables>,
    /// Faults that were ordered.
    pub chaos: Chaos,
    /// Directories that commands of builds share.
    pub caches: Caches,
}

/// Everything with an id. Fields are read and changed by the modules of [`crate::service::control`] that serve them.
#[derive(Debug, Default)]
pub struct Tables {
    /// By name.
    pub environments: BTreeMap<String, Environment>,
    /// By id.
    pub apps: HashMap<String, App>,
    /// By id.
    pub secrets: HashMap<String, Secret>,
    /// By id.
    pub volumes: HashMap<String, Volume>,
    /// By id.
    pub mounts: HashMap<String, Arc<Mount>>,
    /// By id: expected MD5 and SHA-256 (base64 as sent), length.
    pub blobs: HashMap<String, Blob>,
    /// By id.
    pub images: HashMap<String, Arc<Image>>,
    /// Image id by hash of the layer definition.
    pub image_cache: HashMap<String, String>,
    /// By (environment, name, tag).
    pub image_tags: BTreeMap<(String, String, String), Tag>,
    /// The image that an image was built on, by its id.
    pub image_bases: HashMap<String, String>,
    /// By id.
    pub downloads: HashMap<String, Download>,
    /// Ids of downloads, oldest first.
    pub download_order: VecDeque<String>,
    /// By id; ended ones too.
    pub sandboxes: HashMap<String, Arc<Sandbox>>,
    /// Sandbox id by task id.
    pub tasks: HashMap<String, String>,
    /// What connect tokens are good for.
    pub grants: HashMap<String, Grant>,
    /// Persistent sandboxes by id.
    pub persistent: HashMap<String, Arc<Persistent>>,
    /// Ids of ended sandboxes whose records are kept, in the order of their ends.
    pub ended: VecDeque<String>,
}

/// A persistent sandbox.
#[derive(Debug)]
pub struct Persistent {
    /// Held while a session is made or ended, so that callers that come together get the same one.
    pub turn: Mutex<()>,
    /// The id of its newest session. Nothing else is locked while this is.
    pub session: Mutex<String>,
}

/// An environment.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `en-…`
    pub id: String,
    /// Unix seconds.
    pub created_at: f64,
}

/// An app.
#[derive(Debug, Clone)]
pub struct App {
    /// `ap-…`
    pub id: String,
    /// Empty for one made by AppCreate.
    pub name: String,
    /// What people read.
    pub description: String,
    /// Its environment.
    pub environment: String,
    /// A value of [`proto::AppState`].
    pub state: i32,
    /// Unix seconds.
    pub created_at: f64,
    /// Unix seconds; 0 while it lives.
    pub stopped_at: f64,
    /// Unix seconds; 0 unless it was deployed.
    pub deployed_at: f64,
    /// Keys and values.
    pub tags: HashMap<String, String>,
    /// When its client was heard last, if it says that it is there.
    pub heartbeat: Option<Instant>,
}

/// A secret.
#[derive(Debug, Clone)]
pub struct Secret {
    /// `st-…`
    pub id: String,
    /// Empty for an ephemeral one.
    pub name: String,
    /// Its environment.
    pub environment: String,
    /// Keys and values.
    pub values: BTreeMap<String, String>,
    /// Unix seconds.
    pub created_at: f64,
    /// Unix seconds; 0 until used.
    pub last_used_at: f64,
}

/// A volume.
#[derive(Debug, Clone)]
pub struct Volume {
    /// `vo-…`
    pub id: String,
    /// Empty for an ephemeral one.
    pub name: String,
    /// Its environment.
    pub environment: String,
    /// A value of [`proto::VolumeFsVersion`].
    pub version: i32,
    /// Unix seconds.
    pub created_at: f64,
    /// What containers have of it.
    pub shared: Arc<Shared>,
}

/// A file of a volume that a client fetches.
#[derive(Debug, Clone)]
pub struct Download {
    /// The volume.
    pub volume_id: String,
    /// Path in it.
    pub path: PathBuf,
}

/// What a token is good for.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The sandbox.
    pub sandbox_id: String,
    /// Port of the server inside.
    pub port: u16,
    /// What the server inside is told of the token, as the value of a header.
    pub metadata: Option<String>,
}

/// A set of files: a build context, or local files added when a sandbox starts.
#[derive(Debug)]
pub struct Mount {
    /// `mo-…`
    pub id: String,
    /// Path in the mount (with or without a leading slash), content, permission bits.
    pub files: Vec<MountFile>,
    /// SHA-256 over all of them.
    pub checksum: String,
}

/// One file of a [`Mount`].
#[derive(Debug, Clone)]
pub struct MountFile {
    /// Path in the mount.
    pub path: String,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// Permission bits.
    pub mode: u32,
}

/// An upload that was announced.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Bytes announced.
    pub length: u64,
    /// All of it has arrived.
    pub complete: bool,
}

impl State {
    /// Content of mounts, named by SHA-256.
    pub fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    /// Image layers.
    pub fn layers(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// Output of processes.
    pub fn spools(&self) -> PathBuf {
        self.dir.join("spools")
    }

    /// Uploaded blobs, named by id.
    pub fn blobs(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    /// What has been committed to a volume.
    pub fn volume_dir(&self, id: &str) -> PathBuf {
        self.dir.join("volumes").join(id)
    }

    /// What containers see of volumes, by container.
    pub fn views(&self) -> PathBuf {
        self.dir.join("views")
    }

    /// What is in a bucket.
    pub fn bucket_dir(&self, name: &str) -> PathBuf {
        self.dir.join("buckets").join(name)
    }

    /// Makes the directories below `dir`.
    pub fn make_directories(dir: &Path) -> std::io::Result<()> {
        for name in ["files", "images", "spools", "blobs", "volumes", "views", "buckets"] {
            std::fs::create_dir_all(dir.join(name))?;
        }
        Ok(())
    }

    /// The environment meant by `name` (empty: the default one), if it exists.
    pub fn environment(&self, name: &str) -> Result<String, Error> {
        let name = if name.is_empty() { DEFAULT_ENVIRONMENT } else { name };
        if self.tables.lock().environments.contains_key(name) {
            Ok(name.to_owned())
        } else {
            Err(Error::not_found(format!("Environment '{name}' not found")))
        }
    }

    /// A running app by id.
    pub fn app(&self, id: &str) -> Result<App, Error> {
        if id.is_empty() {
            return Err(Error::invalid_argument("app_id is required"));
        }
        match self.tables.lock().apps.get(id) {
            Some(app) if app.state == proto::AppState::Stopped as i32 => {
                Err(Error::failed_precondition(format!("App {id} has been stopped")))
            }
            Some(app) => Ok(app.clone()),
            None => Err(Error::not_found(format!("App with ID {id} not found"))),
        }
    }

    /// A sandbox by id.
    pub fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        if id.is_empty() {
            return Err(Error::invalid_argument("sandbox_id is required"));
        }
        let sandbox = self.tables.lock().sandboxes.get(id).cloned();
        sandbox.ok_or_else(|| Error::not_found(format!("Sandbox with ID {id} not found")))
    }

    /// The sandbox of a task.
    pub fn task(&self, task_id: &str) -> Result<Arc<Sandbox>, Error> {
        let tables = self.tables.lock();
        let sandbox = tables.tasks.get(task_id).and_then(|id| tables.sandboxes.get(id)).cloned();
        sandbox.ok_or_else(|| Error::not_found(format!("Task {task_id} not found")))
    }

    /// A volume by id.
    pub fn volume(&self, id: &str) -> Result<Volume, Error> {
        let volume = self.tables.lock().volumes.get(id).cloned();
        volume.ok_or_else(|| Error::not_found(format!("Volume with ID {id} not found")))
    }

    /// A mount by id.
    pub fn mount(&self, id: &str) -> Result<Arc<Mount>, Error> {
        let mount = self.tables.lock().mounts.get(id).cloned();
        mount.ok_or_else(|| Error::not_found(format!("Mount with ID {id} not found")))
    }

    /// An image by id, built or not. One whose time is over is forgotten.
    pub fn image(&self, id: &str) -> Result<Arc<Image>, Error> {
        let mut tables = self.tables.lock();
        let image = tables.images.get(id).cloned();
        match image {
            Some(image) if image.lifetime().lasts() => Ok(image),
            gone => {
                if gone.is_some() {
                    tracing::info!(image = id, "image expired");
                    tables.forget_image(id);
                }
                Err(Error::not_found(format!("Could not find image with ID {id}")))
            }
        }
    }

    /// The variables of a list of sources, in order; later ones win.
    pub fn variables(&self, sources: &[proto::SecretSource]) -> Result<Vec<(String, String)>, Error> {
        use proto::secret_source::Source;
        let mut all = Vec::new();
        for source in sources {
            match &source.source {
                Some(Source::SecretId(id)) => all.extend(self.secret_values(id)?),
                Some(Source::Env(map)) => {
                    all.extend(map.contents.iter().map(|(key, value)| (key.clone(), value.clone())));
                }
                None => return Err(Error::invalid_argument("a secret source is empty")),
            }
        }
        check_variables(&all)?;
        Ok(all)
    }

    /// The variables of one secret.
    pub fn secret_values(&self, id: &str) -> Result<Vec<(String, String)>, Error> {
        match self.tables.lock().secrets.get_mut(id) {
            Some(secret) => {
                secret.last_used_at = now();
                Ok(secret.values.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
            }
            None => Err(Error::not_found(format!("Secret with ID {id} not found"))),
        }
    }

    /// The variable by which a container can show others what it is.
    pub fn identity(&self) -> (String, String) {
        ("MODAL_IDENTITY_TOKEN".to_owned(), self.signer.sign("identity", Duration::from_secs(3600)))
    }

    /// A token for a task, good for `life` or as long as they usually are.
    pub fn task_token(&self, task_id: &str, life: Option<Duration>) -> String {
        self.signer.sign(task_id, life.unwrap_or(self.options.router_token_life))
    }
}

impl Tables {
    /// Forgets an image. Sandboxes made of it go on; so do images built on it.
    pub fn forget_image(&mut self, id: &str) {
        self.images.remove(id);
        self.image_cache.retain(|_, cached| cached != id);
        self.image_tags.retain(|_, tag| tag.image_id() != id);
        self.image_bases.remove(id);
    }

    /// Enters a sandbox that has ended among those that are kept, and forgets the oldest of them when there are too many.
    pub fn retire(&mut self, id: &str) {
        self.ended.push_back(id.to_owned());
        if self.ended.len() <= ENDED_SANDBOXES {
            return;
        }
        // A persistent sandbox goes on from its last session.
        let needed: HashSet<String> = self.persistent.values().map(|chain| chain.session.lock().clone()).collect();
        let oldest = self.ended.iter().position(|id| !needed.contains(id));
        if let Some(id) = oldest.and_then(|at| self.ended.remove(at)) {
            if let Some(sandbox) = self.sandboxes.remove(&id) {
                self.tasks.remove(&sandbox.task_id);
            }
            self.grants.retain(|_, grant| grant.sandbox_id != id);
        }
    }

    /// Fails when a live sandbox of the app has this name.
    pub fn free_name(&self, app_id: &str, name: &str) -> Result<(), Error> {
        let mut sandboxes = self.sandboxes.values();
        let taken = sandboxes.any(|other| {
            other.app_id == app_id && other.lives() && other.changing.lock().name.as_deref() == Some(name)
        });
        if taken {
            return Err(Error::already_exists(format!("Sandbox with name '{name}' already exists in this app")));
        }
        Ok(())
    }

    /// With the default environment.
    pub fn new() -> Tables {
        let mut tables = Tables::default();
        tables
            .environments
            .insert(DEFAULT_ENVIRONMENT.to_owned(), Environment { id: ids::id("en"), created_at: now() });
        tables
    }
}
