//! Where containers have their shell, as far as that is known to be another place than usual.

use std::cell::RefCell;

use sandbox_provider_kit::{
    api::{ids, wit::Location},
    inside::script::{OTHER_SHELL, SHELL},
    memo::Memo,
};

/// Containers that have their shell in another place. By sandbox and sidecar.
#[derive(Default)]
pub struct ShellPlaces {
    others: RefCell<Memo<(String, Option<String>), ()>>,
}

impl ShellPlaces {
    /// Whether a container has its shell in another place.
    pub(crate) fn is_other(&self, sandbox: &str, container: Option<&str>) -> bool {
        self.others.borrow().get(&(sandbox.to_string(), container.map(str::to_string))).is_some()
    }

    /// Notes that it has.
    pub(crate) fn note_other(&self, sandbox: &str, container: Option<&str>) {
        self.others.borrow_mut().insert((sandbox.to_string(), container.map(str::to_string)), ());
    }

    /// What a script is started as in a container: with the shell that was found there.
    pub(crate) fn placed(&self, sandbox: &str, container: Option<&str>, mut argv: Vec<String>) -> Vec<String> {
        if argv.first().is_some_and(|program| program == SHELL) && self.is_other(sandbox, container) {
            argv[0] = OTHER_SHELL.1.to_string();
        }
        argv
    }

    /// The transfer that a script does: another one where the container has its shell in another place, since the first has
    /// been used up by then.
    pub(crate) fn script_id(&self, at: &Location, transfer: &str) -> String {
        if self.is_other(&at.sandbox, at.container.as_deref()) {
            ids::derived_uuid(&format!("shell {transfer}"))
        } else {
            transfer.to_string()
        }
    }
}
