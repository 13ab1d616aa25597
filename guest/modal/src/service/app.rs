//! What the configuration names by name: the app that sandboxes belong to, and the version of the image builder.

use std::cell::RefCell;

use modal_proto::{
    client::{AppGetOrCreateRequest, EnvironmentGetOrCreateRequest, ObjectCreationType},
    rpc,
};
use sandbox_provider_kit::Result;

use super::control::Control;

/// See the head of this file.
pub struct App {
    control: Control,
    id: RefCell<Option<String>>,
    builder_version: RefCell<Option<String>>,
}

impl App {
    /// Looks up nothing yet.
    #[must_use]
    pub fn new(control: Control) -> App {
        App { control, id: RefCell::default(), builder_version: RefCell::default() }
    }

    /// The id and the builder's version, as far as they have been looked up.
    pub(crate) fn known(&self) -> (Option<String>, Option<String>) {
        (self.id.borrow().clone(), self.builder_version.borrow().clone())
    }

    /// Takes over what another instance has looked up.
    pub(crate) fn learn(&self, id: Option<String>, builder_version: Option<String>) {
        if id.is_some() {
            *self.id.borrow_mut() = id;
        }
        if builder_version.is_some() {
            *self.builder_version.borrow_mut() = builder_version;
        }
    }

    /// The app's id; the app is made when missing.
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

    /// The image builder's version: configured, or what the environment's settings say.
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
