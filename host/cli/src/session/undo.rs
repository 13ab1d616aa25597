//! The list of what must be undone if the command is stopped.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sandbox_host::types::ListFilter;
use sandbox_host::{Provider, Sandbox, Signal};
use tokio::time::Instant;

use super::{Session, Shared};

/// Something that must be undone if the command is stopped.
#[derive(Clone)]
pub(super) enum Cleanup {
    /// Terminate this sandbox.
    Sandbox(Sandbox),
    /// A sandbox is being created: terminate the sandboxes with this tag.
    Creating(Provider, (String, String)),
    /// Kill this command.
    Exec(Sandbox, String),
}

/// An entry of the list. [`CleanupEntry::done`] removes it; dropping the value keeps it on the list.
#[must_use]
pub struct CleanupEntry {
    shared: Arc<Shared>,
    id: u64,
}

impl CleanupEntry {
    /// Removes the entry if the failed call certainly had no effect.
    pub fn done_if_no_effect(self, error: &sandbox_host::Error) {
        if error.happened() == sandbox_host::Happened::No {
            self.done();
        }
    }

    /// Removes the entry.
    pub fn done(self) {
        self.shared.cleanups.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| *id != self.id);
    }
}

impl Session {
    fn register(&self, cleanup: Cleanup) -> CleanupEntry {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.cleanups.lock().unwrap_or_else(PoisonError::into_inner).push((id, cleanup));
        CleanupEntry { shared: self.shared.clone(), id }
    }

    /// Adds an entry: the sandbox must be terminated.
    pub fn register_sandbox(&self, sandbox: &Sandbox) -> CleanupEntry {
        self.register(Cleanup::Sandbox(sandbox.clone()))
    }

    /// Adds an entry: a sandbox with this tag may be created.
    pub fn register_creation(&self, provider: &Provider, tag: (String, String)) -> CleanupEntry {
        self.register(Cleanup::Creating(provider.clone(), tag))
    }

    /// Adds an entry: the command must be killed.
    pub fn register_exec(&self, sandbox: &Sandbox, exec: &str) -> CleanupEntry {
        self.register(Cleanup::Exec(sandbox.clone(), exec.to_owned()))
    }

    /// Undoes all entries within `patience`, and prints those that could not be undone. Returns whether all were undone.
    pub async fn undo_all(&self, patience: Duration) -> bool {
        // Stopping the private emulator removes everything in it.
        if self.shared.emulator.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            self.shared.cleanups.lock().unwrap_or_else(PoisonError::into_inner).clear();
            self.shared.provider.lock().unwrap_or_else(PoisonError::into_inner).take();
            return true;
        }
        // All at once, so that slow requests do not use up the time of the others.
        let until = Instant::now() + patience;
        let cleanups = {
            let mut cleanups = self.shared.cleanups.lock().unwrap_or_else(PoisonError::into_inner);
            drop_covered(&mut cleanups);
            cleanups.clone()
        };
        let undone = futures_util::future::join_all(cleanups.into_iter().rev().map(|(id, cleanup)| async move {
            let undone = self.undo(cleanup, until).await;
            // Stays on the list until now, so that `left_behind` includes it.
            CleanupEntry { shared: self.shared.clone(), id }.done();
            undone
        }));
        let (undone, unsignalled) = tokio::join!(undone, self.unsignalled(patience));
        if let Some(left) = &unsignalled {
            self.voice.warn(format_args!("left behind: {left}"));
        }
        undone.into_iter().all(|undone| undone) && unsignalled.is_none()
    }

    /// Waits until the provider has killed commands that were cancelled. Returns a description if that takes longer than
    /// `patience`.
    async fn unsignalled(&self, patience: Duration) -> Option<String> {
        let provider = self.shared.provider.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let error = provider?.signals_sent(patience).await.err()?;
        Some(format!("possibly a cancelled command ({error})"))
    }

    async fn undo(&self, cleanup: Cleanup, until: Instant) -> bool {
        let (name, result) = match cleanup {
            Cleanup::Sandbox(sandbox) => {
                let _step = self.voice.step(format!("terminating {}", sandbox.id()));
                (format!("the sandbox {}", sandbox.id()), tokio::time::timeout_at(until, sandbox.terminate()).await)
            }
            Cleanup::Exec(sandbox, exec) => {
                let killed = tokio::time::timeout_at(until, sandbox.signal(&exec, Signal::KILL)).await;
                (format!("the command {exec} in {}", sandbox.id()), killed)
            }
            Cleanup::Creating(provider, (key, value)) => {
                let name = format!("a sandbox with the tag {key}={value}");
                let search = async {
                    for info in provider.list(&ListFilter::default().tag(key, value), 10).await? {
                        provider.sandbox(info.id).terminate().await?;
                    }
                    Ok(())
                };
                (name, tokio::time::timeout_at(until, search).await)
            }
        };
        match result {
            Ok(Ok(())) => true,
            Ok(Err(error)) if error.is_not_found() || error.is_sandbox_ended() => true,
            Ok(Err(error)) => {
                self.voice.warn(format_args!("left behind: {name} ({error})"));
                false
            }
            Err(_) => {
                self.voice.warn(format_args!("left behind: {name} (the provider did not respond)"));
                false
            }
        }
    }

    /// Returns descriptions of everything that would be left behind now.
    pub async fn left_behind(&self) -> Vec<String> {
        let mut left: Vec<_> = {
            let mut cleanups = self.shared.cleanups.lock().unwrap_or_else(PoisonError::into_inner);
            drop_covered(&mut cleanups);
            cleanups
                .iter()
                .map(|(_, cleanup)| match cleanup {
                    Cleanup::Sandbox(sandbox) => format!("the sandbox {}", sandbox.id()),
                    Cleanup::Exec(sandbox, exec) => format!("the command {exec} in {}", sandbox.id()),
                    Cleanup::Creating(_, (key, value)) => format!("possibly a sandbox with the tag {key}={value}"),
                })
                .collect()
        };
        // The pending signals may be for commands that are already on the list.
        if left.is_empty() {
            left.extend(self.unsignalled(Duration::ZERO).await);
        }
        left
    }
}

/// Removes the commands whose sandbox will be terminated anyway.
fn drop_covered(cleanups: &mut Vec<(u64, Cleanup)>) {
    let ending: Vec<_> = cleanups
        .iter()
        .filter_map(|(_, cleanup)| match cleanup {
            Cleanup::Sandbox(sandbox) => Some(sandbox.id().to_owned()),
            _ => None,
        })
        .collect();
    cleanups.retain(
        |(_, cleanup)| !matches!(cleanup, Cleanup::Exec(sandbox, _) if ending.iter().any(|id| id == sandbox.id())),
    );
}
