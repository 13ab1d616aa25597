//! The provider's state: configuration, and caches that save requests and may be lost at any time.

use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
    time::Duration,
};

use crate::{
    exec::{output::Follow, run::Swept, user::Switch},
    image::{build::Join, context::Upload},
    service::{config::Config, names::Secret, policy, router::Access},
};
use sandbox_provider_kit::{
    Error, Result,
    api::ids,
    call::{
        grpc::{Channel, Status, Wire},
        retry::Throttle,
        token::Token,
    },
    memo::Memo,
    platform::Transport,
};

/// Modal as a provider. Cheap to clone: one state behind it.
#[derive(Clone)]
pub struct Provider {
    pub(crate) inner: Rc<Inner>,
}

/// See [`Provider`].
pub struct Inner {
    pub(crate) transport: Rc<dyn Transport>,
    config: OnceCell<Config>,
    pub(crate) state: RefCell<State>,
}

/// What is remembered between calls. Nothing in it is needed: each part can be had again for a request.
#[derive(Default)]
pub struct State {
    pub(crate) auth: Option<Token>,
    pub(crate) app_id: Option<String>,
    pub(crate) builder_version: Option<String>,
    pub(crate) secrets: Memo<String, Secret>,
    pub(crate) uploads: Memo<String, Upload>,
    pub(crate) routers: Memo<String, Access>,
    pub(crate) follows: Memo<(String, String, i32), Follow>,
    pub(crate) joins: Memo<String, Join>,
    pub(crate) started: Memo<(String, String), ()>,
    pub(crate) users: Memo<(String, Option<String>, String), Switch>,
    /// Execs that have outlived their time limit.
    pub(crate) swept: Memo<(String, String), Swept>,
    /// Containers that have their shell in another place.
    pub(crate) shells: Memo<(String, Option<String>), ()>,
}

impl Provider {
    /// A provider on this transport. Reads nothing and sends nothing yet.
    #[must_use]
    pub fn new(transport: Rc<dyn Transport>) -> Provider {
        Provider { inner: Rc::new(Inner { transport, config: OnceCell::new(), state: RefCell::default() }) }
    }

    /// The configuration, read at first use so that `describe` works whatever the environment says.
    ///
    /// # Errors
    ///
    /// `invalid-argument` naming the variable that makes no sense.
    pub fn config(&self) -> Result<&Config> {
        if self.inner.config.get().is_none() {
            let config = Config::read(&*self.inner.transport)?;
            let _ = self.inner.config.set(config);
        }
        self.inner.config.get().ok_or_else(|| Error::internal("The configuration could not be kept."))
    }

    /// What it runs on.
    #[must_use]
    pub fn transport(&self) -> &Rc<dyn Transport> {
        &self.inner.transport
    }

    pub(crate) fn channel(&self) -> Channel {
        let wire = self.config().map_or(Wire::Grpc, |config| config.wire);
        Channel { transport: self.inner.transport.clone(), wire }
    }

    pub(crate) fn throttle(&self) -> Result<Throttle<Status>> {
        Ok(Throttle { wait: policy::server_wait, longest: self.config()?.max_throttle_wait })
    }

    pub(crate) fn now(&self) -> Duration {
        self.inner.transport.now()
    }

    pub(crate) fn new_uuid(&self) -> String {
        ids::format_uuid(self.inner.transport.random())
    }
}
