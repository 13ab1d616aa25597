//! Links components to their imports: WASI, with files and sockets refused, and HTTP.

use std::borrow::Cow;
use std::sync::OnceLock;

use wasmtime::component::Linker;

use crate::error::{Error, Kind, PluginFault, Result};
use crate::interface::Pre;
use crate::plugin::engine;
use crate::plugin::load::Loaded;
use crate::runtime::refuse;
use crate::runtime::store::State;

/// A component with its imports linked, ready for instantiation.
pub(crate) struct Linked {
    pub(crate) loaded: Loaded,
    pub(super) pre: Pre<State>,
}

impl Linked {
    /// Links a component.
    ///
    /// # Errors
    ///
    /// [`Kind::Plugin`] if the component imports an interface that plugins do not get, or does not export all functions
    /// of its version of the interface.
    pub(crate) fn new(loaded: Loaded) -> Result<Linked> {
        let strangers = strangers(&loaded.imports);
        if !strangers.is_empty() {
            let why = format!("it imports {}, which this host does not provide", strangers.join(", "));
            return Err(loaded
                .fault(PluginFault::Imports, why)
                .with_hint("a provider can use only wasi:http: no files, no sockets"));
        }
        let mut linker = Cow::Borrowed(linker()?);
        if loaded.imports.iter().any(|name| refuse::is_refused(unversioned(name))) {
            refuse::define(linker.to_mut(), &loaded)
                .map_err(|error| loaded.fault(PluginFault::Imports, format!("{error:#}")))?;
        }
        let pre = linker
            .instantiate_pre(&loaded.component)
            .and_then(|component| Pre::new(loaded.version, component))
            .map_err(|error| loaded.fault(PluginFault::NoInterface, format!("{error:#}")))?;
        Ok(Linked { loaded, pre })
    }
}

/// Returns those imports that plugins do not get.
pub(crate) fn strangers(imports: &[String]) -> Vec<&str> {
    imports.iter().map(String::as_str).filter(|name| !is_linked(name)).collect()
}

/// Returns the linker with the imports that all components have in common. The first call creates it.
fn linker() -> Result<&'static Linker<State>> {
    static LINKER: OnceLock<Result<Linker<State>, String>> = OnceLock::new();
    let engine = &engine::shared()?.engine;
    let made = LINKER.get_or_init(|| {
        let mut linker = Linker::new(engine);
        link(&mut linker).map_err(|error| format!("{error:#}"))?;
        Ok(linker)
    });
    let failed = |why: &String| Error::new(Kind::Plugin(PluginFault::Invalid), "set up the imports of plugins", why);
    made.as_ref().map_err(failed)
}

/// The interfaces that a plugin can import and use. None of them gives access to files or sockets.
const LINKED: [&str; 19] = [
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:http/types",
];

/// Returns whether a plugin can import this interface. That includes `harness:sandbox/types`, which contains only
/// types, and the interfaces that refuse every use.
fn is_linked(import: &str) -> bool {
    let name = unversioned(import);
    let linked = LINKED.contains(&name) || name == "wasi:http/outgoing-handler" || name == "harness:sandbox/types";
    linked || refuse::is_refused(name)
}

/// Returns the name of an interface without its version.
fn unversioned(import: &str) -> &str {
    import.split('@').next().unwrap_or(import)
}

/// Adds the interfaces of [`LINKED`] to the linker.
fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use wasmtime_wasi::cli::{WasiCli, WasiCliView};
    use wasmtime_wasi::p2::bindings::{cli, random};
    use wasmtime_wasi::random::WasiRandom;

    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    random::insecure::add_to_linker::<State, WasiRandom>(linker, |state| state.wasi.random())?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(linker, |state| state.wasi.random())?;
    cli::environment::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::exit::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    Ok(())
}
