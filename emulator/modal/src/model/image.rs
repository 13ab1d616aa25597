//! Images: the results of builds and snapshots, and their lifetimes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::build_log::Log;
use crate::model::error::Error;
use crate::model::ids;
use crate::model::values::now;

/// An image. It exists from the start of its build.
#[derive(Debug)]
pub struct Image {
    /// `im-…`
    pub id: String,
    /// Unix seconds.
    pub created_at: f64,
    /// The log of its build.
    pub log: Log,
    /// Whether a client has followed the build.
    pub followed: AtomicBool,
    outcome: watch::Sender<Option<Outcome>>,
    lifetime: Lifetime,
    /// SHA-256 of the encryption key without which the image cannot be used.
    seal: Option<[u8; 32]>,
}

/// How long an image can be used.
#[derive(Debug)]
pub enum Lifetime {
    /// As long as the emulator runs.
    Unlimited,
    /// Until this moment.
    Until(Instant),
    /// Until this long after the last use; the time is that of the last use.
    SinceUse(Duration, Mutex<Instant>),
}

impl Lifetime {
    /// Returns the lifetime of a snapshot from the request (docs/modal-protocol.md, section 7.3): a number of seconds, -1 for
    /// no limit, or `None` for 30 days since the last use.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::InvalidArgument` if the number is neither positive nor -1.
    pub fn of_snapshot(ttl_seconds: Option<i64>) -> Result<Lifetime, Error> {
        const OLD: Duration = Duration::from_secs(30 * 24 * 3600);
        let bad = |ttl| Error::invalid_argument(format!("ttl_seconds must be positive or -1, got {ttl}"));
        match ttl_seconds {
            None => Ok(Lifetime::SinceUse(OLD, Mutex::new(Instant::now()))),
            Some(-1) => Ok(Lifetime::Unlimited),
            Some(ttl) => {
                let life = u64::try_from(ttl).ok().filter(|ttl| *ttl > 0).ok_or_else(|| bad(ttl))?;
                // A time that the clock cannot represent counts as no limit.
                Ok(Instant::now().checked_add(Duration::from_secs(life)).map_or(Lifetime::Unlimited, Lifetime::Until))
            }
        }
    }

    /// Returns whether the lifetime has not expired. Counts as a use.
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
    /// The image can be used.
    Built(Arc<Built>),
    /// The build failed; the text says why.
    Failed(String),
}

/// A usable image.
#[derive(Debug, Clone, Default)]
pub struct Built {
    /// Directories of the layers above the base, bottom first.
    pub layers: Vec<PathBuf>,
    /// Whether the image was built `FROM scratch`, without the machine's programs as its base.
    pub from_scratch: bool,
    /// How processes start in it.
    pub config: Config,
}

/// How processes start in an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Variables of ENV lines, in order.
    pub env: Vec<(String, String)>,
    /// Directory of WORKDIR; `None` means `/`.
    pub workdir: Option<String>,
    /// User of USER; `None` means root.
    pub user: Option<String>,
    /// Command of ENTRYPOINT.
    pub entrypoint: Option<Vec<String>>,
    /// Command of CMD.
    pub cmd: Option<Vec<String>>,
    /// Command of SHELL; `None` means `/bin/sh -c`.
    pub shell: Option<Vec<String>>,
    /// ONBUILD lines, which run when an image is built on this one.
    pub onbuild: Vec<String>,
    /// Labels of LABEL lines.
    pub labels: BTreeMap<String, String>,
}

impl Image {
    /// Returns an image whose build has just begun.
    pub(crate) fn building() -> Image {
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

    /// Returns an image that is ready without a build. With a key it can only be mounted, and only with the same key.
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

    /// Returns how long the image can be used.
    pub fn lifetime(&self) -> &Lifetime {
        &self.lifetime
    }

    /// Returns how the build ended; `None` while it runs.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.borrow().clone()
    }

    /// Returns the finished image.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::FailedPrecondition` if the image is encrypted, is still being built, or failed to build.
    pub fn built(&self) -> Result<Arc<Built>, Error> {
        if self.seal.is_some() {
            return Err(Error::failed_precondition(format!("Image {} is encrypted and can only be mounted", self.id)));
        }
        self.finished()
    }

    /// Returns the finished image for mounting, with the encryption key of the request if there is one.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::InvalidArgument` if the image was made with a different key, and with `Kind::FailedPrecondition` if it
    /// is still being built or failed to build.
    pub fn unsealed(&self, key: Option<&[u8]>) -> Result<Arc<Built>, Error> {
        let given: Option<[u8; 32]> = key.map(|key| Sha256::digest(key).into());
        if self.seal.is_some() && self.seal != given {
            let what = if given.is_some() { "another encryption key" } else { "an encryption key" };
            return Err(Error::invalid_argument(format!("Image {} was made with {what}", self.id)));
        }
        self.finished()
    }

    fn finished(&self) -> Result<Arc<Built>, Error> {
        match self.outcome() {
            Some(Outcome::Built(built)) => Ok(built),
            Some(Outcome::Failed(text)) => {
                Err(Error::failed_precondition(format!("Image {} failed to build: {text}", self.id)))
            }
            None => Err(Error::failed_precondition(format!("Image {} is still being built", self.id))),
        }
    }

    /// Ends the build: publishes its outcome and closes its log.
    pub(crate) fn end(&self, outcome: Outcome) {
        match &outcome {
            Outcome::Built(_) => tracing::info!(image = self.id, "image built"),
            Outcome::Failed(text) => tracing::info!(image = self.id, error = text, "image failed to build"),
        }
        self.outcome.send_replace(Some(outcome));
        self.log.close();
    }
}
