//! What a plugin may reach and which credentials the host adds: policy, address classes, credentials, profiles, secrets.

pub(crate) mod credentials;
pub(crate) mod policy;
pub(crate) mod profile;
pub(crate) mod secret;
