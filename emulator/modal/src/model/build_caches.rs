//! Directories that commands of builds share.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::model::values::hex;

/// What happens when two commands want the same cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Both use it.
    #[default]
    Shared,
    /// The second one gets another.
    Private,
    /// The second one waits.
    Locked,
}

/// Directories that commands of all builds share, by the ids that they name; a lock for each.
#[derive(Debug, Default)]
pub struct Caches(Mutex<HashMap<String, Arc<AsyncMutex<()>>>>);

impl Caches {
    fn lock(&self, name: &str) -> Arc<AsyncMutex<()>> {
        self.0.lock().entry(name.to_owned()).or_default().clone()
    }

    /// The name of the cache to use, and the lock that is held meanwhile.
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
