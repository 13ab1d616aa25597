//! The domain: what there is, by id, and what may be asked of it.

pub mod build_log;
pub mod definition;
pub mod faults;
pub mod ids;
pub mod network;
pub mod outbound_policy;
pub mod peers;
pub mod process;
pub mod sandbox;
pub mod spool;
pub mod state;
pub mod stdin;
pub mod storage;
pub mod tokens;
pub mod volume_views;
