//! The transport, and the configuration, which is read from its environment variables. All parts of this provider use
//! them.

use std::{cell::OnceCell, rc::Rc, time::Duration};

use sandbox_provider_kit::{
    Error, Result,
    api::ids,
    call::{
        grpc::{Channel, Status, Wire},
        retry::Throttle,
    },
    platform::Transport,
};

use super::{config::Config, policy};

/// The transport and the configuration.
pub struct Setup {
    transport: Rc<dyn Transport>,
    config: OnceCell<Config>,
}

impl Setup {
    /// Makes the setup for a transport. Does not read the configuration and sends nothing.
    #[must_use]
    pub fn new(transport: Rc<dyn Transport>) -> Setup {
        Setup { transport, config: OnceCell::new() }
    }

    /// Returns the configuration. Reads it at the first call, so that `describe` works with any environment.
    ///
    /// # Errors
    ///
    /// `invalid-argument` with the name of the variable that is not valid as its subject.
    pub fn config(&self) -> Result<&Config> {
        if self.config.get().is_none() {
            let config = Config::read(&*self.transport)?;
            let _ = self.config.set(config);
        }
        self.config.get().ok_or_else(|| Error::internal("The configuration could not be stored."))
    }

    /// Returns the transport.
    #[must_use]
    pub fn transport(&self) -> &Rc<dyn Transport> {
        &self.transport
    }

    pub(crate) fn channel(&self) -> Channel {
        let wire = self.config().map_or(Wire::Grpc, |config| config.wire);
        Channel { transport: self.transport.clone(), wire }
    }

    pub(crate) fn throttle(&self) -> Result<Throttle<Status>> {
        Ok(Throttle { wait: policy::server_wait, longest: self.config()?.max_throttle_wait })
    }

    pub(crate) fn now(&self) -> Duration {
        self.transport.now()
    }

    pub(crate) fn new_uuid(&self) -> String {
        ids::format_uuid(self.transport.random())
    }
}
