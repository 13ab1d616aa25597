//! How to run commands as another user. Modal has no such option (docs/modal-protocol.md, section 7.3: a start has no user), so it is done
//! through a program of the image.

use std::cell::RefCell;

use sandbox_provider_kit::{
    Result,
    api::wit::{Keep, OutputLimits, Verdict},
    inside::user::{MAX_PROBE_BYTES, Switch, no_helper, parse, probe, split},
    memo::Memo,
};

use super::{script::Scripts, shell};

/// Sandbox, sidecar and name of a user.
type UserKey = (String, Option<String>, String);

/// Users that have been looked up.
#[derive(Default)]
pub struct Users {
    known: RefCell<Memo<UserKey, Switch>>,
}

impl Users {
    /// How to become `user` (`name|number[:group|number]`) in this sandbox.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for text that names no user, `not-found` for one that the image does not have, `unsupported`
    /// (`exec.user`) where the image has no helper.
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
