//! Opening a gateway for a provider.

use std::net::SocketAddr;

use crate::api::provider::Provider;
use crate::error::Result;
use crate::net::gateway::Gateway;

impl Gateway {
    /// Opens a gateway to the first origin that the provider was granted. The address must be of this machine.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) for an address that other machines can reach,
    /// [`Kind::Forbidden`](crate::Kind::Forbidden) when no origin is granted, [`Kind::Io`](crate::Kind::Io) when the port
    /// cannot be had.
    pub async fn open(provider: &Provider, listen: SocketAddr) -> Result<Gateway> {
        Gateway::over(provider.inner.net.clone(), listen).await
    }
}
