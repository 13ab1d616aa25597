//! The WebAssembly engine of the process: the enabled features, the memory of instances, and the clock that interrupts
//! loops.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmFeatures};

use crate::error::{Error, Kind, PluginFault, Result};

/// Default maximum of concurrent component instances; [`set_max_instances`] changes it. A thousand concurrent commands
/// need a thousand instances, and twice that leaves room for their readers. An instance costs address space, not
/// memory: 4 GiB each, 8 TiB of the available 128 TiB.
pub const DEFAULT_MAX_INSTANCES: u32 = 2048;

/// Most core instances of one component instance. The pool permits this many for each instance, so that instances do not
/// take them from each other. A component with one module has three (the module, the shim that breaks the cycle with its
/// imports, and the one that fills the shim in), one with CPython and its libraries about 60. The pool only counts them.
pub(in crate::plugin) const CORE_INSTANCES_PER_COMPONENT: u32 = 128;

/// Most tables of one component instance, for each of which the pool has a place. A component with one module has two,
/// and so has one with CPython, because dynamically linked modules share a table. Tables cost address space, 160 KB each.
pub(in crate::plugin) const TABLES_PER_COMPONENT: u32 = 20;

/// Most memories of one component instance. A component of a single module has one, and a component that is composed of
/// others one for each. An instance takes as many places from [`Shared::permits`] as it has memories, because each of them
/// costs the address space of one.
pub(crate) const MEMORIES_PER_COMPONENT: u32 = 4;

/// Upper bound of [`Limits::memory`](crate::Limits::memory), in bytes.
pub(crate) const MEMORY_CEILING: usize = 1 << 30;

/// Interval at which a running instance is interrupted, to yield to other tasks and to check its computing time. Ten
/// milliseconds keep other tasks responsive. Each tick wakes a thread, so the clock stops when no instance runs.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Ticks without any call after which the clock stops. It does not stop at once, because restarting it wakes a thread.
const IDLE_TICKS: u32 = 100;

static MAX_INSTANCES: AtomicUsize = AtomicUsize::new(DEFAULT_MAX_INSTANCES as usize);

/// The engine and the other state that all instances share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    /// Whether instances come from a pool. Otherwise each is mapped separately.
    pub(crate) pooled: bool,
    /// Most component instances with one memory.
    pub(crate) max: u32,
    /// One permit per memory of the component instances that may exist.
    pub(crate) permits: Arc<Semaphore>,
    clock: Clock,
}

/// Sets the maximum of concurrent component instances of this process, from 1 to 16384. Returns false if the engine
/// exists already, which loading the first plugin creates: the value then has no effect.
pub fn set_max_instances(count: u32) -> bool {
    MAX_INSTANCES.store(count.clamp(1, 16384) as usize, Ordering::Relaxed);
    SHARED.get().is_none()
}

static SHARED: OnceLock<Result<Shared, String>> = OnceLock::new();

/// Returns the engine. The first call creates it.
pub(crate) fn shared() -> Result<&'static Shared> {
    SHARED
        .get_or_init(|| Shared::new().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|why| Error::new(Kind::Plugin(PluginFault::Invalid), "set up the WebAssembly engine", why.clone()))
}

impl Shared {
    fn new() -> wasmtime::Result<Shared> {
        let max = MAX_INSTANCES.load(Ordering::Relaxed) as u32;
        // If so much address space is not available (because of a limit, or without overcommit), instances are mapped
        // separately, and their memory as it is used. They are slower to create, but otherwise equal.
        let (engine, pooled) = match Engine::new(&config(Some(max))) {
            Ok(engine) => (engine, true),
            Err(error) => {
                tracing::debug!(%error, "the pooling allocator is not available, instances are mapped one by one");
                (Engine::new(&config(None))?, false)
            }
        };
        let clock = Clock::new(engine.weak());
        Ok(Shared { engine, pooled, max, permits: Arc::new(Semaphore::new(max as usize)), clock })
    }

    /// Runs the clock while the returned guard lives.
    pub(crate) fn ticking(&'static self) -> Ticking {
        self.clock.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.clock.shared.parked.swap(false, Ordering::SeqCst) {
            self.clock.thread.unpark();
        }
        Ticking(&self.clock.shared)
    }
}

/// Creates an engine that compiles code for the engine of [`shared`], for a process that only compiles. Its pool has
/// one instance, because the memory that a pool reserves counts for the limit of that process.
pub(crate) fn compiler(pooled: bool) -> wasmtime::Result<Engine> {
    Engine::new(&config(pooled.then_some(1)))
}

/// The features that rustc uses for wasm32-wasip2, the vector instructions of other compilers, the constant expressions
/// that dynamically linked modules need for their globals, and several memories, without which wasmtime cannot translate
/// the calls between the parts of a composed component.
const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::COMPONENT_MODEL);

/// Returns the configuration. It enables features explicitly, so that no upgrade of wasmtime and no cargo feature that
/// another crate of the build turns on (threads, garbage collection, exceptions) gives plugins more.
fn config(pooled: Option<u32>) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.wasm_features(WasmFeatures::all(), false).wasm_features(FEATURES, true);
    config.concurrency_support(false);
    // Each running call has a stack. Deep recursion ends in a trap. Small native programs need no more than half a MiB
    // either.
    config.max_wasm_stack(512 << 10);
    config.async_stack_size(1 << 20);
    if let Some(instances) = pooled {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(instances);
        pool.total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT));
        pool.total_tables(instances.saturating_mul(TABLES_PER_COMPONENT));
        pool.total_memories(instances.max(MEMORIES_PER_COMPONENT));
        pool.total_stacks(instances);
        pool.max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT);
        pool.max_memories_per_component(MEMORIES_PER_COMPONENT);
        pool.max_tables_per_component(TABLES_PER_COMPONENT);
        pool.max_memory_size(MEMORY_CEILING);
        // The part of a reused slot that stays mapped. Clearing it costs less than new page faults.
        pool.linear_memory_keep_resident(128 << 10);
        pool.table_keep_resident(16 << 10);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    } else {
        // By default each memory reserves 4 GiB of address space, which saves bounds checks. That could exceed the
        // same limit that prevented the pool.
        config.memory_reservation(0);
        config.memory_reservation_for_growth(4 << 20);
        config.memory_guard_size(64 << 10);
    }
    config
}

/// The thread that increments the engine's epoch.
struct Clock {
    shared: Arc<ClockShared>,
    thread: std::thread::Thread,
}

/// State of the clock and its users. Each side writes one value and then reads the other: the clock announces that it
/// stops, a call announces that it runs. At least one side has to see the other's value, or the clock would be stopped
/// during a call. Only sequential consistency guarantees that.
struct ClockShared {
    running: AtomicUsize,
    parked: AtomicBool,
}

/// Keeps the clock running while it lives.
pub(crate) struct Ticking(&'static Arc<ClockShared>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Clock {
    fn new(engine: wasmtime::EngineWeak) -> Clock {
        let shared = Arc::new(ClockShared { running: AtomicUsize::new(0), parked: AtomicBool::new(false) });
        let state = shared.clone();
        let handle = std::thread::Builder::new().name("sandbox-epoch".into()).spawn(move || {
            let mut idle = 0;
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                idle = if state.running.load(Ordering::Acquire) == 0 { idle + 1 } else { 0 };
                if idle < IDLE_TICKS {
                    std::thread::sleep(TICK);
                    continue;
                }
                idle = 0;
                state.parked.store(true, Ordering::SeqCst);
                // A call may have begun between the check and the store. It would wait for a stopped clock.
                if state.running.load(Ordering::SeqCst) == 0 {
                    while state.parked.load(Ordering::Acquire) {
                        std::thread::park();
                    }
                } else {
                    state.parked.store(false, Ordering::Release);
                }
            }
        });
        // Without the thread there is no clock. A loop then runs until the call waits and its time limit applies.
        let thread = match &handle {
            Ok(handle) => handle.thread().clone(),
            Err(_) => std::thread::current(),
        };
        Clock { shared, thread }
    }
}

#[cfg(test)]
pub(in crate::plugin) mod tests {
    use wasmtime::Store;
    use wasmtime::component::{Component, Instance, Linker};

    use super::*;

    /// Returns a component with this many core instances, of which the first `tables` have a table.
    pub(in crate::plugin) fn component(parts: u32, tables: u32) -> Vec<u8> {
        let with = "(core instance (instantiate $t))".repeat(tables as usize);
        let without = "(core instance (instantiate $m))".repeat((parts - tables) as usize);
        let modules = "(core module $t (table 1 funcref)) (core module $m)";
        wat::parse_str(format!("(component {modules} {with} {without})")).unwrap()
    }

    #[tokio::test]
    async fn as_many_components_of_the_largest_kind_live_as_there_are_places() {
        let engine = Engine::new(&config(Some(3))).unwrap();
        let component = Component::new(&engine, component(CORE_INSTANCES_PER_COMPONENT, TABLES_PER_COMPONENT)).unwrap();
        let linker = Linker::<()>::new(&engine);
        let mut living: Vec<(Store<()>, Instance)> = Vec::new();
        for n in 0..3 {
            let mut store = Store::new(&engine, ());
            store.set_epoch_deadline(u64::MAX / 2);
            let made = linker.instantiate_async(&mut store, &component).await;
            living.push((store, made.unwrap_or_else(|error| panic!("component {n}: {error:#}"))));
        }
    }

    /// Calls between the parts of a composed component are translated by code that uses the memories of both.
    #[tokio::test]
    async fn the_parts_of_a_component_call_each_other() {
        let part = |name: &str, body: &str| {
            let realloc = "(func (export \"realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 64))";
            format!("(component ${name} {body})").replace("REALLOC", realloc)
        };
        let inner = part(
            "inner",
            "(core module $m (memory (export \"memory\") 1) REALLOC
               (func (export \"size\") (param i32 i32) (result i32) (local.get 1)))
             (core instance $i (instantiate $m))
             (func (export \"size\") (param \"text\" string) (result u32)
               (canon lift (core func $i \"size\") (memory (core memory $i \"memory\"))
                 (realloc (core func $i \"realloc\"))))",
        );
        let outer = part(
            "outer",
            "(import \"size\" (func $size (param \"text\" string) (result u32)))
             (core module $l (memory (export \"memory\") 1))
             (core instance $l (instantiate $l))
             (core func $size (canon lower (func $size) (memory (core memory $l \"memory\"))))
             (core module $m (import \"\" \"size\" (func $size (param i32 i32) (result i32)))
               (func (export \"run\") (result i32) (call $size (i32.const 0) (i32.const 7))))
             (core instance $i (instantiate $m (with \"\" (instance (export \"size\" (func $size))))))
             (func (export \"run\") (result u32) (canon lift (core func $i \"run\")))",
        );
        let whole = format!(
            "(component {inner} {outer} (instance $a (instantiate $inner))
               (instance $b (instantiate $outer (with \"size\" (func $a \"size\"))))
               (export \"run\" (func $b \"run\")))"
        );
        for pooled in [Some(1), None] {
            let engine = Engine::new(&config(pooled)).unwrap();
            let component = Component::new(&engine, wat::parse_str(&whole).unwrap()).unwrap();
            assert_eq!(component.resources_required().unwrap().num_memories, 2);
            let mut store = Store::new(&engine, ());
            store.set_epoch_deadline(u64::MAX / 2);
            let instance = Linker::<()>::new(&engine).instantiate_async(&mut store, &component).await.unwrap();
            let run = instance.get_typed_func::<(), (u32,)>(&mut store, "run").unwrap();
            assert_eq!(run.call_async(&mut store, ()).await.unwrap(), (7,));
        }
    }

    #[test]
    fn code_from_the_compiling_process_fits() {
        for pooled in [true, false] {
            let engine = Engine::new(&config(pooled.then_some(100))).unwrap();
            let code = compiler(pooled).unwrap().precompile_component(&component(1, 1)).unwrap();
            // SAFETY: the line above has created the code.
            unsafe { Component::deserialize(&engine, &code) }.unwrap();
        }
    }

    #[test]
    fn what_is_not_pinned_is_off() {
        let engine = Engine::new(&config(None)).unwrap();
        let taken = |module: &str| {
            let bytes = wat::parse_str(format!("(component (core module {module}))")).unwrap();
            Component::new(&engine, bytes).is_ok()
        };
        // Features that rustc uses.
        for module in [
            "(memory 1) (func (memory.copy (i32.const 0) (i32.const 0) (i32.const 0)))",
            "(func (result i32 i32) (i32.const 0) (i32.const 0))",
            "(func (param i32) (result i32) (i32.extend8_s (local.get 0)))",
            "(func (param f32) (result i32) (i32.trunc_sat_f32_s (local.get 0)))",
            "(global (export \"g\") (mut i32) (i32.const 0))",
            "(table 1 funcref) (table 1 funcref)",
            "(func (param v128))",
            "(global i32 (i32.add (i32.const 1) (i32.const 1)))",
            "(memory 1) (memory 1)",
        ] {
            assert!(taken(module), "{module}");
        }
        for module in [
            "(memory 1 1 shared)",
            "(memory i64 1)",
            "(memory 1 (pagesize 1))",
            "(tag)",
            "(type (struct))",
            "(type $f (func)) (func (param (ref null $f)))",
            "(func $f (return_call $f))",
            "(func (param i64 i64) (result i64 i64)
               (i64.add128 (local.get 0) (local.get 1) (local.get 0) (local.get 1)))",
            "(func (param v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))",
        ] {
            assert!(!taken(module), "{module}");
        }
    }
}
