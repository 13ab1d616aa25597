//! Answers the imports of files and sockets, which plugins do not get.
//!
//! The libraries of some languages (CPython, the JavaScript engines) import the interfaces of files and sockets, whether
//! or not a program uses them. A component may therefore import them, and this file answers: there are no directories, no
//! socket is created, and no name is resolved. There is no code behind these answers that could open a file or a socket.
//! The other functions of these interfaces are methods of files and sockets, of which there are none, so that they cannot
//! be called.
//!
//! The first refused attempt of a plugin is logged as a warning. A refused attempt is also named in the error of its
//! call, if the call fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType, Val};
use wasmtime::{StoreContextMut, bail};
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode as FileError;
use wasmtime_wasi::p2::bindings::io::error::Error as IoError;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode as SocketError, IpAddressFamily};

use crate::plugin::load::Loaded;
use crate::runtime::store::State;

/// The packages whose interfaces are answered here.
const PACKAGES: [&str; 2] = ["wasi:filesystem/", "wasi:sockets/"];

/// The interface of the local time zone, which is answered with UTC. A plugin learns nothing about the place of its user.
const TIME_ZONE: &str = "wasi:clocks/timezone";

/// The resources that the packages define. Their interfaces export resources of other packages too, under which the
/// linker has those already.
const RESOURCES: [&str; 8] = [
    "descriptor",
    "directory-entry-stream",
    "network",
    "tcp-socket",
    "udp-socket",
    "incoming-datagram-stream",
    "outgoing-datagram-stream",
    "resolve-address-stream",
];

/// A resource of the refused interfaces. Only one of them exists: the network, which no function accepts in practice.
struct Refused;

/// Returns whether an import, without its version, is answered here.
pub(super) fn is_refused(interface: &str) -> bool {
    PACKAGES.iter().any(|package| interface.starts_with(package)) || interface == TIME_ZONE
}

/// Defines the refused imports of a component in a linker.
pub(super) fn define(linker: &mut Linker<State>, loaded: &Loaded) -> wasmtime::Result<()> {
    let engine = linker.engine().clone();
    let attempts = Attempts { plugin: loaded.label.as_str().into(), told: Arc::default() };
    for (import, item) in loaded.component.component_type().imports(&engine) {
        let interface = import.split('@').next().unwrap_or(import);
        let ComponentItem::ComponentInstance(instance) = item.ty else { continue };
        if !is_refused(interface) {
            continue;
        }
        let mut target = linker.instance(import)?;
        for (name, item) in instance.exports(&engine) {
            match item.ty {
                ComponentItem::Resource(_) if RESOURCES.contains(&name) => {
                    target.resource(name, ResourceType::host::<Refused>(), |mut store, rep| {
                        store.data_mut().table.delete(Resource::<Refused>::new_own(rep))?;
                        Ok(())
                    })?;
                }
                ComponentItem::ComponentFunc(_) => function(&mut target, interface, name, &attempts)?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// Defines one function.
fn function(
    target: &mut LinkerInstance<'_, State>,
    interface: &str,
    name: &str,
    attempts: &Attempts,
) -> wasmtime::Result<()> {
    let attempts = attempts.clone();
    let what = format!("{interface} {name}");
    match name {
        "get-directories" => target.func_wrap(name, move |store, (): ()| {
            attempts.quiet(&store, &what);
            Ok((Vec::<(Resource<Refused>, String)>::new(),))
        }),
        "create-tcp-socket" | "create-udp-socket" => target.func_wrap(name, move |store, (_,): (IpAddressFamily,)| {
            attempts.refuse(&store, &what);
            Ok((Err::<Resource<Refused>, _>(SocketError::AccessDenied),))
        }),
        "resolve-addresses" => target.func_wrap(name, move |store, (_, host): (Resource<Refused>, String)| {
            attempts.refuse(&store, &format!("{what} {host:?}"));
            Ok((Err::<Resource<Refused>, _>(SocketError::AccessDenied),))
        }),
        // A handle without a function. The table limits how many of them a plugin can hold.
        "instance-network" => target.func_wrap(name, |mut store, (): ()| Ok((store.data_mut().table.push(Refused)?,))),
        // These look for a more exact code of a failed stream. No stream is one of a file or a socket.
        "filesystem-error-code" => target.func_wrap(name, |_, (_,): (Resource<IoError>,)| Ok((None::<FileError>,))),
        "network-error-code" => target.func_wrap(name, |_, (_,): (Resource<IoError>,)| Ok((None::<SocketError>,))),
        "utc-offset" => target.func_new(name, |_, _, _, results| {
            results[0] = Val::S32(0);
            Ok(())
        }),
        "display" => target.func_new(name, |_, _, _, results| {
            results[0] = Val::Record(vec![
                ("utc-offset".into(), Val::S32(0)),
                ("name".into(), Val::String("UTC".into())),
                ("in-daylight-saving-time".into(), Val::Bool(false)),
            ]);
            Ok(())
        }),
        _ => target
            .func_new(name, move |_, _, _, _| bail!("{what} was called, and plugins have no files and no sockets")),
    }
}

/// Records the refused attempts of one plugin.
#[derive(Clone)]
struct Attempts {
    plugin: Arc<str>,
    told: Arc<AtomicBool>,
}

impl Attempts {
    /// Records an attempt. The first one of the plugin is logged.
    fn refuse(&self, store: &StoreContextMut<'_, State>, what: &str) {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(plugin = %self.plugin, "refused {what}: plugins have no files and no sockets");
        }
        self.quiet(store, what);
    }

    /// Records an attempt that is not logged. Libraries ask for the directories before any file is opened, and many do at
    /// their start.
    fn quiet(&self, store: &StoreContextMut<'_, State>, what: &str) {
        tracing::debug!(plugin = %self.plugin, "refused {what}");
        store.data().hooks.link.refused(what);
    }
}
