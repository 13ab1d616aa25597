//! Cache directories that the commands of builds share (`RUN --mount=type=cache`).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::model::values::hex;

/// What happens if two commands use the same cache at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Both use it.
    #[default]
    Shared,
    /// The second command gets another directory.
    Private,
    /// The second command waits.
    Locked,
}

/// The locks of cache directories, by directory name. All builds share them.
#[derive(Debug, Default)]
pub struct Caches(Mutex<HashMap<String, Arc<AsyncMutex<()>>>>);

impl Caches {
    fn lock(&self, name: &str) -> Arc<AsyncMutex<()>> {
        self.0.lock().entry(name.to_owned()).or_default().clone()
    }

    /// Returns the directory name of the cache `id`, and the lock that must be held while it is used. Waits for the lock with
    /// [`Sharing::Locked`]; a shared cache has none.
    pub async fn take(&self, id: &str, sharing: Sharing) -> (String, Option<OwnedMutexGuard<()>>) {
        let name = format!("cache-{}", &hex(&Sha256::digest(id))[..32]);
        match sharing {
            Sharing::Shared => (name, None),
            Sharing::Locked => {
                let lock = self.lock(&name);
                (name, Some(lock.lock_owned().await))
            }
            Sharing::Private => {
                let mut number = 0;
                loop {
                    let name = if number == 0 { name.clone() } else { format!("{name}-{number}") };
                    if let Ok(guard) = self.lock(&name).try_lock_owned() {
                        return (name, Some(guard));
                    }
                    number += 1;
                }
            }
        }
    }
}
