//! The host library as one function: `call(method, arguments, data) -> reply`, with JSON arguments.
//!
//! The libraries for C, Python and Node are built on it. `PROTOCOL.md` in the folder of this crate has the table of methods
//! and the rules of the JSON.
//!
//! ```no_run
//! use sandbox_bridge::{Bridge, Fault, runtime};
//!
//! async fn example() -> Result<(), Fault> {
//!     let bridge = Bridge::new();
//!     let arguments = r#"{"component": "modal-provider.wasm"}"#;
//!     let reply = bridge.call("provider.open", arguments, Default::default()).await?;
//!     println!("{}", reply.json); // {"provider": 1, ...}
//!     Ok(())
//! }
//!
//! runtime().expect("threads").block_on(example()).expect("a provider");
//! ```

mod bridge;
mod fault;
mod methods;
mod objects;
mod reply;
mod runtime;
mod shapes;

pub use bridge::Bridge;
pub use fault::{CANCELLED, CLOSED, Fault, INVALID};
pub use reply::Reply;
pub use runtime::runtime;
