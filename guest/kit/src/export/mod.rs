//! A component's exports. A provider implements [`SandboxProvider`] and exports itself with [`export!`](crate::export!);
//! all else of the component model is here.

#[cfg(target_family = "wasm")]
pub mod component;
mod provider;

pub use provider::SandboxProvider;

/// Exports a provider from this crate, which must be a `cdylib` for `wasm32-wasip2`. In builds for other targets it does
/// nothing, so that the same crate is tested natively.
///
/// The first argument is the provider's type, the second how it is made of its
/// [transport](crate::platform::Transport), once per instance. The third is the path of its manifest, from the source file
/// on: what it wishes for, as a text that travels in the component for hosts to read without running it.
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
///         todo!("say what this provider can do")
///     }
/// }
///
/// sandbox_provider_kit::export!(Provider, Provider::new, "../manifest.toml");
/// ```
#[macro_export]
macro_rules! export {
    ($provider:ty, $make:expr, $manifest:literal) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            #[unsafe(link_section = "harness:manifest")]
            #[used]
            static MANIFEST: [u8; include_bytes!($manifest).len()] = *include_bytes!($manifest);

            impl $crate::export::component::Instance for $provider {
                // Once, and not in each function of the interface.
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

            $crate::api::wit::export! { Component with_types_in $crate::api::wit }
        };
    };
}
