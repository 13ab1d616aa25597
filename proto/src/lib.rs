//! The protocol of Modal: messages, clients and server traits, generated from the `.proto` files of this crate. After a
//! change of these files, `cargo xtask generate` regenerates `generated/`.
//!
//! There are two packages: [`client`] is the control plane (`api.modal.com`), and [`task_command_router`] is the
//! service on the worker that runs a sandbox. The `.proto` files contain only the messages and fields that sandboxes
//! use. Unknown fields are skipped, so newer servers are understood. Section numbers in the `.proto` files refer to
//! `docs/modal-protocol.md`.
//!
//! Features: `client` adds the generated clients, for any tower service, and `server` the server traits. The messages
//! and [`rpc`] do not depend on tonic.

/// Package `modal.client`: the control plane.
#[allow(missing_docs, clippy::all, clippy::missing_errors_doc)]
pub mod client {
    include!("generated/modal.client.rs");
}

/// Package `modal.task_command_router`: execs, stdio, snapshots and sidecars on the worker.
#[allow(missing_docs, clippy::all, clippy::missing_errors_doc)]
pub mod task_command_router {
    include!("generated/modal.task_command_router.rs");
}

/// A method with the types of its request `Q` and its answer `A`. A client that sends encoded messages through one code
/// path instead of one per method has a third of the size. These constants make it type-safe.
pub struct Rpc<Q, A> {
    /// The gRPC path.
    pub path: &'static str,
    messages: std::marker::PhantomData<fn(Q) -> A>,
}

impl<Q, A> Rpc<Q, A> {
    const fn new(path: &'static str) -> Rpc<Q, A> {
        Rpc { path, messages: std::marker::PhantomData }
    }
}

/// All methods of both services.
pub mod rpc {
    use super::Rpc;

    include!("generated/rpcs.rs");
}

pub use prost;
pub use prost_types;

/// The encoded `FileDescriptorSet` of both `.proto` files.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");

/// Largest message that clients and servers send or accept, in bytes. The official clients accept 100 MiB and send up
/// to 16 MiB, which tonic's default limit of 4 MiB would refuse (docs/modal-protocol.md, section 1.1).
pub const MAX_MESSAGE_BYTES: usize = 100 * 1024 * 1024;
