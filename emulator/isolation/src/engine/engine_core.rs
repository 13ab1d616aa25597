//! The engine: the state shared by all containers of one emulator, and the preparation of a container until its init
//! takes over.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, lchown},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, bail, ensure};
use tokio::sync::oneshot;

use super::container_core::{ContainerCore, Places};
use crate::{
    cgroups::{self, Group, Groups},
    inside::tun::GATEWAY,
    live_mounts,
    protocol::{Inbox, Overlay, Reply, Request, Setup, send_blocking},
    rootfs::remove_tree,
    rootfs_base::{RootfsBase, make_directory},
    sealed_program::Program,
    spawner::{self, Init, Kind, Spawner},
    spec::{Bind, ContainerSpec, MountSpec},
    state_dir::StateDir,
};

/// Limit of open files of the emulator: enough for a thousand processes with three streams each, with a reserve.
const OPEN_FILES: u64 = 65_536;

/// Hint for an error: containers cannot have network devices.
const NO_DEVICES: &str = "containers cannot have a network device (the kernel must have its `tun` module loaded, and this \
                          user must be allowed to read and write /dev/net/tun)";

/// The state shared by all containers of an engine.
#[derive(Debug)]
pub(crate) struct EngineCore {
    program: Arc<Program>,
    base: RootfsBase,
    groups: Groups,
    spawner: Spawner,
    user_namespace: bool,
    all_ids: bool,
    limits_missing: Vec<String>,
    containers: Mutex<HashMap<String, Weak<ContainerCore>>>,
    shut: AtomicBool,
    /// The thread that copies the package database. The first container takes the handle and waits for it.
    packages: Mutex<Option<JoinHandle<io::Result<()>>>>,
    // The last field, so that its lock is released after everything else was dropped.
    state: StateDir,
}

/// The directories and the set-up of a container that is not started yet.
struct Prepared {
    directory: PathBuf,
    upper: PathBuf,
    setup: Setup,
    group: Group,
}

impl EngineCore {
    /// Prepares the engine; see [`crate::Engine::new`].
    pub(crate) fn new(state: &Path, program: &Path, devices: bool) -> anyhow::Result<Self> {
        // First, so that nothing is left behind if the program does not exist.
        let mut program = Program::copy(program, &std::env::temp_dir())?;
        raise_file_limit();
        let state = StateDir::open(state)?;
        state.remove_leftovers();
        let all_ids = spawner::all_ids();
        for part in ["base", "containers"] {
            remove_tree(&state.path().join(part))?;
        }
        make_directory(&state.path().join("containers"), 0o711)?;
        let base = RootfsBase::make(&state.path().join("base"), all_ids)
            .context("cannot prepare the base layer of containers in the state directory")?;
        // In `base`, because it is removed with it.
        program.keep(&state.path().join("base/program"));
        let program = Arc::new(program);
        let (groups, limits_missing) = Groups::new(state.path(), &state.group_name());
        let spawner = Spawner::new(program.clone()).context("cannot start a thread")?;
        let mut shared = Self {
            program,
            base,
            groups,
            spawner,
            user_namespace: true,
            all_ids,
            limits_missing,
            containers: Mutex::default(),
            shut: AtomicBool::new(false),
            packages: Mutex::default(),
            state,
        };
        shared.find_mode()?;
        if devices {
            shared.probe(true).context(NO_DEVICES)?;
        }
        // No container has been started yet: the lower directories of a mounted overlay must not change.
        let base = shared.base.clone();
        shared.packages = Mutex::new(Some(thread::spawn(move || base.add_packages(all_ids))));
        if !all_ids {
            shared.limits_missing.push(
                "without root, root is the only user inside, and existing programs of the machine can be replaced but \
                 not changed in place"
                    .into(),
            );
        }
        Ok(shared)
    }

    /// Finds out which namespaces containers can have on this machine, by starting a trial container in each mode, best
    /// first.
    fn find_mode(&mut self) -> anyhow::Result<()> {
        let first = match self.probe(false) {
            Ok(missing) if missing.is_empty() => return Ok(()),
            first => first,
        };
        if nix::unistd::geteuid().is_root() {
            self.user_namespace = false;
            match (self.probe(false), &first) {
                (Ok(missing), _) => {
                    self.limits_missing.push(
                        "containers have no user namespace of their own: what keeps their root from the machine is the \
                         absence of capabilities"
                            .into(),
                    );
                    self.limits_missing.extend(missing);
                    return Ok(());
                }
                (Err(second), Err(first)) => bail!(
                    "containers cannot be started on this machine; with a user namespace: {first:#}; without: {second:#}"
                ),
                (Err(_), Ok(_)) => self.user_namespace = true,
            }
        }
        let missing = first.context(
            "containers cannot be started on this machine (without root, the kernel must allow user namespaces and \
             overlays in them, and the state directory must be on a file system that can hold an overlay: try another \
             TMPDIR)",
        )?;
        self.limits_missing.extend(missing);
        Ok(())
    }

    /// Starts a trial container and removes it. Returns one sentence for each feature that had to be left out.
    fn probe(&self, device: bool) -> anyhow::Result<Vec<String>> {
        let id = "probe".to_owned();
        let prepared = self.prepare(&ContainerSpec {
            id: id.clone(),
            hostname: id,
            device: device.then_some(0),
            ..Default::default()
        })?;
        let (sender, receiver) = mpsc::channel();
        self.spawner.start(self.kind(&prepared), move |init| {
            let _ = sender.send(init);
        });
        let asked = receiver.recv().context("the spawning thread is gone")?.map_err(anyhow::Error::from);
        let answer = asked.context("cannot create namespaces").and_then(|init| {
            let answer = ask(&init, prepared.setup);
            Init::kill(&init.pidfd);
            Init::reap(&init.pidfd);
            answer
        });
        prepared.group.remove();
        remove_tree(&prepared.directory)?;
        answer
    }

    /// Returns the parameters for the spawner.
    fn kind(&self, prepared: &Prepared) -> Kind {
        Kind { user_namespace: self.user_namespace, all_ids: self.all_ids, groups: prepared.group.joins() }
    }

    /// Creates a container's directories and control groups and returns the set-up for its init.
    fn prepare(&self, spec: &ContainerSpec) -> anyhow::Result<Prepared> {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        ensure!(!spec.id.is_empty() && spec.id.chars().all(good), "not a container id: {:?}", spec.id);
        check_layers(&spec.layers)?;
        for Bind { source, target, .. } in &spec.binds {
            ensure!(source.exists(), "cannot mount {}: there is no such file", source.display());
            ensure!(target.is_absolute(), "cannot mount at {}: not an absolute path", target.display());
        }
        let directory = self.state.path().join("containers").join(&spec.id);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!("container {} exists already", spec.id),
            made => made.with_context(|| format!("cannot create {}", directory.display()))?,
        }
        let setup = self.lay_out(spec, &directory).inspect_err(|_| {
            let _ = remove_tree(&directory);
        })?;
        let group = self.groups.make(spec);
        Ok(Prepared { upper: directory.join("upper"), directory, setup, group })
    }

    /// Creates the contents of a container's directory. Returns the set-up for its init.
    fn lay_out(&self, spec: &ContainerSpec, directory: &Path) -> anyhow::Result<Setup> {
        let own = directory.join("own");
        make_directory(&own, 0o755)?;
        write_own_etc(&own.join("etc"), spec)?;
        let (stage, overlays) =
            self.stack(&spec.layers, Some(&own), self.base.root(spec.from_scratch), !spec.from_scratch, directory)?;
        Ok(Setup {
            stage,
            overlays,
            disk: spec.disk_limit,
            binds: spec.binds.clone(),
            hostname: spec.hostname.clone(),
            device: spec.device,
            all_ids: self.all_ids,
            user_namespace: self.user_namespace,
            program: self.program.path().to_owned(),
        })
    }

    /// Creates the directories for an image that is mounted in a running container. Returns the stage directory and the
    /// overlays to mount on it.
    pub(crate) fn lay_out_mount(&self, spec: &MountSpec, directory: &Path) -> anyhow::Result<(PathBuf, Vec<Overlay>)> {
        check_layers(&spec.layers)?;
        // Not `create_dir_all`: the container's own directory must not be created again after its removal.
        for path in directory.parent().into_iter().chain([directory]) {
            make_directory(path, 0o755)?;
        }
        // For an image from scratch, only the image's own files are visible.
        let bottom = if spec.from_scratch { self.base.nothing() } else { self.base.root(false) };
        let stacked = self.stack(&spec.layers, None, bottom, !spec.from_scratch, directory)?;
        // Owner and mode of an overlay's root directory are those of its upper directory, so they are copied from the top
        // layer.
        if let Some(top) = spec.layers.last() {
            let found = fs::metadata(top)?;
            let upper = directory.join("upper");
            lchown(&upper, Some(found.uid()), Some(found.gid()))?;
            fs::set_permissions(&upper, found.permissions())?;
        }
        Ok(stacked)
    }

    /// Creates the directories that the overlays write to, in `directory`; written files land in its `upper`
    /// subdirectory. With `machine`, adds one overlay for each directory of the machine's programs.
    fn stack(
        &self,
        layers: &[PathBuf],
        own: Option<&Path>,
        bottom: PathBuf,
        machine: bool,
        directory: &Path,
    ) -> anyhow::Result<(PathBuf, Vec<Overlay>)> {
        let (upper, work, stage) = (directory.join("upper"), directory.join("work"), directory.join("root"));
        for path in [&upper, &work, &stage] {
            make_directory(path, 0o755)?;
        }
        // Removes duplicates and keeps the topmost occurrence: the kernel rejects an overlay that names a directory
        // twice.
        let mut once: Vec<&PathBuf> = Vec::with_capacity(layers.len());
        for layer in layers.iter().rev() {
            if !once.contains(&layer) {
                once.push(layer);
            }
        }
        let overlay = |name: &str, own: Option<PathBuf>, below: Vec<PathBuf>| -> anyhow::Result<Overlay> {
            let in_layers = once.iter().map(|layer| layer.join(name));
            let is_directory = |path: &PathBuf| path.symlink_metadata().is_ok_and(|found| found.is_dir());
            let lower: Vec<PathBuf> = own.into_iter().chain(in_layers.filter(is_directory)).chain(below).collect();
            let (upper, work) = (upper.join(name), work.join(if name.is_empty() { "root" } else { name }));
            make_directory(&work, 0o755)?;
            make_directory(&upper, 0o755)?;
            Ok(Overlay { target: Path::new("/").join(name), lower, upper, work })
        };
        let mut overlays = vec![overlay("", own.map(Path::to_owned), vec![bottom])?];
        if machine {
            for (name, below) in self.base.offered() {
                overlays.push(overlay(name, own.filter(|_| name == "etc").map(|own| own.join(name)), below)?);
            }
        }
        Ok((stage, overlays))
    }

    /// Mounts an image in a container, or unmounts it, in a separate process.
    pub(crate) fn attach(&self, pidfd: &OwnedFd, order: live_mounts::Order) -> anyhow::Result<live_mounts::Answer> {
        live_mounts::order(&self.program, pidfd, self.user_namespace, order)
    }

    /// Starts a container. Returns when its root is built.
    pub(crate) async fn start(self: &Arc<Self>, spec: ContainerSpec) -> anyhow::Result<Arc<ContainerCore>> {
        ensure!(!self.shut.load(Ordering::SeqCst), "the engine is shut down");
        let id = spec.id.clone();
        let engine = self.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            engine.complete_base();
            engine.prepare(&spec)
        });
        let prepared = prepared.await??;
        let (sender, receiver) = oneshot::channel();
        self.spawner.start(self.kind(&prepared), move |init| {
            // The receiver is gone because the caller was cancelled, so the container is not wanted any more.
            if let Err(Ok(init)) = sender.send(init) {
                Init::kill(&init.pidfd);
                Init::reap(&init.pidfd);
            }
        });
        let Prepared { directory, upper, setup, group } = prepared;
        let writable = setup.binds.iter().filter(|bind| !bind.read_only);
        let shared = writable.map(|bind| (bind.source.clone(), bind.inside.clone())).collect();
        let places = Places { directory: directory.clone(), upper, disk: setup.disk, shared };
        let init = match receiver.await.context("the spawning thread is gone").and_then(|init| Ok(init?)) {
            Ok(init) => init,
            Err(error) => {
                group.remove();
                let _ = remove_tree(&directory);
                return Err(error.context("cannot start a container"));
            }
        };
        let link = ContainerCore::new(self.clone(), id.clone(), places, group, init)?;
        self.containers().insert(id, Arc::downgrade(&link));
        if self.shut.load(Ordering::SeqCst) {
            link.stop().await;
        }
        let started = link.start(setup).await;
        if let Err(error) = started {
            link.stop().await;
            let _ = remove_tree(&directory);
            return Err(error.context("cannot start a container"));
        }
        Ok(link)
    }

    /// Waits until the lower directories of all containers are complete.
    fn complete_base(&self) {
        let mut packages = self.packages.lock().unwrap_or_else(PoisonError::into_inner);
        match packages.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => {
                tracing::warn!(%error, "package tools in containers see no packages: cannot copy the database")
            }
            Some(Err(_)) => {
                tracing::warn!("package tools in containers see no packages: copying the database was aborted")
            }
        }
    }

    /// Kills all containers, waits for their end, and removes everything that the engine created.
    pub(crate) async fn shutdown(&self) {
        self.shut.store(true, Ordering::SeqCst);
        let links: Vec<_> = self.containers().values().filter_map(Weak::upgrade).collect();
        for link in &links {
            link.kill();
        }
        for link in links {
            link.ended().await;
        }
        self.remove_everything();
    }

    fn remove_everything(&self) {
        self.complete_base();
        self.groups.remove();
        for part in ["containers", "base"] {
            let path = self.state.path().join(part);
            if let Err(error) = remove_tree(&path) {
                tracing::warn!(directory = %path.display(), %error, "cannot remove");
            }
        }
    }

    /// Returns the running container with this id.
    pub(crate) fn running(&self, id: &str) -> Option<Arc<ContainerCore>> {
        self.containers().get(id).and_then(Weak::upgrade)
    }

    /// Returns the number of bytes on disk that each running container has written, by id.
    pub(crate) fn usage(&self) -> Vec<(String, u64)> {
        let links: Vec<_> = self.containers().values().filter_map(Weak::upgrade).collect();
        links.into_iter().map(|link| (link.id().to_owned(), link.used())).collect()
    }

    /// Returns whether directories of ended containers still exist.
    pub(crate) fn clearing(&self) -> bool {
        // A container that is being created is not known either for some milliseconds; the caller then waits a little
        // longer.
        let left = fs::read_dir(self.state.path().join("containers")).into_iter().flatten().flatten();
        let known = self.containers();
        left.into_iter().any(|entry| !entry.file_name().to_str().is_some_and(|id| known.contains_key(id)))
    }

    /// Removes an ended container from the list.
    pub(crate) fn forget(&self, id: &str) {
        self.containers().remove(id);
    }

    pub(crate) fn limits_missing(&self) -> &[String] {
        &self.limits_missing
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<String, Weak<ContainerCore>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for EngineCore {
    fn drop(&mut self) {
        self.remove_everything();
        let path = self.state.path();
        let _ = fs::remove_file(path.join(cgroups::RECORD));
        // Files of the embedding program in the state directory stay, and so does the lock file: without it, a later
        // start would treat the directory as one that is just being created.
        let ours = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() == "lock");
        if fs::read_dir(path).is_ok_and(|mut entries| entries.all(ours)) {
            let _ = fs::remove_file(path.join("lock"));
            let _ = fs::remove_dir(path);
        }
    }
}

/// Sends the set-up and waits for the reply. Blocking, for the trial container, which is started before there is a
/// runtime.
fn ask(init: &Init, setup: Setup) -> anyhow::Result<Vec<String>> {
    init.control.set_nonblocking(false)?;
    use std::os::fd::AsRawFd;
    send_blocking(init.control.as_raw_fd(), &Request::Setup(setup), &[])?;
    match Inbox::default().receive_blocking::<Reply>(&init.control)? {
        Some((Reply::Ready(missing), _)) => Ok(missing),
        Some((Reply::Failed(message), _)) => bail!(message),
        _ => bail!("the inner process exited immediately: does the program's `main` begin with `child_entry`?"),
    }
}

/// Checks that all layers are absolute paths of directories.
fn check_layers(layers: &[PathBuf]) -> anyhow::Result<()> {
    for layer in layers {
        ensure!(layer.is_absolute() && layer.is_dir(), "not a layer: {}", layer.display());
    }
    Ok(())
}

/// Writes the files in `/etc` that each container has for itself.
fn write_own_etc(etc: &Path, spec: &ContainerSpec) -> io::Result<()> {
    make_directory(etc, 0o755)?;
    let write = |name: &str, content: &str| -> io::Result<()> {
        let mut file = fs::File::create(etc.join(name))?;
        file.write_all(content.as_bytes())
    };
    let name = if spec.hostname.is_empty() { "localhost" } else { &spec.hostname };
    write("hostname", &format!("{name}\n"))?;
    write("hosts", &format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"))?;
    // Without a name server, name look-ups fail at once.
    let resolvers = if spec.device.is_some() { format!("nameserver {GATEWAY}\n") } else { String::new() };
    write("resolv.conf", &resolvers)
}

/// Raises the soft limit of open files. It is often 1,024, which a few hundred processes exhaust.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard.min(OPEN_FILES)
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(OPEN_FILES), hard);
    }
}
