//! Images: what a build or a snapshot has left, and how long it is there.

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

/// An image, from the moment its build begins.
#[derive(Debug)]
pub struct Image {
    /// `im-…`
    pub id: String,
    /// Unix seconds.
    pub created_at: f64,
    /// What its build says.
    pub log: Log,
    /// A client has been told what its build says.
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
    /// That of a snapshot, from the request for it (docs/modal-protocol.md, section 7.3): seconds, -1 for ever, none for 30 days since the
    /// last use.
    pub fn of_snapshot(ttl_seconds: Option<i64>) -> Result<Lifetime, Error> {
        const OLD: Duration = Duration::from_secs(30 * 24 * 3600);
        let bad = |ttl| Error::invalid_argument(format!("ttl_seconds must be positive or -1, got {ttl}"));
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
    pub fn built(&self) -> Result<Arc<Built>, Error> {
        if self.seal.is_some() {
            return Err(Error::failed_precondition(format!("Image {} is encrypted and can only be mounted", self.id)));
        }
        self.finished()
    }

    /// The same for mounting, which may come with the key that the image was made with.
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

    pub(crate) fn end(&self, outcome: Outcome) {
        match &outcome {
            Outcome::Built(_) => tracing::info!(image = self.id, "image built"),
            Outcome::Failed(text) => tracing::info!(image = self.id, error = text, "image failed to build"),
        }
        self.outcome.send_replace(Some(outcome));
        self.log.close();
    }
}
