//! What has to be undone if the command is stopped.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sandbox_host::types::ListFilter;
use sandbox_host::{Provider, Sandbox};
use tokio::time::Instant;

use super::{Session, Shared};

/// What is left to be done when a command was stopped in the middle.
#[derive(Clone)]
pub(super) enum Debt {
    /// Terminate the sandbox.
    Sandbox(Sandbox),
    /// A create was under way: terminate what carries this tag.
    Creating(Provider, (String, String)),
    /// Kill the command.
    Exec(Sandbox, String),
}

/// Takes a debt off the list when dropped by [`Owed::paid`]; stays on it otherwise.
#[must_use]
pub struct Owed {
    shared: Arc<Shared>,
    id: u64,
}

impl Owed {
    /// Nothing is left to do if the call is certain to have done nothing.
    pub fn unless_happened(self, error: &sandbox_host::Error) {
        if error.happened() == sandbox_host::Happened::No {
            self.paid();
        }
    }

    /// Nothing is left to do.
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

    /// The sandbox is to be terminated when we are stopped.
    pub fn owe_sandbox(&self, sandbox: &Sandbox) -> Owed {
        self.owe(Debt::Sandbox(sandbox.clone()))
    }

    /// A sandbox with this tag may come into being.
    pub fn owe_creation(&self, provider: &Provider, tag: (String, String)) -> Owed {
        self.owe(Debt::Creating(provider.clone(), tag))
    }

    /// The command is to be killed when we are stopped.
    pub fn owe_exec(&self, sandbox: &Sandbox, exec: &str) -> Owed {
        self.owe(Debt::Exec(sandbox.clone(), exec.to_owned()))
    }

    /// Undoes what was left behind, and says so. True if everything could be undone. `patience`: for all of it.
    pub async fn settle(&self, patience: Duration) -> bool {
        // A private emulator takes everything with it.
        if self.shared.emulator.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            self.shared.debts.lock().unwrap_or_else(PoisonError::into_inner).clear();
            self.shared.provider.lock().unwrap_or_else(PoisonError::into_inner).take();
            return true;
        }
        // All at the same time: what is far away must not use up the time of the rest.
        let until = Instant::now() + patience;
        let debts = {
            let mut debts = self.shared.debts.lock().unwrap_or_else(PoisonError::into_inner);
            drop_covered(&mut debts);
            debts.clone()
        };
        let undone = futures_util::future::join_all(debts.into_iter().rev().map(|(id, debt)| async move {
            let undone = self.settle_one(debt, until).await;
            // Each stays on the list until then, for when it is asked what is left.
            Owed { shared: self.shared.clone(), id }.paid();
            undone
        }));
        let (undone, unsignalled) = tokio::join!(undone, self.unsignalled(patience));
        if let Some(left) = &unsignalled {
            self.voice.warn(format_args!("left behind: {left}"));
        }
        undone.into_iter().all(|undone| undone) && unsignalled.is_none()
    }

    /// Commands that were given up, and have not been killed within `patience`.
    async fn unsignalled(&self, patience: Duration) -> Option<String> {
        let provider = self.shared.provider.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let error = provider?.signals_sent(patience).await.err()?;
        Some(format!("perhaps a command that was given up ({error})"))
    }

    async fn settle_one(&self, debt: Debt, until: Instant) -> bool {
        let (name, result) = match debt {
            Debt::Sandbox(sandbox) => {
                let _step = self.voice.step(format!("terminating {}", sandbox.id()));
                (format!("the sandbox {}", sandbox.id()), tokio::time::timeout_at(until, sandbox.terminate()).await)
            }
            Debt::Exec(sandbox, exec) => {
                let killed = tokio::time::timeout_at(until, sandbox.signal(&exec, 9)).await;
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
                self.voice.warn(format_args!("left behind: {name} (no answer)"));
                false
            }
        }
    }

    /// What would be left behind now, in words.
    pub async fn left_behind(&self) -> Vec<String> {
        let mut left: Vec<_> = {
            let mut debts = self.shared.debts.lock().unwrap_or_else(PoisonError::into_inner);
            drop_covered(&mut debts);
            debts
                .iter()
                .map(|(_, debt)| match debt {
                    Debt::Sandbox(sandbox) => format!("the sandbox {}", sandbox.id()),
                    Debt::Exec(sandbox, exec) => format!("the command {exec} in {}", sandbox.id()),
                    Debt::Creating(_, (key, value)) => format!("perhaps a sandbox with the tag {key}={value}"),
                })
                .collect()
        };
        // What is on the list may be what the signals are for.
        if left.is_empty() {
            left.extend(self.unsignalled(Duration::ZERO).await);
        }
        left
    }
}

/// A command goes with its sandbox.
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
