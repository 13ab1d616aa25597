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
        Gateway::open_for_pages(provider, listen, &[]).await
    }

    /// Like [`Gateway::open`], and lets pages of these origins in a browser read the responses (CORS). An origin is a
    /// scheme, a host and a port, such as `http://localhost:5173`. The pages need the token too.
    ///
    /// # Errors
    ///
    /// Those of [`Gateway::open`]. [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) for a text that is no such
    /// origin.
    pub async fn open_for_pages(provider: &Provider, listen: SocketAddr, origins: &[String]) -> Result<Gateway> {
        Gateway::over(provider.inner.net.clone(), listen, origins).await
    }
}
