//! The exports of a component. A provider implements [`SandboxProvider`] and exports itself with
//! [`export!`](crate::export!). The `component` module contains the code of the component model.

mod by_parts;
#[cfg(target_family = "wasm")]
pub mod component;
mod provider;

pub use provider::SandboxProvider;

/// Exports a provider from this crate, which must be a `cdylib` for `wasm32-wasip2`. The macro expands to nothing in
/// builds for other targets, so that the same crate can be tested natively.
///
/// The first argument is the type of the provider. The second is a function that makes the provider from its
/// [transport](crate::platform::Transport); it runs once per instance. The third is the path of the manifest, relative
/// to the source file. The manifest is a text that lists what the provider asks a host for, such as environment
/// variables. It becomes a custom section of the component, which hosts read without running the component. The fourth,
/// optional, is the list of interfaces of `wit/` that the component exports besides `sandbox-provider`, with `_` for `-`,
/// such as `[exec, files, memory_snapshots]`. Without it, the component exports all of them, and those that the provider
/// does not implement answer `unsupported`.
///
/// ```
/// use std::rc::Rc;
///
/// use sandbox_provider_kit::{api::wit::Description, export::SandboxProvider, platform::Transport};
///
/// struct Provider {
///     transport: Rc<dyn Transport>,
/// }
///
/// impl Provider {
///     fn new(transport: Rc<dyn Transport>) -> Provider {
///         Provider { transport }
///     }
/// }
///
/// impl SandboxProvider for Provider {
///     fn describe(&self) -> Description {
///         Description {
///             name: "example".to_string(),
///             version: "0.1.0".to_string(),
///             capabilities: Vec::new(),
///             options_schema: "{}".to_string(),
///             environment: Vec::new(),
///             digests: Vec::new(),
///             extra: Vec::new(),
///         }
///     }
/// }
///
/// sandbox_provider_kit::export!(Provider, Provider::new, "../manifest.toml");
/// ```
#[macro_export]
macro_rules! export {
    ($provider:ty, $make:expr, $manifest:literal) => {
        $crate::export!($provider, $make, $manifest, [
            exec, processes, files, trees, watches, images, snapshots, memory_snapshots, inventory, volumes, names, readiness, lifecycle, network, tunnels, sidecars, logs, usage, cache
        ]);
    };
    ($provider:ty, $make:expr, $manifest:literal, [$($interface:ident),* $(,)?]) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            #[unsafe(link_section = "harness:manifest")]
            #[used]
            static MANIFEST: [u8; include_bytes!($manifest).len()] = *include_bytes!($manifest);

            impl $crate::export::component::Instance for $provider {
                // Not inlined, so that the component contains this code once and not in each function of the interface.
                #[inline(never)]
                fn instance() -> &'static $provider {
                    thread_local! {
                        static INSTANCE: &'static $provider = Box::leak(Box::new($make(
                            ::std::rc::Rc::new($crate::platform::wasi02::Wasi),
                        )));
                    }
                    INSTANCE.with(|instance| *instance)
                }
            }

            type Component = $crate::export::component::Component<$provider>;

            $crate::api::wit::sandbox_provider::export! { Component with_types_in $crate::api::wit::sandbox_provider }
            $($crate::api::wit::$interface::export! { Component with_types_in $crate::api::wit::$interface })*
        };
    };
}
