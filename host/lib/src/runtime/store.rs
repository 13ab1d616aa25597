//! The state of an instance that the imports of the component use: WASI, the HTTP hooks, the memory limit.

use std::sync::Arc;

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::net::hook::Hooks;
use crate::runtime::meter::Meter;

/// The data in the store of an instance.
pub(crate) struct State {
    pub(super) table: ResourceTable,
    pub(super) wasi: WasiCtx,
    pub(super) http: WasiHttpCtx,
    pub(super) hooks: Hooks,
    pub(super) limiter: Limiter,
    pub(super) meter: Arc<Meter>,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// Limits the memory and the tables of an instance, and records whether it has refused a request.
pub(super) struct Limiter {
    /// The limit of all memories together, and what they have, in bytes.
    pub(super) memory: usize,
    pub(super) used: usize,
    pub(super) table: usize,
    pub(super) refused: bool,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_sub(current).saturating_add(desired);
        let allowed = used <= self.memory;
        // A memory that has a smaller maximum of its own does not grow, whatever the answer is.
        if allowed && maximum.is_none_or(|maximum| desired <= maximum) {
            self.used = used;
        }
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired <= self.table;
        self.refused |= !allowed;
        Ok(allowed)
    }
}
