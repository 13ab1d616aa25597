//! What stands behind the handles: `engine_core` is what all containers of an engine share, `container_core` is one of them. The
//! two know each other.

mod container_core;
mod engine_core;

pub(crate) use container_core::ContainerCore;
pub(crate) use engine_core::EngineCore;
