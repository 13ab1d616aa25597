//! The app that sandboxes belong to, and the version of the image builder. The configuration contains their names.

use std::cell::RefCell;

use modal_proto::{
    client::{AppGetOrCreateRequest, EnvironmentGetOrCreateRequest, ObjectCreationType},
    rpc,
};
use sandbox_provider_kit::Result;

use super::control::Control;

/// The id of the app and the builder version; see the documentation of this module.
pub struct App {
    control: Control,
    id: RefCell<Option<String>>,
    builder_version: RefCell<Option<String>>,
}

impl App {
    /// Makes an empty state. Sends nothing.
    #[must_use]
    pub fn new(control: Control) -> App {
        App { control, id: RefCell::default(), builder_version: RefCell::default() }
    }

    /// Returns the app's id and the builder version as far as they are known.
    pub(crate) fn known(&self) -> (Option<String>, Option<String>) {
        (self.id.borrow().clone(), self.builder_version.borrow().clone())
    }

    /// Adds the values that another instance looked up.
    pub(crate) fn learn(&self, id: Option<String>, builder_version: Option<String>) {
        if id.is_some() {
            *self.id.borrow_mut() = id;
        }
        if builder_version.is_some() {
            *self.builder_version.borrow_mut() = builder_version;
        }
    }

    /// Returns the app's id. Creates the app if it does not exist.
    pub(crate) async fn id(&self) -> Result<String> {
        if let Some(id) = &*self.id.borrow() {
            return Ok(id.clone());
        }
        let config = self.control.setup().config()?;
        let request = AppGetOrCreateRequest {
            app_name: config.app.clone(),
            environment_name: config.environment.clone(),
            object_creation_type: ObjectCreationType::CreateIfMissing.into(),
        };
        let answer = self.control.call("look up the app", rpc::APP_GET_OR_CREATE, &request).await?;
        *self.id.borrow_mut() = Some(answer.app_id.clone());
        Ok(answer.app_id)
    }

    /// Returns the version of the image builder from the configuration, or else from the settings of the environment.
    pub(crate) async fn builder_version(&self) -> Result<String> {
        let config = self.control.setup().config()?;
        if let Some(version) = &config.builder_version {
            return Ok(version.clone());
        }
        if let Some(version) = &*self.builder_version.borrow() {
            return Ok(version.clone());
        }
        let request = EnvironmentGetOrCreateRequest {
            deployment_name: config.environment.clone(),
            object_creation_type: ObjectCreationType::Unspecified.into(),
        };
        let answer = self.control.call("look up the environment", rpc::ENVIRONMENT_GET_OR_CREATE, &request).await?;
        let settings = answer.metadata.and_then(|metadata| metadata.settings).unwrap_or_default();
        *self.builder_version.borrow_mut() = Some(settings.image_builder_version.clone());
        Ok(settings.image_builder_version)
    }
}
