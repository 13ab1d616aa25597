//! The two gRPC services: the control plane ([`control`]) and the task command router ([`router`]). Other modules here handle
//! their calls; [`status`] converts errors of the domain to gRPC statuses.

pub mod addresses;
pub mod app_logs;
pub mod apps;
pub mod auth;
pub mod caller;
pub mod connect_tokens;
pub mod control;
pub mod images;
pub mod logs;
pub mod outbound;
pub mod persistent;
pub mod replies;
pub mod router;
pub mod sandbox_create;
pub mod sandbox_manage;
pub mod secrets;
pub mod sidecar_create;
pub mod snapshots;
pub mod stats;
pub mod status;
pub mod tasks;
pub mod tunnels;
pub mod uploads;
pub mod volume_files;
pub mod volumes;
