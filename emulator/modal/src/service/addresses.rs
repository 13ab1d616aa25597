//! Where clients find the emulator, as each of them wants to see it.

use std::net::IpAddr;

use crate::model::state::State;

/// The router's URL as this client wants to see it: some take `https` for plain text on loopback (section 7.2).
pub fn router_url(state: &State, https: bool, asked: Option<&str>) -> String {
    format!("{}://{}", if https { "https" } else { "http" }, seen_at(state, asked))
}

/// Where a client that asked for this authority finds the emulator: there, if it is another machine's name for this one
/// or the emulator has no address of its own. By the names of this machine it has that.
pub fn seen_at(state: &State, asked: Option<&str>) -> String {
    match asked {
        Some(asked) if state.address.ip().is_unspecified() || !is_local(asked) => asked.to_owned(),
        _ => state.options.advertise.unwrap_or(state.address).to_string(),
    }
}

/// Whether an authority's host is this machine, whatever a resolver says.
pub fn is_local(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}
