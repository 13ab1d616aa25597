//! Opens a gateway for a provider. `net::gateway` implements it.

use std::net::SocketAddr;

use crate::api::provider::Provider;
use crate::error::Result;
use crate::net::gateway::Gateway;

impl Gateway {
    /// Opens a gateway to the first origin that the provider was granted. `listen` must be an address of this machine
    /// that other machines cannot reach.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) for an address that other machines can reach,
    /// [`Kind::Forbidden`](crate::Kind::Forbidden) if no origin is granted, [`Kind::Io`](crate::Kind::Io) if the port
    /// cannot be opened.
    pub async fn open(provider: &Provider, listen: SocketAddr) -> Result<Gateway> {
        Gateway::over(provider.inner.net.clone(), listen).await
    }
}
