//! Named resources of Modal: secrets, volumes, proxies, and their ids (docs/modal-protocol.md, section 4).

use std::cell::RefCell;

use modal_proto::{
    client::{
        ObjectCreationType, ProxyGetRequest, SecretGetOrCreateRequest, VolumeCreateOptions, VolumeDeleteRequest,
        VolumeGetOrCreateRequest,
    },
    rpc,
};

use crate::service::control::Control;
use sandbox_provider_kit::{Error, Result, api::error::shown, memo::Memo};

/// A secret: its id and the names of its entries.
#[derive(Clone)]
pub struct Secret {
    /// The id, `st-…`.
    pub id: String,
    /// The names of the entries.
    pub keys: Vec<String>,
}

/// Looks up names. Caches secrets.
pub struct Names {
    control: Control,
    secrets: RefCell<Memo<String, Secret>>,
}

impl Names {
    /// Makes an empty cache.
    #[must_use]
    pub fn new(control: Control) -> Names {
        Names { control, secrets: RefCell::default() }
    }

    /// Looks up a secret by name.
    pub(crate) async fn secret(&self, name: &str) -> Result<Secret> {
        check_name("a secret", name)?;
        if let Some(known) = self.secrets.borrow().get(&name.to_string()) {
            return Ok(known.clone());
        }
        let request = SecretGetOrCreateRequest {
            deployment_name: name.to_string(),
            environment_name: self.control.setup().config()?.environment.clone(),
            object_creation_type: ObjectCreationType::Unspecified.into(),
            ..Default::default()
        };
        let answer = self
            .control
            .call("look up the secret", rpc::SECRET_GET_OR_CREATE, &request)
            .await
            .map_err(|error| unknown("secret", name, error))?;
        let secret = Secret { id: answer.secret_id, keys: answer.metadata.unwrap_or_default().keys };
        self.secrets.borrow_mut().insert(name.to_string(), secret.clone());
        Ok(secret)
    }

    /// Looks up the ids of secrets by name.
    pub(crate) async fn secret_ids(&self, names: &[String]) -> Result<Vec<String>> {
        let mut ids = Vec::with_capacity(names.len());
        for name in names {
            ids.push(self.secret(name).await?.id);
        }
        Ok(ids)
    }

    /// Returns the id of a volume. `volume` is a name or an id. If `create` is set, a missing volume is created.
    pub(crate) async fn volume_id(&self, volume: &str, create: bool) -> Result<String> {
        check_name("a volume", volume)?;
        if volume.starts_with("vo-") {
            return Ok(volume.to_string());
        }
        let creation = if create { ObjectCreationType::CreateIfMissing } else { ObjectCreationType::Unspecified };
        let request = VolumeGetOrCreateRequest {
            deployment_name: volume.to_string(),
            environment_name: self.control.setup().config()?.environment.clone(),
            object_creation_type: creation.into(),
            create_options: Some(VolumeCreateOptions::default()),
            ..Default::default()
        };
        let answer = self
            .control
            .call("look up the volume", rpc::VOLUME_GET_OR_CREATE, &request)
            .await
            .map_err(|error| unknown("volume", volume, error))?;
        Ok(answer.volume_id)
    }

    /// Implements `delete-volume` of the interface. Deletes a named volume and its files.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for an invalid name; otherwise the error of the failed request.
    pub async fn delete_volume(&self, volume: &str) -> Result<()> {
        let gone = |error: Error| if error.is_not_found() { Ok(()) } else { Err(error.about(volume)) };
        let volume_id = match self.volume_id(volume, false).await {
            Ok(id) => id,
            Err(error) => return gone(error),
        };
        let request =
            VolumeDeleteRequest { volume_id, environment_name: self.control.setup().config()?.environment.clone() };
        self.control.call("delete the volume", rpc::VOLUME_DELETE, &request).await.or_else(gone)
    }

    /// Looks up the id of a proxy by name.
    pub(crate) async fn proxy_id(&self, name: &str) -> Result<String> {
        check_name("a proxy", name)?;
        let request = ProxyGetRequest {
            name: name.to_string(),
            environment_name: self.control.setup().config()?.environment.clone(),
        };
        let answer = self
            .control
            .call("look up the proxy", rpc::PROXY_GET, &request)
            .await
            .map_err(|error| unknown("proxy", name, error))?;
        Ok(answer.proxy.unwrap_or_default().proxy_id)
    }
}

fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(Error::invalid(format!(
            "`{}` is not a valid name for {what}: use at least one character, and no spaces or control characters.",
            shown(name)
        ))
        .about(name));
    }
    Ok(())
}

fn unknown(what: &str, name: &str, error: Error) -> Error {
    if !error.is_not_found() {
        return error.about(name);
    }
    let message = format!("Modal has no {what} `{name}` in this environment: check its name and MODAL_ENVIRONMENT.");
    error.with_message(message).about(name)
}
