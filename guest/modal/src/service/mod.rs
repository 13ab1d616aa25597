//! The service: its two endpoints, the control plane and the command routers; what has a name there; the configuration.
//!
//! [`Service`] puts its parts together. The features are built on it; nothing in this folder uses it.

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

/// The service as the features see it. Clones are one service.
#[derive(Clone)]
pub struct Service {
    /// The control plane.
    pub control: Control,
    /// The command routers.
    pub router: Router,
    /// What has a name.
    pub names: Rc<Names>,
    /// The app and the image builder.
    pub app: Rc<App>,
}

impl Service {
    /// The service on this transport. Reads nothing and sends nothing yet.
    #[must_use]
    pub fn new(transport: Rc<dyn Transport>) -> Service {
        let control = Control::new(Rc::new(Setup::new(transport)));
        let router = Router::new(Accesses::new(control.clone()));
        let names = Rc::new(Names::new(control.clone()));
        let app = Rc::new(App::new(control.clone()));
        Service { control, router, names, app }
    }

    /// The configuration.
    ///
    /// # Errors
    ///
    /// `invalid-argument` naming the variable that makes no sense.
    pub fn config(&self) -> Result<&Config> {
        self.control.setup().config()
    }

    /// What it runs on.
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
