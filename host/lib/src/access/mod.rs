//! The rights of a plugin: the origins and addresses that it may connect to, and the credentials that the host adds.

pub(crate) mod credentials;
pub(crate) mod identity;
pub(crate) mod places;
pub(crate) mod policy;
pub(crate) mod profile;
pub(crate) mod secret;
