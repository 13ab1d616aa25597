//! The memory provider with one fault, which the environment variable `FAULT` names. The conformance kit has to find each
//! of them. Without the variable there is no fault.
// The crate is a component only. Built for another target, it is empty.
#![cfg(target_family = "wasm")]

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use memory::Provider as Memory;
use sandbox_provider_kit::{Error, Result, api::wit::*, export::SandboxProvider, platform::Transport};

#[allow(clippy::all, missing_docs)]
mod memory {
    include!(concat!(env!("OUT_DIR"), "/memory.rs"));
}

/// The faults, and what each does. A test compares the list with the checks of the kit.
const FAULTS: [(&str, &str); 17] = [
    ("runs-twice", "a repeated start runs the command again"),
    ("loses-byte", "output that is read from an offset lacks its first byte"),
    ("ignores-offset", "output is always read from its beginning"),
    ("ignores-max", "answers are larger than the caller permits"),
    ("forgets-verdict", "the verdict of a command is reported once"),
    ("wrong-happened", "an error says that the call took effect"),
    ("wrong-kind", "an unknown id is an invalid argument"),
    ("accepts-options", "unknown options are accepted"),
    ("ignores-key", "create with one key makes several sandboxes"),
    ("loses-tags", "tags are dropped"),
    ("lists-twice", "a list has one sandbox twice"),
    ("terminates-once", "a second terminate fails"),
    ("denies", "describe denies signals, which work"),
    ("repeats-input", "repeated input is accepted again"),
    ("limits-input", "input beyond 16 MiB is dropped"),
    ("late-deadline", "a command that ended in time has the verdict `deadline` when its time limit has passed"),
    ("reverses-lists", "large pages are in another order than small ones"),
];

/// The memory provider with a fault.
pub struct Faulty {
    inner: Memory,
    fault: String,
    starts: Cell<u32>,
    /// For `runs-twice`: the id under which a command was started last, by the id that the caller gave.
    latest: RefCell<BTreeMap<String, String>>,
    /// For `forgets-verdict` and `terminates-once`.
    seen: RefCell<BTreeSet<String>>,
    /// For `late-deadline`: when the time limit of a command passes.
    limits: RefCell<BTreeMap<String, Duration>>,
    transport: Rc<dyn Transport>,
}

impl Faulty {
    /// Makes a provider with the fault that `FAULT` names.
    ///
    /// # Panics
    ///
    /// Panics if there is no such fault.
    pub fn new(transport: Rc<dyn Transport>) -> Faulty {
        let fault = transport.env("FAULT").unwrap_or_default();
        let known = fault.is_empty() || FAULTS.iter().any(|(name, _)| *name == fault);
        assert!(known, "there is no fault {fault:?}; the faults are {FAULTS:?}");
        let inner = Memory::new(transport.clone());
        let (starts, latest, seen, limits) = Default::default();
        Faulty { inner, fault, starts, latest, seen, limits, transport }
    }

    fn has(&self, fault: &str) -> bool {
        debug_assert!(FAULTS.iter().any(|(name, _)| *name == fault));
        self.fault == fault
    }

    /// Changes an error as the fault demands.
    fn spoil<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|mut error| {
            if self.has("wrong-happened") {
                error.happened = Happened::Yes;
            }
            if self.has("wrong-kind") && error.is_not_found() {
                error.kind = ErrorKind::InvalidArgument;
            }
            error
        })
    }

    fn max(&self, max: u32) -> u32 {
        if self.has("ignores-max") && max > 0 { max.saturating_mul(3) } else { max }
    }

    fn real(&self, mut exec: ExecRef) -> ExecRef {
        if let Some(latest) = self.latest.borrow().get(&exec.exec) {
            exec.exec = latest.clone();
        }
        exec
    }

    /// Returns a verdict, or with the fault `forgets-verdict` only the first time, or with `late-deadline` another one.
    fn verdict(&self, exec: &ExecRef, verdict: Option<Verdict>) -> Option<Verdict> {
        let late = self.limits.borrow().get(&exec.exec).is_some_and(|limit| *limit < self.transport.now());
        if self.has("late-deadline") && late {
            return verdict.map(|_| Verdict::Deadline);
        }
        let first = || self.seen.borrow_mut().insert(exec.exec.clone());
        verdict.filter(|_| !self.has("forgets-verdict") || first())
    }
}

impl SandboxProvider for Faulty {
    fn describe(&self) -> Description {
        let mut description = self.inner.describe();
        if self.has("denies") {
            description.capabilities.retain(|capability| capability.name != "exec.signal");
        }
        description
    }

    fn check_spec(&self, spec: &SandboxSpec) -> Result<()> {
        let mut spec = spec.clone();
        if self.has("accepts-options") {
            spec.options.clear();
        }
        self.spoil(self.inner.check_spec(&spec))
    }

    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }

    async fn create(&self, mut spec: SandboxSpec) -> Result<SandboxInfo> {
        self.check_spec(&spec)?;
        if self.has("accepts-options") {
            spec.options.clear();
        }
        if self.has("ignores-key") {
            spec.key = None;
        }
        if self.has("loses-tags") {
            spec.tags.clear();
        }
        self.spoil(self.inner.create(spec).await)
    }

    async fn get(&self, sandbox: &str) -> Result<SandboxInfo> {
        self.spoil(self.inner.get(sandbox).await)
    }

    async fn list(&self, filter: ListFilter, cursor: Option<String>, max: u32) -> Result<SandboxPage> {
        let again = match &cursor {
            Some(last) if self.has("lists-twice") => self.inner.get(last).await.ok(),
            _ => None,
        };
        let mut page = self.spoil(self.inner.list(filter, cursor, self.max(max)).await)?;
        if self.has("lists-twice") && page.items.len() < max as usize {
            page.items.extend(again.or_else(|| page.items.first().cloned()));
        }
        if self.has("reverses-lists") && max >= 1000 {
            page.items.reverse();
        }
        Ok(page)
    }

    async fn wait(&self, sandbox: &str, wait: u64) -> Result<Option<EndReason>> {
        self.spoil(self.inner.wait(sandbox, wait).await)
    }

    async fn terminate(&self, sandbox: &str) -> Result<()> {
        if self.has("terminates-once") && !self.seen.borrow_mut().insert(sandbox.to_string()) {
            return Err(Error::ended(sandbox));
        }
        self.spoil(self.inner.terminate(sandbox).await)
    }

    async fn get_tags(&self, sandbox: &str) -> Result<Vec<Pair>> {
        self.spoil(self.inner.get_tags(sandbox).await)
    }

    async fn start(&self, sandbox: &str, mut spec: ExecSpec) -> Result<()> {
        if self.has("runs-twice") {
            self.starts.set(self.starts.get() + 1);
            let id = format!("real-{}", self.starts.get());
            self.latest.borrow_mut().insert(std::mem::replace(&mut spec.id, id.clone()), id);
        }
        if let Some(limit) = spec.timeout {
            let end = self.transport.now() + Duration::from_millis(limit);
            self.limits.borrow_mut().insert(spec.id.clone(), end);
        }
        self.spoil(self.inner.start(sandbox, spec).await)
    }

    async fn read_output(&self, exec: ExecRef, mut request: ReadRequest) -> Result<Output> {
        let (stdout, stderr) = (request.stdout_offset, request.stderr_offset);
        request.max_bytes = self.max(request.max_bytes);
        if self.has("ignores-offset") {
            (request.stdout_offset, request.stderr_offset) = (0, 0);
        }
        if self.has("loses-byte") && stdout > 0 {
            request.stdout_offset += 1;
        }
        let exec = self.real(exec);
        let mut output = self.spoil(self.inner.read_output(exec.clone(), request).await)?;
        output.verdict = self.verdict(&exec, output.verdict);
        (output.stdout.offset, output.stderr.offset) = (stdout, stderr);
        Ok(output)
    }

    async fn write_input(&self, exec: ExecRef, offset: u64, data: Vec<u8>, eof: bool) -> Result<InputState> {
        let exec = self.real(exec);
        let mut offset = offset;
        if self.has("limits-input") && offset >= 16 << 20 {
            let accepted = self.inner.write_input(exec.clone(), 0, Vec::new(), false).await?.accepted;
            let state = self.inner.write_input(exec, accepted, Vec::new(), eof).await?;
            return Ok(InputState { accepted: offset + data.len() as u64, ..state });
        }
        if self.has("repeats-input") {
            // A write of nothing returns what was accepted so far.
            let state = self.inner.write_input(exec.clone(), 0, Vec::new(), false).await?;
            offset = offset.max(state.accepted);
        }
        self.spoil(self.inner.write_input(exec, offset, data, eof).await)
    }

    async fn wait_exec(&self, exec: ExecRef, wait: u64) -> Result<Option<Verdict>> {
        let exec = self.real(exec);
        let verdict = self.spoil(self.inner.wait_exec(exec.clone(), wait).await)?;
        Ok(self.verdict(&exec, verdict))
    }

    async fn signal(&self, exec: ExecRef, signal: u32) -> Result<()> {
        self.spoil(self.inner.signal(self.real(exec), signal).await)
    }

    async fn read_file(&self, at: &Location, transfer: &str, offset: u64, max_bytes: u32) -> Result<FileChunk> {
        self.spoil(self.inner.read_file(at, transfer, offset, self.max(max_bytes)).await)
    }

    async fn write_file(
        &self,
        at: &Location,
        transfer: &str,
        options: &WriteOptions,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> Result<u64> {
        self.spoil(self.inner.write_file(at, transfer, options, offset, data, eof).await)
    }
}

sandbox_provider_kit::export!(Faulty, Faulty::new, "../manifest.toml", [exec, processes, files]);
