//! The containers whose shell is at another path than usual, as far as that is known.

use std::cell::RefCell;

use sandbox_provider_kit::{
    api::{ids, wit::Location},
    inside::script::{OTHER_SHELL, SHELL},
    memo::Memo,
};

/// The containers whose shell is at another path, by sandbox and sidecar.
#[derive(Default)]
pub struct ShellPlaces {
    others: RefCell<Memo<(String, Option<String>), ()>>,
}

impl ShellPlaces {
    /// Returns whether the shell of a container is known to be at another path.
    pub(crate) fn is_other(&self, sandbox: &str, container: Option<&str>) -> bool {
        self.others.borrow().get(&(sandbox.to_string(), container.map(str::to_string))).is_some()
    }

    /// Records that the shell of a container is at another path.
    pub(crate) fn note_other(&self, sandbox: &str, container: Option<&str>) {
        self.others.borrow_mut().insert((sandbox.to_string(), container.map(str::to_string)), ());
    }

    /// Replaces the shell of an argv with the path at which the container has its shell.
    pub(crate) fn placed(&self, sandbox: &str, container: Option<&str>, mut argv: Vec<String>) -> Vec<String> {
        if argv.first().is_some_and(|program| program == SHELL) && self.is_other(sandbox, container) {
            argv[0] = OTHER_SHELL.1.to_string();
        }
        argv
    }

    /// Returns the transfer id of a script. It is another one if the shell is at another path, because the exec with
    /// the first id was already started with the wrong path.
    pub(crate) fn script_id(&self, at: &Location, transfer: &str) -> String {
        if self.is_other(&at.sandbox, at.container.as_deref()) {
            ids::derived_uuid(&format!("shell {transfer}"))
        } else {
            transfer.to_string()
        }
    }
}
