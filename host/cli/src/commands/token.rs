//! `sandbox token`: creates a token for connections to a port of a sandbox.

use anyhow::Result;

use crate::args::Token;
use crate::output::results::ConnectToken;
use crate::session::Session;

/// Runs `sandbox token`. Returns the exit code.
pub async fn token(session: &Session, args: Token) -> Result<i32> {
    let made = session.provider().await?.sandbox(args.id).connect_token(args.port, &args.metadata).await?;
    session.voice.show(&ConnectToken { url: &made.url, token: &made.token }, [&made.url, &made.token])?;
    Ok(0)
}
