//! The implementation of the public handles. `engine_core` is the state shared by all containers of an engine, and
//! `container_core` is one container. The two modules depend on each other.

mod container_core;
mod engine_core;

pub(crate) use container_core::ContainerCore;
pub(crate) use engine_core::EngineCore;
