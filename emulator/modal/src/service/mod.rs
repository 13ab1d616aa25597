//! The two gRPC services: the control plane and the task command router.

pub mod app_logs;
pub mod apps;
pub mod control;
pub mod images;
pub mod logs;
pub mod persistent;
pub mod replies;
pub mod router;
pub mod sandbox_create;
pub mod sandbox_manage;
pub mod secrets;
pub mod sidecar_create;
pub mod snapshots;
pub mod stats;
pub mod tasks;
pub mod uploads;
pub mod volume_files;
pub mod volumes;
