//! Runs commands as another user. Modal has no such option (docs/modal-protocol.md, section 7.3: a start has no user),
//! so a program of the image switches the user.

use std::cell::RefCell;

use sandbox_provider_kit::{
    Result,
    api::wit::{Keep, OutputLimits, Verdict},
    inside::user::{MAX_PROBE_BYTES, Switch, no_helper, parse, probe, split},
    memo::Memo,
};

use super::{script::Scripts, shell};

/// The sandbox, the sidecar and the name of a user.
type UserKey = (String, Option<String>, String);

/// The users that were looked up.
#[derive(Default)]
pub struct Users {
    known: RefCell<Memo<UserKey, Switch>>,
}

impl Users {
    /// Returns how to switch to `user` (`name|number[:group|number]`) in this sandbox.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for an invalid name, `not-found` for a user or group that the image does not have,
    /// `unsupported` (`exec.user`) if the image has no program that switches users or no shell.
    pub(crate) async fn switch(
        &self,
        scripts: &Scripts,
        sandbox: &str,
        container: Option<&str>,
        user: &str,
    ) -> Result<Switch> {
        let (name, group) = split(user)?;
        let key = (sandbox.to_string(), container.map(str::to_string), user.to_string());
        if let Some(known) = self.known.borrow().get(&key) {
            return Ok(known.clone());
        }
        let limits = OutputLimits { stdout_max: MAX_PROBE_BYTES, stderr_max: MAX_PROBE_BYTES, keep: Keep::Head };
        let result = scripts.run(sandbox, container, &probe(name, group), limits).await?;
        if !matches!(result.verdict, Verdict::Exited(0)) {
            return Err(no_helper(user, "it has no working /bin/sh"));
        }
        let mut switch = parse(user, name, group, &String::from_utf8_lossy(&result.stdout.data))?;
        if switch.has_helper() {
            switch = switch.with_loader(shell::loader_variables(scripts.helper(), sandbox, container).await);
        }
        self.known.borrow_mut().insert(key, switch.clone());
        Ok(switch)
    }
}
