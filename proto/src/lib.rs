//! What Modal speaks: messages, clients and server traits generated from this crate's own `.proto` text. After a change of
//! that text, `cargo xtask generate` writes `generated/` anew.
//!
//! Two packages: [`client`] is the control plane (`api.modal.com`), [`task_command_router`] the endpoint on the worker
//! that runs a sandbox. The text lists the messages and fields that sandboxes use and nothing else; unknown fields are
//! skipped on the wire, so a newer server is understood. Section numbers in the `.proto` text point into the protocol
//! fact sheet.
//!
//! Features: `client` for the generated clients (any tower service), `server` for the server traits. The messages alone, and
//! [`rpc`], need nothing of tonic.

/// Package `modal.client`: the control plane.
#[allow(missing_docs, clippy::all)]
pub mod client {
    include!("generated/modal.client.rs");
}

/// Package `modal.task_command_router`: execs, stdio, snapshots and sidecars on the worker.
#[allow(missing_docs, clippy::all)]
pub mod task_command_router {
    include!("generated/modal.task_command_router.rs");
}

/// A method: where its requests go, and what they and their answers are. A client that sends encoded messages through one
/// code path instead of one per method is a third of the size; these constants keep it typed.
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

/// The compiled `FileDescriptorSet` of both files, as bytes.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");

/// Largest message either side sends or accepts, in bytes. The official clients allow 100 MiB and emit up to 16 MiB;
/// tonic's default of 4 MiB would refuse those (fact sheet, section 1.1).
pub const MAX_MESSAGE_BYTES: usize = 100 * 1024 * 1024;
