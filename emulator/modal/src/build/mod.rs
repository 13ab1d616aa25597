//! Image builds: Dockerfile lines that really run, and the layers they leave behind.
//!
//! A request describes one layer on top of finished images. Its lines are parsed (`dockerfile`) and carried out
//! (`steps`) in the background, in containers of the image so far; what those containers wrote becomes a layer. The same
//! request gets the same image (`request_hash`).

mod context;
mod copy;
mod dockerfile;
mod expand;
mod glob;
mod known;
mod mount;
mod mounting;
mod stage;
mod steps;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use modal_proto::client as proto;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

pub use crate::build::mounting::Caches;
pub use crate::model::build_log::Log;
use crate::model::ids;
use crate::model::state::{State, now};
use crate::service::uploads;
use crate::service::uploads::hex;

/// An image, from the moment its build begins.
#[derive(Debug)]
pub struct Image {
    /// `im-…`
    pub id: String,
    /// Unix seconds.
    pub created_at: f64,
    /// What its build says.
    pub log: Log,
    /// Somebody has been told what its build says.
    pub followed: AtomicBool,
    outcome: watch::Sender<Option<Outcome>>,
    lifetime: Lifetime,
    /// SHA-256 of the key without which it cannot be used.
    seal: Option<[u8; 32]>,
}

/// How long an image is there.
#[derive(Debug)]
pub enum Lifetime {
    /// As long as the emulator.
    Unlimited,
    /// Until then.
    Until(Instant),
    /// So long after it was made or used last.
    SinceUse(Duration, Mutex<Instant>),
}

impl Lifetime {
    /// That of a snapshot, from the request for it (fact sheet, section 7.3): seconds, -1 for ever, none for 30 days since the
    /// last use.
    pub fn of_snapshot(ttl_seconds: Option<i64>) -> Result<Lifetime, Status> {
        const OLD: Duration = Duration::from_secs(30 * 24 * 3600);
        let bad = |ttl| Status::invalid_argument(format!("ttl_seconds must be positive or -1, got {ttl}"));
        match ttl_seconds {
            None => Ok(Lifetime::SinceUse(OLD, Mutex::new(Instant::now()))),
            Some(-1) => Ok(Lifetime::Unlimited),
            Some(ttl) => {
                let life = u64::try_from(ttl).ok().filter(|ttl| *ttl > 0).ok_or_else(|| bad(ttl))?;
                // Beyond what the clock can tell is for ever.
                Ok(Instant::now().checked_add(Duration::from_secs(life)).map_or(Lifetime::Unlimited, Lifetime::Until))
            }
        }
    }

    /// Whether it is not over. Counts as a use.
    pub fn lasts(&self) -> bool {
        let now = Instant::now();
        match self {
            Lifetime::Unlimited => true,
            Lifetime::Until(end) => now < *end,
            Lifetime::SinceUse(life, used) => {
                let mut used = used.lock();
                let lasts = now.duration_since(*used) < *life;
                if lasts {
                    *used = now;
                }
                lasts
            }
        }
    }
}

/// How a build ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It can be used.
    Built(Arc<Built>),
    /// It cannot; the text says why.
    Failed(String),
}

/// A usable image.
#[derive(Debug, Clone, Default)]
pub struct Built {
    /// Directories over the base, bottom first.
    pub layers: Vec<PathBuf>,
    /// Without the machine's programs below.
    pub from_scratch: bool,
    /// How processes start in it.
    pub config: Config,
}

/// How processes start in an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// ENV, in order.
    pub env: Vec<(String, String)>,
    /// WORKDIR; `/` when there is none.
    pub workdir: Option<String>,
    /// USER; root when there is none.
    pub user: Option<String>,
    /// ENTRYPOINT.
    pub entrypoint: Option<Vec<String>>,
    /// CMD.
    pub cmd: Option<Vec<String>>,
    /// SHELL; `/bin/sh -c` when there is none.
    pub shell: Option<Vec<String>>,
    /// ONBUILD lines, for images built on this one.
    pub onbuild: Vec<String>,
    /// LABEL.
    pub labels: BTreeMap<String, String>,
}

impl Image {
    /// One whose build has just begun.
    fn building() -> Image {
        Image {
            id: ids::id("im"),
            created_at: now(),
            log: Log::default(),
            followed: AtomicBool::new(false),
            outcome: watch::Sender::new(None),
            lifetime: Lifetime::Unlimited,
            seal: None,
        }
    }

    /// One that needs no build. With a key, it can only be mounted, and only with that key.
    pub fn snapshot(id: &str, built: Built, lifetime: Lifetime, key: Option<&[u8]>) -> Image {
        let image = Image {
            id: id.to_owned(),
            created_at: now(),
            log: Log::default(),
            followed: AtomicBool::new(true),
            outcome: watch::Sender::new(Some(Outcome::Built(Arc::new(built)))),
            lifetime,
            seal: key.map(|key| Sha256::digest(key).into()),
        };
        image.log.close();
        image
    }

    /// How long it is there.
    pub fn lifetime(&self) -> &Lifetime {
        &self.lifetime
    }

    /// How its build ended, if it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.borrow().clone()
    }

    /// The usable image.
    pub fn built(&self) -> Result<Arc<Built>, Status> {
        if self.seal.is_some() {
            return Err(Status::failed_precondition(format!("Image {} is encrypted and can only be mounted", self.id)));
        }
        self.finished()
    }

    /// The same for mounting, which may come with the key that the image was made with.
    pub fn unsealed(&self, key: Option<&[u8]>) -> Result<Arc<Built>, Status> {
        let given: Option<[u8; 32]> = key.map(|key| Sha256::digest(key).into());
        if self.seal.is_some() && self.seal != given {
            let what = if given.is_some() { "another encryption key" } else { "an encryption key" };
            return Err(Status::invalid_argument(format!("Image {} was made with {what}", self.id)));
        }
        self.finished()
    }

    fn finished(&self) -> Result<Arc<Built>, Status> {
        match self.outcome() {
            Some(Outcome::Built(built)) => Ok(built),
            Some(Outcome::Failed(text)) => {
                Err(Status::failed_precondition(format!("Image {} failed to build: {text}", self.id)))
            }
            None => Err(Status::failed_precondition(format!("Image {} is still being built", self.id))),
        }
    }

    fn end(&self, outcome: Outcome) {
        match &outcome {
            Outcome::Built(_) => tracing::info!(image = self.id, "image built"),
            Outcome::Failed(text) => tracing::info!(image = self.id, error = text, "image failed to build"),
        }
        self.outcome.send_replace(Some(outcome));
        self.log.close();
    }
}

/// The image of a request: a finished or growing one of the same definition, or a new one whose build starts, and then
/// true.
pub fn get_or_start(state: &Arc<State>, request: proto::ImageGetOrCreateRequest) -> Result<(Arc<Image>, bool), Status> {
    let definition = request.image.clone().ok_or_else(|| Status::invalid_argument("image is required"))?;
    check(state, &definition)?;
    let hash = request_hash(state, &request)?;
    let mut tables = state.tables.lock();
    if !request.force_build && !request.ignore_cache {
        let known = tables.image_cache.get(&hash).and_then(|id| tables.images.get(id));
        if let Some(image) = known
            && !matches!(image.outcome(), Some(Outcome::Failed(_)))
        {
            return Ok((image.clone(), false));
        }
    }
    let image = Arc::new(Image::building());
    tables.images.insert(image.id.clone(), image.clone());
    if !request.ignore_cache {
        tables.image_cache.insert(hash, image.id.clone());
    }
    drop(tables);
    tracing::info!(image = image.id, lines = definition.dockerfile_commands.len(), "build starts");
    let (state, building) = (state.clone(), image.clone());
    tokio::spawn(async move {
        // A task of its own, so that a build that panics still ends.
        let built = tokio::spawn(steps::build(state, building.clone(), definition)).await;
        building.end(match built {
            Ok(Ok(built)) => Outcome::Built(Arc::new(built)),
            Ok(Err(text)) => Outcome::Failed(text),
            Err(error) => Outcome::Failed(format!("the build broke off: {error}")),
        });
    });
    Ok((image, true))
}

fn check(state: &State, definition: &proto::Image) -> Result<(), Status> {
    if definition.build_function.is_some() || !definition.build_function_def.is_empty() {
        return Err(Status::unimplemented("The emulator does not run Python functions as build steps"));
    }
    if definition.dockerfile_commands.is_empty() {
        return Err(Status::invalid_argument("dockerfile_commands is required"));
    }
    for base in &definition.base_images {
        state.image(&base.image_id)?;
    }
    for id in &definition.secret_ids {
        state.secret_values(id)?;
    }
    if !definition.context_mount_id.is_empty() {
        uploads::get(state, &definition.context_mount_id)?;
    }
    crate::model::storage::check(state, &definition.volume_mounts, &[])
}

/// A name for what a request asks for. Contents count, not the ids they happen to have.
fn request_hash(state: &State, request: &proto::ImageGetOrCreateRequest) -> Result<String, Status> {
    let definition = request.image.clone().unwrap_or_default();
    let mut hash = Sha256::new();
    let mut add = |kind: &str, value: &[u8]| {
        hash.update(kind);
        hash.update(value.len().to_le_bytes());
        hash.update(value);
    };
    add("builder", request.builder_version.as_bytes());
    for line in &definition.dockerfile_commands {
        add("line", line.as_bytes());
    }
    for base in &definition.base_images {
        add("base", base.docker_tag.as_bytes());
        add("id", base.image_id.as_bytes());
    }
    for file in &definition.context_files {
        add("file", file.filename.as_bytes());
        add("data", &file.data);
    }
    for (key, value) in definition.build_args.iter().collect::<BTreeMap<_, _>>() {
        add("arg", format!("{key}={value}").as_bytes());
    }
    if !definition.context_mount_id.is_empty() {
        add("context", uploads::get(state, &definition.context_mount_id)?.checksum.as_bytes());
    }
    for id in &definition.secret_ids {
        for (key, value) in state.secret_values(id)? {
            add("secret", format!("{key}={value}").as_bytes());
        }
    }
    for volume in &definition.volume_mounts {
        add("volume", format!("{}:{}", volume.volume_id, volume.mount_path).as_bytes());
    }
    Ok(hex(&hash.finalize()))
}

/// A layer that holds a mount's files; made once per mount.
pub async fn mount_layer(state: &Arc<State>, id: &str) -> anyhow::Result<PathBuf> {
    let mount = uploads::get(state, id).map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    let layer = state.layers().join(format!("{id}-layer"));
    if layer.is_dir() {
        return Ok(layer);
    }
    let (contents, wanted) = (state.files(), layer.clone());
    tokio::task::spawn_blocking(move || {
        let part = wanted.with_extension(ids::id("part"));
        context::write(&mount, &contents, &part, true)?;
        // Somebody else may have been faster; theirs is as good.
        if std::fs::rename(&part, &wanted).is_err() {
            remove(&part)?;
        }
        anyhow::Ok(())
    })
    .await??;
    Ok(layer)
}

/// Removes a directory in the background.
pub fn remove_in_background(path: PathBuf) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = remove(&path) {
            tracing::warn!(%error, path = %path.display(), "cannot remove");
        }
    });
}

/// Removes a directory, however little its modes allow.
pub fn remove(path: &Path) -> std::io::Result<()> {
    container_isolation::remove_tree(path)
}

/// Modes of directories that would otherwise take those of a layer that merely passes through them: in an overlay the
/// topmost directory's own mode counts.
fn directory_mode(path: &Path) -> u32 {
    match path.to_str() {
        Some("tmp" | "var/tmp" | "dev/shm" | "run/lock") => 0o1777,
        Some("root") => 0o700,
        _ => 0o755,
    }
}

/// Makes a directory and those above it below `root`, with the modes they have in the base.
fn make_directories(root: &Path, path: &Path) -> std::io::Result<()> {
    let mut so_far = PathBuf::new();
    for part in path.components() {
        so_far.push(part);
        let directory = root.join(&so_far);
        if !directory.is_dir() {
            std::fs::create_dir(&directory)?;
            std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(directory_mode(&so_far)))?;
        }
    }
    Ok(())
}

/// How the property tests of this module run: the same cases each time, unless the environment says otherwise.
#[cfg(test)]
fn cases() -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, RngSeed};
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(0);
    }
    config
}
