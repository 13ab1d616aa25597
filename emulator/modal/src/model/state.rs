//! The state of an emulator: one set of tables behind one lock, and directories for data that is too large for memory.
//!
//! The lock is held only to read and change these tables, never across an await. Objects that change on their own (sandboxes,
//! builds) are stored as shared handles with locks of their own.

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

/// Number of ended sandboxes whose results and output stay available; the oldest are forgotten first. A record takes a few
/// kilobytes and up to 32 KiB of output; longer output is on disk.
const ENDED_SANDBOXES: usize = 4096;

/// Name of the environment that an empty name stands for.
pub const DEFAULT_ENVIRONMENT: &str = "main";

/// The state of one emulator.
#[derive(Debug)]
pub struct State {
    /// The options that the emulator was started with.
    pub options: Options,
    /// Address of the main listener.
    pub address: SocketAddr,
    /// Address of the listener for connections by connect token.
    pub front: SocketAddr,
    /// Decides which connections are accepted.
    pub peers: Peers,
    /// Makes containers.
    pub engine: Arc<Engine>,
    /// Resolves names for sandboxes.
    pub names: Arc<Names>,
    /// Makes and checks tokens.
    pub signer: Signer,
    /// Directory of the emulator; removed when it ends.
    pub dir: PathBuf,
    /// All objects that have an id.
    pub tables: Mutex<Tables>,
    /// Faults that tests have ordered.
    pub chaos: Chaos,
    /// Cache directories that the commands of builds share.
    pub caches: Caches,
}

/// All objects that have an id. The layers above ([`crate::service`], [`crate::runtime`], [`crate::http`]) access its fields
/// directly.
#[derive(Debug, Default)]
pub struct Tables {
    /// Environments by name.
    pub environments: BTreeMap<String, Environment>,
    /// Apps by id.
    pub apps: HashMap<String, App>,
    /// Secrets by id.
    pub secrets: HashMap<String, Secret>,
    /// Volumes by id.
    pub volumes: HashMap<String, Volume>,
    /// Mounts by id.
    pub mounts: HashMap<String, Arc<Mount>>,
    /// Announced uploads by id.
    pub blobs: HashMap<String, Blob>,
    /// Images by id.
    pub images: HashMap<String, Arc<Image>>,
    /// Image ids by hash of the layer definition.
    pub image_cache: HashMap<String, String>,
    /// Published image names by (environment, name, tag).
    pub image_tags: BTreeMap<(String, String, String), Tag>,
    /// The id of the base image by the id of the image that was built on it.
    pub image_bases: HashMap<String, String>,
    /// Downloads by id.
    pub downloads: HashMap<String, Download>,
    /// Ids of downloads, oldest first.
    pub download_order: VecDeque<String>,
    /// Sandboxes by id, including ended ones.
    pub sandboxes: HashMap<String, Arc<Sandbox>>,
    /// Sandbox ids by task id.
    pub tasks: HashMap<String, String>,
    /// What each connect token permits, by token.
    pub grants: HashMap<String, Grant>,
    /// Persistent sandboxes by id.
    pub persistent: HashMap<String, Arc<Persistent>>,
    /// Ids of ended sandboxes whose records are kept, in the order in which they ended.
    pub ended: VecDeque<String>,
}

/// A persistent sandbox.
#[derive(Debug)]
pub struct Persistent {
    /// Held while a session is started or ended, so that concurrent callers get the same session.
    pub turn: Mutex<()>,
    /// Sandbox id of the newest session. Code that holds this lock must not take another one.
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
    /// Empty for an app that AppCreate made.
    pub name: String,
    /// Text for people.
    pub description: String,
    /// Name of its environment.
    pub environment: String,
    /// A value of [`proto::AppState`].
    pub state: i32,
    /// Unix seconds.
    pub created_at: f64,
    /// Unix seconds; 0 until it is stopped.
    pub stopped_at: f64,
    /// Unix seconds; 0 unless it was deployed.
    pub deployed_at: f64,
    /// Keys and values.
    pub tags: HashMap<String, String>,
    /// Time of the client's last heartbeat; `None` if the client sends none.
    pub heartbeat: Option<Instant>,
}

/// A secret.
#[derive(Debug, Clone)]
pub struct Secret {
    /// `st-…`
    pub id: String,
    /// Empty for an ephemeral secret.
    pub name: String,
    /// Name of its environment.
    pub environment: String,
    /// Keys and values.
    pub values: BTreeMap<String, String>,
    /// Unix seconds.
    pub created_at: f64,
    /// Unix seconds; 0 until it is used.
    pub last_used_at: f64,
}

/// A volume.
#[derive(Debug, Clone)]
pub struct Volume {
    /// `vo-…`
    pub id: String,
    /// Empty for an ephemeral volume.
    pub name: String,
    /// Name of its environment.
    pub environment: String,
    /// A value of [`proto::VolumeFsVersion`].
    pub version: i32,
    /// Unix seconds.
    pub created_at: f64,
    /// The copies of this volume that containers have.
    pub shared: Arc<Shared>,
}

/// A file of a volume that a client downloads.
#[derive(Debug, Clone)]
pub struct Download {
    /// Id of the volume.
    pub volume_id: String,
    /// Path in the volume.
    pub path: PathBuf,
}

/// What a connect token permits.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Id of the sandbox.
    pub sandbox_id: String,
    /// Port of the server inside the sandbox.
    pub port: u16,
    /// Value of the header that tells the server inside about the token's user; `None` if there is none.
    pub metadata: Option<String>,
}

/// A set of files: a build context, or local files added when a sandbox starts.
#[derive(Debug)]
pub struct Mount {
    /// `mo-…`
    pub id: String,
    /// The files.
    pub files: Vec<MountFile>,
    /// SHA-256 over all files.
    pub checksum: String,
}

/// One file of a [`Mount`].
#[derive(Debug, Clone)]
pub struct MountFile {
    /// Path in the mount, with or without a leading slash.
    pub path: String,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// Permission bits.
    pub mode: u32,
}

/// An upload that was announced.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Announced length in bytes.
    pub length: u64,
    /// Whether all bytes have arrived.
    pub complete: bool,
}

impl State {
    /// Returns the directory of file contents of mounts, which are named by SHA-256.
    pub fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    /// Returns the directory of image layers.
    pub fn layers(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// Returns the directory of process output.
    pub fn spools(&self) -> PathBuf {
        self.dir.join("spools")
    }

    /// Returns the directory of uploaded blobs, which are named by id.
    pub fn blobs(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    /// Returns the directory of the committed files of a volume.
    pub fn volume_dir(&self, id: &str) -> PathBuf {
        self.dir.join("volumes").join(id)
    }

    /// Returns the directory of the containers' copies of volumes; it has one directory per container.
    pub fn views(&self) -> PathBuf {
        self.dir.join("views")
    }

    /// Returns the directory of a bucket's files.
    pub fn bucket_dir(&self, name: &str) -> PathBuf {
        self.dir.join("buckets").join(name)
    }

    /// Creates the directories below `dir`.
    ///
    /// # Errors
    ///
    /// Fails if a directory cannot be created.
    pub fn make_directories(dir: &Path) -> std::io::Result<()> {
        for name in ["files", "images", "spools", "blobs", "volumes", "views", "buckets"] {
            std::fs::create_dir_all(dir.join(name))?;
        }
        Ok(())
    }

    /// Resolves the name of an environment; an empty name stands for the default one.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::NotFound` if the environment does not exist.
    pub fn environment(&self, name: &str) -> Result<String, Error> {
        let name = if name.is_empty() { DEFAULT_ENVIRONMENT } else { name };
        if self.tables.lock().environments.contains_key(name) {
            Ok(name.to_owned())
        } else {
            Err(Error::not_found(format!("Environment '{name}' not found")))
        }
    }

    /// Returns an app by id.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::InvalidArgument` if the id is empty, with `Kind::NotFound` if there is no such app, and with
    /// `Kind::FailedPrecondition` if the app has been stopped.
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

    /// Returns a sandbox by id, also after it has ended.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::InvalidArgument` if the id is empty, and with `Kind::NotFound` if there is no such sandbox.
    pub fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        if id.is_empty() {
            return Err(Error::invalid_argument("sandbox_id is required"));
        }
        let sandbox = self.tables.lock().sandboxes.get(id).cloned();
        sandbox.ok_or_else(|| Error::not_found(format!("Sandbox with ID {id} not found")))
    }

    /// Returns the sandbox that has this task id.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::NotFound` if there is no such task.
    pub fn task(&self, task_id: &str) -> Result<Arc<Sandbox>, Error> {
        let tables = self.tables.lock();
        let sandbox = tables.tasks.get(task_id).and_then(|id| tables.sandboxes.get(id)).cloned();
        sandbox.ok_or_else(|| Error::not_found(format!("Task {task_id} not found")))
    }

    /// Returns a volume by id.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::NotFound` if there is no such volume.
    pub fn volume(&self, id: &str) -> Result<Volume, Error> {
        let volume = self.tables.lock().volumes.get(id).cloned();
        volume.ok_or_else(|| Error::not_found(format!("Volume with ID {id} not found")))
    }

    /// Returns a mount by id.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::NotFound` if there is no such mount.
    pub fn mount(&self, id: &str) -> Result<Arc<Mount>, Error> {
        let mount = self.tables.lock().mounts.get(id).cloned();
        mount.ok_or_else(|| Error::not_found(format!("Mount with ID {id} not found")))
    }

    /// Returns an image by id, whether or not its build has finished. Removes the image if its lifetime has expired; otherwise
    /// the call counts as a use of the image.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::NotFound` if there is no such image or it has expired.
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

    /// Returns the variables of all sources in order. Names may repeat; later values override earlier ones.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::InvalidArgument` if a source is empty or a variable is not usable, and with `Kind::NotFound` if a
    /// secret does not exist.
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

    /// Returns the variables of one secret, and updates the time of its last use.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::NotFound` if there is no such secret.
    pub fn secret_values(&self, id: &str) -> Result<Vec<(String, String)>, Error> {
        match self.tables.lock().secrets.get_mut(id) {
            Some(secret) => {
                secret.last_used_at = now();
                Ok(secret.values.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
            }
            None => Err(Error::not_found(format!("Secret with ID {id} not found"))),
        }
    }

    /// Returns the environment variable that holds a container's identity token, which is valid for one hour.
    pub fn identity(&self) -> (String, String) {
        ("MODAL_IDENTITY_TOKEN".to_owned(), self.signer.sign("identity", Duration::from_secs(3600)))
    }

    /// Returns a router token for a task. It is valid for `life`, or for the configured default if `life` is `None`.
    pub fn task_token(&self, task_id: &str, life: Option<Duration>) -> String {
        self.signer.sign(task_id, life.unwrap_or(self.options.router_token_life))
    }
}

impl Tables {
    /// Removes an image, its cache entry and its names. Sandboxes that run from it, and images built on it, are not affected.
    pub fn forget_image(&mut self, id: &str) {
        self.images.remove(id);
        self.image_cache.retain(|_, cached| cached != id);
        self.image_tags.retain(|_, tag| tag.image_id() != id);
        self.image_bases.remove(id);
    }

    /// Records that a sandbox has ended. If more than `ENDED_SANDBOXES` records are kept, removes the oldest.
    pub fn retire(&mut self, id: &str) {
        self.ended.push_back(id.to_owned());
        if self.ended.len() <= ENDED_SANDBOXES {
            return;
        }
        // The last session of a persistent sandbox is needed to resume it.
        let needed: HashSet<String> = self.persistent.values().map(|chain| chain.session.lock().clone()).collect();
        let oldest = self.ended.iter().position(|id| !needed.contains(id));
        if let Some(id) = oldest.and_then(|at| self.ended.remove(at)) {
            if let Some(sandbox) = self.sandboxes.remove(&id) {
                self.tasks.remove(&sandbox.task_id);
            }
            self.grants.retain(|_, grant| grant.sandbox_id != id);
        }
    }

    /// Checks that no live sandbox of the app has this name.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::AlreadyExists` if a live sandbox has it.
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

    /// Returns tables that hold only the default environment.
    pub fn new() -> Tables {
        let mut tables = Tables::default();
        tables
            .environments
            .insert(DEFAULT_ENVIRONMENT.to_owned(), Environment { id: ids::id("en"), created_at: now() });
        tables
    }
}
