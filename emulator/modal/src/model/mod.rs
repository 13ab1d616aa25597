//! The domain: its objects, and the validation of requests. Depends on neither tonic nor HTTP; errors are [`error::Error`].
//!
//! - [`state`]: the tables of all objects that have an id, behind one lock.
//! - [`sandbox`] with [`mod@unit`] (a container), [`sidecar`], [`exec`] and [`process`] (commands, with [`spool`] for output
//!   and [`stdin`]), [`samples`], [`tunnels`], [`volume_views`]; [`outcome`]: results and exit codes.
//! - [`image`], [`image_names`], [`build_log`], [`build_caches`].
//! - [`definition`], [`storage`], [`outbound_policy`]: validate requests and convert them.
//! - [`network`]: connects containers to their network.
//! - [`faults`]: the faults that tests order. [`options`], [`peers`], [`tokens`], [`ids`], [`values`]: helpers.
//!
//! This module uses the messages of the protocol as data (a sandbox stores the definition of its request), but not the gRPC
//! services.

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
