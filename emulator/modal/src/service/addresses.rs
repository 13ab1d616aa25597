//! The URLs at which clients reach the emulator.

use std::net::IpAddr;

use crate::model::state::State;

/// Returns the router's URL. Some clients expect `https` although they speak plain text on loopback
/// (docs/modal-protocol.md, section 7.2). `asked` is the authority of the client's request.
pub fn router_url(state: &State, https: bool, asked: Option<&str>) -> String {
    format!("{}://{}", if https { "https" } else { "http" }, seen_at(state, asked))
}

/// Returns the host and port at which a client reaches the emulator. It is the authority `asked` of the client's request if
/// that is not a local name, or if the emulator listens on an unspecified address. Otherwise it is the advertised or listening
/// address.
pub fn seen_at(state: &State, asked: Option<&str>) -> String {
    match asked {
        Some(asked) if state.address.ip().is_unspecified() || !is_local(asked) => asked.to_owned(),
        _ => state.options.advertise.unwrap_or(state.address).to_string(),
    }
}

/// Returns whether an authority's host is `localhost` or a loopback address. Does not resolve names.
pub fn is_local(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}
