//! A whole provider of sandboxes in one file: an example, and a test double. It has no service. A sandbox is a record in
//! memory, with files and four programs, `echo`, `cat`, `sleep` and `exit`. No program really runs: its output follows
//! from its arguments and its input, and its end is a point in time that the clock passes. The sandboxes are lost with
//! the single instance that the manifest asks for, and other processes do not see them.

use std::cell::{RefCell, RefMut};
use std::{collections::BTreeMap, rc::Rc, time::Duration};

use sandbox_provider_kit::api::{check, ids, needs, records, wit::*};
use sandbox_provider_kit::kept::{Command, Transfers, is_news, page};
use sandbox_provider_kit::{Error, Result, export::SandboxProvider, platform::Transport};

/// The provider. The transport is its clock and its source of random numbers; other providers send requests by it.
pub struct Provider {
    transport: Rc<dyn Transport>,
    sandboxes: RefCell<Vec<Sandbox>>,
}

struct Sandbox {
    info: SandboxInfo,
    key: Option<String>,
    files: BTreeMap<String, Vec<u8>>,
    transfers: Transfers,
    commands: BTreeMap<String, Command>,
}

/// Starts one of the programs. `now` is the time since the Unix epoch.
fn start(spec: &ExecSpec, files: &BTreeMap<String, Vec<u8>>, now: Duration) -> Command {
    let (mut command, mut end, mut code) = (Command::new(spec, now), now, 0);
    match (spec.argv[0].as_str(), &spec.argv[1..]) {
        ("echo", words) => command.print(format!("{}\n", words.join(" ")).as_bytes()),
        // It copies its input and ends with it: see `write_input`.
        ("cat", []) => return command.with_input(),
        ("cat", paths) => paths.iter().for_each(|path| match files.get(path) {
            Some(content) => command.print(content),
            None => {
                code = 1;
                command.print_error(format!("cat: {path}: no such file\n").as_bytes());
            }
        }),
        ("sleep", [n]) if let Ok(Ok(n)) = n.parse().map(Duration::try_from_secs_f64) => end = end.saturating_add(n),
        ("exit", [text]) if let Ok(number) = text.parse::<u8>() => code = number.into(),
        (program, _) => {
            code = 127;
            command.print_error(format!("{program}: no such program, or wrong arguments\n").as_bytes());
        }
    }
    command.end_at(end, Verdict::Exited(code));
    command
}

impl Provider {
    /// Makes a provider without sandboxes.
    pub fn new(transport: Rc<dyn Transport>) -> Provider {
        Provider { transport, sandboxes: RefCell::default() }
    }

    fn sandbox(&self, id: &str) -> Result<RefMut<'_, Sandbox>> {
        RefMut::filter_map(self.sandboxes.borrow_mut(), |all| all.iter_mut().find(|sandbox| sandbox.info.id == id))
            .map_err(|_| Error::not_found("sandbox", id))
    }

    fn running(&self, id: &str) -> Result<RefMut<'_, Sandbox>> {
        let sandbox = self.sandbox(id)?;
        if records::end_of(&sandbox.info).is_none() { Ok(sandbox) } else { Err(Error::ended(id)) }
    }

    fn command(&self, exec: &ExecRef) -> Result<RefMut<'_, Command>> {
        RefMut::filter_map(self.sandbox(&exec.sandbox)?, |sandbox| sandbox.commands.get_mut(&exec.exec))
            .map_err(|_| Error::not_found("command", &exec.exec))
    }

    /// Looks, and once more after `wait` milliseconds if nothing is `new`. Waits for at most 100 ms, because other calls
    /// have to wait as long. A host repeats a call that found nothing new.
    async fn look<T>(&self, wait: u64, new: fn(&T) -> bool, look: impl Fn() -> Result<T>) -> Result<T> {
        let found = look()?;
        if new(&found) {
            return Ok(found);
        }
        self.transport.sleep(Duration::from_millis(wait.min(100))).await;
        look()
    }
}

impl SandboxProvider for Provider {
    fn describe(&self) -> Description {
        let capabilities = [
            ("create.idempotent", ""),
            ("create.tags", "Sandboxes exist only in the process that created them."),
            ("network.blocked", "A sandbox has no network in any case."),
            ("exec.deadline", ""),
            ("exec.signal", "Every signal ends the command."),
            ("files.create-new", ""),
        ];
        records::description("memory", env!("CARGO_PKG_VERSION"), &capabilities)
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    fn check_spec(&self, spec: &SandboxSpec) -> Result<()> {
        needs::check_sandbox(&self.describe(), spec)
    }

    async fn create(&self, spec: SandboxSpec) -> Result<SandboxInfo> {
        self.check_spec(&spec)?;
        let mut all = self.sandboxes.borrow_mut();
        if let Some(same) = all.iter().find(|sandbox| spec.key.is_some() && sandbox.key == spec.key) {
            return Ok(same.info.clone());
        }
        let id = ids::format_uuid(self.transport.random());
        let info = records::new_sandbox(&id, &spec, self.transport.now());
        let (files, transfers, commands) = Default::default();
        all.push(Sandbox { info: info.clone(), key: spec.key, files, transfers, commands });
        Ok(info)
    }

    async fn get(&self, sandbox: &str) -> Result<SandboxInfo> {
        Ok(self.sandbox(sandbox)?.info.clone())
    }

    async fn list(&self, filter: ListFilter, cursor: Option<String>, max: u32) -> Result<SandboxPage> {
        page(self.sandboxes.borrow().iter().rev().map(|sandbox| sandbox.info.clone()), &filter, cursor.as_deref(), max)
    }

    async fn wait(&self, sandbox: &str, wait: u64) -> Result<Option<EndReason>> {
        self.look(wait, Option::is_some, || Ok(records::end_of(&self.sandbox(sandbox)?.info))).await
    }

    async fn terminate(&self, sandbox: &str) -> Result<()> {
        let (now, mut sandbox) = (self.transport.now(), self.sandbox(sandbox)?);
        sandbox.info.state = SandboxState::Ended(EndReason::Terminated);
        let end = |command: &mut Command| command.end_at(now, Verdict::SandboxEnded(EndReason::Terminated));
        sandbox.commands.values_mut().for_each(end);
        Ok(())
    }

    async fn get_tags(&self, sandbox: &str) -> Result<Vec<Pair>> {
        Ok(self.running(sandbox)?.info.tags.clone())
    }

    async fn start(&self, sandbox: &str, spec: ExecSpec) -> Result<()> {
        needs::check_exec(&self.describe(), &spec)?;
        let mut sandbox = self.running(sandbox)?;
        let command = start(&spec, &sandbox.files, self.transport.now());
        sandbox.commands.entry(spec.id).or_insert(command);
        Ok(())
    }

    async fn read_output(&self, exec: ExecRef, request: ReadRequest) -> Result<Output> {
        self.look(request.wait, is_news, || self.command(&exec)?.read(&request, self.transport.now())).await
    }

    async fn write_input(&self, exec: ExecRef, offset: u64, data: Vec<u8>, eof: bool) -> Result<InputState> {
        let (now, mut command) = (self.transport.now(), self.command(&exec)?);
        let (state, new) = command.accept(offset, &data, eof, now)?;
        command.print(new.unwrap_or_default());
        if new.is_some() && eof {
            command.end_at(now, Verdict::Exited(0));
        }
        Ok(state)
    }

    async fn wait_exec(&self, exec: ExecRef, wait: u64) -> Result<Option<Verdict>> {
        self.look(wait, Option::is_some, || Ok(self.command(&exec)?.verdict(self.transport.now()))).await
    }

    async fn signal(&self, exec: ExecRef, signal: u32) -> Result<()> {
        check::signal(&exec.exec, signal)?;
        self.command(&exec)?.end_at(self.transport.now(), Verdict::Signaled(signal));
        Ok(())
    }

    async fn read_file(&self, at: &Location, transfer: &str, offset: u64, max_bytes: u32) -> Result<FileChunk> {
        needs::check_location(&self.describe(), at)?;
        let Sandbox { transfers, files, .. } = &mut *self.running(&at.sandbox)?;
        let missing = || Error::file(FileFault::NotFound, &at.path, "There is no such file.");
        transfers.read(transfer, offset, max_bytes, || files.get(&at.path).cloned().ok_or_else(missing))
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
        needs::check_write(&self.describe(), at, options)?;
        let mut sandbox = self.running(&at.sandbox)?;
        let taken = options.mode == WriteMode::CreateNew && sandbox.files.contains_key(&at.path);
        let (next, content) = sandbox.transfers.write(&at.path, transfer, offset, &data, eof, taken)?;
        content.and_then(|content| sandbox.files.insert(at.path.clone(), content));
        Ok(next)
    }
}

sandbox_provider_kit::export!(Provider, Provider::new, "../manifest.toml", [exec, processes, files]);
