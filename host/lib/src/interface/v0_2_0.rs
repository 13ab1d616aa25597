//! Version 0.2.0, the newest, generated from `wit/` at compile time.
//!
//! The world in this file contains only the exports. The imports of a component are resolved by the linker in
//! `runtime::link` and not by the bindings, so that components built with another WASI patch version can be loaded. All
//! interfaces but `sandbox-provider` are optional: [`Plugin`] has one field for each, which is `None` if the component does
//! not export it.

// Generated items have the documentation of the WIT text. Items that the macro adds have none.
#![allow(missing_docs)]

use wasmtime::Store;
use wasmtime::component::InstancePre;

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package harness:host;
        world plugin {
            export harness:sandbox/sandbox-provider@0.2.0;
            export harness:sandbox/exec@0.2.0;
            export harness:sandbox/processes@0.2.0;
            export harness:sandbox/files@0.2.0;
            export harness:sandbox/trees@0.2.0;
            export harness:sandbox/watches@0.2.0;
            export harness:sandbox/images@0.2.0;
            export harness:sandbox/snapshots@0.2.0;
            export harness:sandbox/memory-snapshots@0.2.0;
            export harness:sandbox/inventory@0.2.0;
            export harness:sandbox/volumes@0.2.0;
            export harness:sandbox/names@0.2.0;
            export harness:sandbox/readiness@0.2.0;
            export harness:sandbox/lifecycle@0.2.0;
            export harness:sandbox/network@0.2.0;
            export harness:sandbox/tunnels@0.2.0;
            export harness:sandbox/sidecars@0.2.0;
            export harness:sandbox/logs@0.2.0;
            export harness:sandbox/usage@0.2.0;
            export harness:sandbox/cache@0.2.0;
        }
    ",
    world: "harness:host/plugin",
    exports: { default: async },
    additional_derives: [PartialEq],
});

use exports::harness::sandbox;

/// Defines [`Indices`] and [`Exports`] with a field for each optional interface.
macro_rules! optional {
    ($($interface:ident),*) => {
        /// The positions of the functions in a component.
        struct Indices {
            sandbox_provider: sandbox::sandbox_provider::GuestIndices,
            $($interface: Option<sandbox::$interface::GuestIndices>,)*
        }

        /// The interfaces that an instance exports.
        pub(crate) struct Exports {
            pub(crate) sandbox_provider: Option<sandbox::sandbox_provider::Guest>,
            $(pub(crate) $interface: Option<sandbox::$interface::Guest>,)*
        }

        impl Indices {
            fn new<T>(component: &InstancePre<T>) -> wasmtime::Result<Indices> {
                let exported = |name: &str| {
                    let name = format!("harness:sandbox/{}@0.2.0", name.replace('_', "-"));
                    component.component().get_export_index(None, &name).is_some()
                };
                Ok(Indices {
                    sandbox_provider: sandbox::sandbox_provider::GuestIndices::new(component)?,
                    $($interface: match exported(stringify!($interface)) {
                        true => Some(sandbox::$interface::GuestIndices::new(component)?),
                        false => None,
                    },)*
                })
            }

            fn load<T>(&self, store: &mut Store<T>, instance: &wasmtime::component::Instance) -> wasmtime::Result<Exports> {
                Ok(Exports {
                    sandbox_provider: Some(self.sandbox_provider.load(&mut *store, instance)?),
                    $($interface: match &self.$interface {
                        Some(indices) => Some(indices.load(&mut *store, instance)?),
                        None => None,
                    },)*
                })
            }
        }
    };
}

optional!(
    exec,
    processes,
    files,
    trees,
    watches,
    images,
    snapshots,
    memory_snapshots,
    inventory,
    volumes,
    names,
    readiness,
    lifecycle,
    network,
    tunnels,
    sidecars,
    logs,
    usage,
    cache
);

/// A component with linked imports.
pub(crate) struct Pre<T: 'static> {
    component: InstancePre<T>,
    indices: Indices,
}

impl<T: Send + 'static> Pre<T> {
    /// Finds the functions of a component. Fails if an interface lacks a function or has one of another type.
    pub(crate) fn new(component: InstancePre<T>) -> wasmtime::Result<Pre<T>> {
        let indices = Indices::new(&component)?;
        Ok(Pre { component, indices })
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<T>) -> wasmtime::Result<Exports> {
        let instance = self.component.instantiate_async(&mut *store).await?;
        self.indices.load(store, &instance)
    }
}
