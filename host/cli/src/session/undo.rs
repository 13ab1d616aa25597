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
pub(super) enum Debt {
    /// Terminate this sandbox.
    Sandbox(Sandbox),
    /// A sandbox is being created: terminate the sandboxes with this tag.
    Creating(Provider, (String, String)),
    /// Kill this command.
    Exec(Sandbox, String),
}

/// An entry of the list. [`Owed::paid`] removes it; dropping the value keeps it on the list.
#[must_use]
pub struct Owed {
    shared: Arc<Shared>,
    id: u64,
}

impl Owed {
    /// Removes the entry if the failed call certainly had no effect.
    pub fn unless_happened(self, error: &sandbox_host::Error) {
        if error.happened() == sandbox_host::Happened::No {
            self.paid();
        }
    }

    /// Removes the entry.
    pub fn paid(self) {
        self.shared.debts.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| *id != self.id);
    }
}

impl Session {
    fn owe(&self, debt: Debt) -> Owed {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.shared.debts.lock().unwrap_or_else(PoisonError::into_inner).push((id, debt));
        Owed { shared: self.shared.clone(), id }
    }

    /// Adds an entry: the sandbox must be terminated.
    pub fn owe_sandbox(&self, sandbox: &Sandbox) -> Owed {
        self.owe(Debt::Sandbox(sandbox.clone()))
    }

    /// Adds an entry: a sandbox with this tag may be created.
    pub fn owe_creation(&self, provider: &Provider, tag: (String, String)) -> Owed {
        self.owe(Debt::Creating(provider.clone(), tag))
    }

    /// Adds an entry: the command must be killed.
    pub fn owe_exec(&self, sandbox: &Sandbox, exec: &str) -> Owed {
        self.owe(Debt::Exec(sandbox.clone(), exec.to_owned()))
    }

    /// Undoes all entries within `patience`, and prints those that could not be undone. Returns whether all were undone.
    pub async fn undo_all(&self, patience: Duration) -> bool {
        // Stopping the private emulator removes everything in it.
        if self.shared.emulator.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            self.shared.debts.lock().unwrap_or_else(PoisonError::into_inner).clear();
            self.shared.provider.lock().unwrap_or_else(PoisonError::into_inner).take();
            return true;
        }
        // All at once, so that slow requests do not use up the time of the others.
        let until = Instant::now() + patience;
        let debts = {
            let mut debts = self.shared.debts.lock().unwrap_or_else(PoisonError::into_inner);
            drop_covered(&mut debts);
            debts.clone()
        };
        let undone = futures_util::future::join_all(debts.into_iter().rev().map(|(id, debt)| async move {
            let undone = self.undo(debt, until).await;
            // Stays on the list until now, so that `left_behind` includes it.
            Owed { shared: self.shared.clone(), id }.paid();
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

    async fn undo(&self, debt: Debt, until: Instant) -> bool {
        let (name, result) = match debt {
            Debt::Sandbox(sandbox) => {
                let _step = self.voice.step(format!("terminating {}", sandbox.id()));
                (format!("the sandbox {}", sandbox.id()), tokio::time::timeout_at(until, sandbox.terminate()).await)
            }
            Debt::Exec(sandbox, exec) => {
                let killed = tokio::time::timeout_at(until, sandbox.signal(&exec, Signal::KILL)).await;
                (format!("the command {exec} in {}", sandbox.id()), killed)
            }
            Debt::Creating(provider, (key, value)) => {
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
            let mut debts = self.shared.debts.lock().unwrap_or_else(PoisonError::into_inner);
            drop_covered(&mut debts);
            debts
                .iter()
                .map(|(_, debt)| match debt {
                    Debt::Sandbox(sandbox) => format!("the sandbox {}", sandbox.id()),
                    Debt::Exec(sandbox, exec) => format!("the command {exec} in {}", sandbox.id()),
                    Debt::Creating(_, (key, value)) => format!("possibly a sandbox with the tag {key}={value}"),
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
fn drop_covered(debts: &mut Vec<(u64, Debt)>) {
    let ending: Vec<_> = debts
        .iter()
        .filter_map(|(_, debt)| match debt {
            Debt::Sandbox(sandbox) => Some(sandbox.id().to_owned()),
            _ => None,
        })
        .collect();
    debts.retain(|(_, debt)| !matches!(debt, Debt::Exec(sandbox, _) if ending.iter().any(|id| id == sandbox.id())));
}
