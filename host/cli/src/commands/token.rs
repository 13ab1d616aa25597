//! `sandbox-host token`: creates a token for connections to a port of a sandbox.

use anyhow::Result;

use crate::args::Token;
use crate::output::results::ConnectToken;
use crate::session::Session;

/// Runs `sandbox-host token`. Returns the exit code.
pub async fn token(session: &Session, args: Token) -> Result<i32> {
    let made = session.provider().await?.sandbox(args.id).connect_token(args.port, &args.metadata).await?;
    let result = ConnectToken {
        url: &made.url,
        headers: made.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        expires: made.expires,
    };
    let headers = made.headers.iter().map(|(name, value)| format!("{name}: {value}"));
    session.voice.show(&result, std::iter::once(made.url.clone()).chain(headers))?;
    Ok(0)
}
