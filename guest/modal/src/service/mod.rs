//! The service: its two endpoints, which are the control plane and the command routers; named resources; the
//! configuration.
//!
//! [`Service`] combines the parts. The other folders use it; this folder does not.

pub mod access;
pub mod app;
pub mod config;
pub mod container;
pub mod control;
pub mod ended;
pub mod error;
pub mod id;
pub mod names;
pub mod policy;
pub mod router;
pub mod setup;
pub mod wire;

use std::{rc::Rc, time::Duration};

use sandbox_provider_kit::{Result, platform::Transport};

use self::{access::Accesses, app::App, config::Config, control::Control, names::Names, router::Router, setup::Setup};

/// The service, as the other folders use it. Clones share their state.
#[derive(Clone)]
pub struct Service {
    /// The control plane.
    pub control: Control,
    /// The command routers.
    pub router: Router,
    /// Named resources.
    pub names: Rc<Names>,
    /// The app and the image builder.
    pub app: Rc<App>,
}

impl Service {
    /// Makes a service that uses this transport. Does not read the configuration and sends nothing.
    #[must_use]
    pub fn new(transport: Rc<dyn Transport>) -> Service {
        let control = Control::new(Rc::new(Setup::new(transport)));
        let router = Router::new(Accesses::new(control.clone()));
        let names = Rc::new(Names::new(control.clone()));
        let app = Rc::new(App::new(control.clone()));
        Service { control, router, names, app }
    }

    /// Returns the configuration.
    ///
    /// # Errors
    ///
    /// `invalid-argument` with the name of the variable that is not valid as its subject.
    pub fn config(&self) -> Result<&Config> {
        self.control.setup().config()
    }

    /// Returns the transport.
    #[must_use]
    pub fn transport(&self) -> &Rc<dyn Transport> {
        self.control.setup().transport()
    }

    pub(crate) fn now(&self) -> Duration {
        self.control.setup().now()
    }

    pub(crate) fn new_uuid(&self) -> String {
        self.control.setup().new_uuid()
    }
}
