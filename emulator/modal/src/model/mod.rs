//! The domain: what there is, and what may be asked of it. It knows neither tonic nor HTTP; errors are [`error::Error`].
//!
//! - [`state`]: the tables of everything with an id, behind one lock.
//! - [`sandbox`] with [`mod@unit`] (a container), [`sidecar`], [`exec`] and [`process`] (commands, with [`spool`] for output and
//!   [`stdin`]), [`samples`], [`tunnels`], [`volume_views`]; [`outcome`]: how they end.
//! - [`image`], [`image_names`], [`build_log`], [`build_caches`].
//! - [`definition`], [`storage`], [`outbound_policy`]: checks of requests, and what follows from them.
//! - [`network`]: brings containers and their network together.
//! - [`faults`]: what tests want to go wrong. [`options`], [`peers`], [`tokens`], [`ids`], [`values`]: the rest.
//!
//! Messages of the protocol stand for themselves here (a sandbox keeps the definition that it was asked for with); the services
//! that carry them do not.

pub mod build_caches;
pub mod build_log;
pub mod definition;
pub mod error;
pub mod exec;
pub mod faults;
pub mod ids;
pub mod image;
pub mod image_names;
pub mod network;
pub mod options;
pub mod outbound_policy;
pub mod outcome;
pub mod peers;
pub mod process;
pub mod samples;
pub mod sandbox;
pub mod sidecar;
pub mod spool;
pub mod state;
pub mod stdin;
pub mod storage;
pub mod tokens;
pub mod tunnels;
pub mod unit;
pub mod values;
pub mod volume_views;
