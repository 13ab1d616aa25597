//! Limits the memory, processor time and number of processes of containers, with the control groups (cgroups) that the
//! machine has.
//!
//! Every container gets its own group in each hierarchy that limits something. cgroup v2 has one hierarchy; v1 has one
//! per controller; on machines with both, the hierarchy that has the controller is used. The groups of containers are
//! below one group per emulator. The paths of the emulator's groups are recorded in the state directory so that a later
//! emulator can remove them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use crate::{spec::ContainerSpec, sys::PausedChild};

/// Maximum number of processes and threads of one container. Stops fork bombs and is high enough for everything else.
pub(crate) const MOST_PROCESSES: u32 = 4096;

/// Accounting period of processor time, in microseconds; the kernel's default.
const PERIOD: u64 = 100_000;

/// File in the state directory that lists the paths of the emulator's groups.
pub(crate) const RECORD: &str = "cgroups";

/// Number of attempts to remove a group: it stays busy for a moment after its last process was reaped.
const REMOVAL_TRIES: u32 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Cpu,
    Processes,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Processes];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Processes => "pids",
        }
    }

    fn missing(self) -> &'static str {
        match self {
            Self::Memory => "memory limits are not enforced",
            Self::Cpu => "processor limits are not enforced",
            Self::Processes => "the number of processes in a container is not limited",
        }
    }
}

/// The emulator's group in one hierarchy.
#[derive(Debug)]
struct Hierarchy {
    directory: PathBuf,
    unified: bool,
    controllers: Vec<Controller>,
}

/// The emulator's groups in all hierarchies.
#[derive(Debug)]
pub(crate) struct Groups {
    hierarchies: Vec<Hierarchy>,
}

/// The groups of one container.
#[derive(Debug, Default)]
pub(crate) struct Group {
    directories: Vec<PathBuf>,
    /// The file that counts the processes killed by the OOM killer.
    counter: Option<PathBuf>,
    /// The last value read from that file.
    counted: AtomicU64,
}

impl Groups {
    /// Creates the emulator's groups under `name`. Also returns one sentence for each resource that cannot be limited.
    pub(crate) fn new(state: &Path, name: &str) -> (Self, Vec<String>) {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        let mut record = String::new();
        for mounted in mounted(
            &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
            &fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
        ) {
            let lacking = |controller: &Controller| !hierarchies.iter().any(|one| one.controllers.contains(controller));
            let wanted: Vec<Controller> = mounted.controllers.into_iter().filter(lacking).collect();
            for parent in mounted.parents {
                let directory = parent.join(name);
                // Recorded before it is created, so that a crash cannot leave an unrecorded group.
                record.push_str(&format!("{}\n", directory.display()));
                let _ = fs::write(state.join(RECORD), &record);
                if let Some(hierarchy) = Hierarchy::make(&parent, directory, mounted.unified, &wanted) {
                    hierarchies.push(hierarchy);
                    break;
                }
            }
        }
        for hierarchy in &hierarchies {
            hierarchy.limit_all();
        }
        let had = |controller: &Controller| hierarchies.iter().any(|one| one.controllers.contains(controller));
        // Without root, `inside::init` limits the number of processes with `RLIMIT_NPROC` instead.
        let needed = |controller: &Controller| *controller != Controller::Processes || nix::unistd::geteuid().is_root();
        let lacking = Controller::ALL.into_iter().filter(|controller| needed(controller) && !had(controller));
        let told = |one: Controller| format!("{}: this process cannot use a control group for it", one.missing());
        let missing = lacking.map(told).collect();
        (Self { hierarchies }, missing)
    }

    /// Creates the groups of a container and sets its limits. Logs a warning if one cannot be set.
    pub(crate) fn make(&self, spec: &ContainerSpec) -> Group {
        let id = &spec.id;
        let mut group = Group::default();
        for hierarchy in &self.hierarchies {
            let directory = hierarchy.directory.join(id);
            if let Err(error) = fs::create_dir(&directory) {
                tracing::warn!(directory = %directory.display(), %error, "cannot create a control group");
                continue;
            }
            for controller in &hierarchy.controllers {
                let set = |file: &str, value: String| match fs::write(directory.join(file), value) {
                    // The swap files do not exist on kernels without swap accounting.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(container = %id, file, %error, "cannot set a limit");
                    }
                    _ => {}
                };
                match (controller, hierarchy.unified) {
                    (Controller::Memory, unified) => {
                        let counter = if unified { "memory.events" } else { "memory.oom_control" };
                        group.counter = Some(directory.join(counter));
                        // Containers without a memory limit get half of the machine's memory, so that one container
                        // cannot take all of it.
                        let bytes = spec.memory_limit.unwrap_or_else(|| memory() / 2);
                        set(if unified { "memory.max" } else { "memory.limit_in_bytes" }, bytes.to_string());
                        let (file, bytes) =
                            if unified { ("memory.swap.max", 0) } else { ("memory.memsw.limit_in_bytes", bytes) };
                        set(file, bytes.to_string());
                    }
                    (Controller::Cpu, unified) => {
                        // The kernel rejects quotas below 1 ms.
                        let quota =
                            spec.cpu_limit.map(|thousandths| (u64::from(thousandths) * PERIOD / 1000).max(1000));
                        match quota {
                            Some(quota) if unified => set("cpu.max", format!("{quota} {PERIOD}")),
                            Some(quota) => {
                                set("cpu.cfs_period_us", PERIOD.to_string());
                                set("cpu.cfs_quota_us", quota.to_string());
                            }
                            None => {}
                        }
                        // A request of one core is the kernel's default: 1024 shares in v1, a weight of 100 in v2.
                        if let Some(thousandths) = spec.cpu_request.map(u64::from) {
                            if unified {
                                set("cpu.weight", (thousandths / 10).clamp(1, 10_000).to_string());
                            } else {
                                set("cpu.shares", (thousandths * 1024 / 1000).clamp(2, 262_144).to_string());
                            }
                        }
                    }
                    (Controller::Processes, _) => set("pids.max", MOST_PROCESSES.to_string()),
                }
            }
            group.directories.push(directory);
        }
        group
    }

    /// Removes the emulator's groups and those of its containers.
    pub(crate) fn remove(&self) {
        for hierarchy in &self.hierarchies {
            remove_group(&hierarchy.directory);
        }
    }
}

impl Hierarchy {
    /// Creates the emulator's group in one hierarchy. Returns `None` and leaves nothing behind if no wanted controller is
    /// usable there.
    fn make(parent: &Path, directory: PathBuf, unified: bool, wanted: &[Controller]) -> Option<Self> {
        if wanted.is_empty() || fs::create_dir(&directory).is_err() {
            return None;
        }
        if unified {
            for controller in wanted {
                for place in [parent, &directory] {
                    // Fails in groups with processes or without permission. The controllers that are enabled are read
                    // below.
                    let _ = fs::write(place.join("cgroup.subtree_control"), format!("+{}", controller.name()));
                }
            }
        }
        let on = fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap_or_default();
        let usable = |controller: &Controller| !unified || on.split_whitespace().any(|name| name == controller.name());
        let controllers: Vec<Controller> = wanted.iter().copied().filter(usable).collect();
        let trial = directory.join("trial");
        let works = !controllers.is_empty() && fs::create_dir(&trial).is_ok() && can_join(&trial);
        if works {
            remove_busy(&trial);
            Some(Self { directory, unified, controllers })
        } else {
            remove_group(&directory);
            None
        }
    }
}

impl Hierarchy {
    /// Limits all containers together, so that some memory and process ids remain for the rest of the machine.
    fn limit_all(&self) {
        for controller in &self.controllers {
            let (file, value) = match (controller, self.unified) {
                (Controller::Memory, true) => ("memory.max", memory() / 10 * 9),
                (Controller::Memory, false) => ("memory.limit_in_bytes", memory() / 10 * 9),
                (Controller::Processes, _) => ("pids.max", processes() / 2),
                (Controller::Cpu, _) => continue,
            };
            if let Err(error) = fs::write(self.directory.join(file), value.to_string()) {
                tracing::warn!(file, %error, "cannot set a limit for all containers together");
            }
        }
    }
}

/// Returns the size of the machine's memory, in bytes.
fn memory() -> u64 {
    nix::sys::sysinfo::sysinfo().map_or(u64::MAX / 2, |info| info.ram_total())
}

/// Returns the maximum number of processes of the machine.
fn processes() -> u64 {
    let limit = |file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    limits.into_iter().filter_map(limit).min().unwrap_or(32_768)
}

impl Group {
    /// Returns the files to which the pid of a process is written to move it into the groups.
    pub(crate) fn joins(&self) -> Vec<PathBuf> {
        self.directories.iter().map(|directory| directory.join("cgroup.procs")).collect()
    }

    /// Returns how many processes of the container the OOM killer has killed.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some(counter) = &self.counter else { return 0 };
        if let Ok(text) = fs::read_to_string(counter)
            && let Some(count) = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        {
            self.counted.store(count, Ordering::Relaxed);
        }
        self.counted.load(Ordering::Relaxed)
    }

    /// Returns the processor time used so far, in microseconds, and the memory in use, in bytes. A value is 0 if it is
    /// not counted.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let read = |name: &str| self.directories.iter().find_map(|group| fs::read_to_string(group.join(name)).ok());
        let number = |text: String| text.trim().parse::<u64>().ok();
        let micros = |text: String| text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok());
        let processor = read("cpu.stat").and_then(micros);
        let processor = processor.or_else(|| Some(read("cpuacct.usage").and_then(number)? / 1000));
        let memory = read("memory.current").or_else(|| read("memory.usage_in_bytes")).and_then(number);
        (processor.unwrap_or(0), memory.unwrap_or(0))
    }

    /// Removes the groups. All their processes must have ended.
    pub(crate) fn remove(&self) {
        self.oom_kills();
        for directory in &self.directories {
            remove_busy(directory);
        }
    }
}

/// Removes the groups of an emulator that has ended, from the record in its state directory.
pub(crate) fn remove_recorded(state: &Path) {
    let record = fs::read_to_string(state.join(RECORD)).unwrap_or_default();
    // Checks each recorded path, because a wrong one must not cause the removal of directories outside the cgroup
    // hierarchies.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let roots: Vec<PathBuf> =
        mounted(&mounts, &own).into_iter().filter_map(|mounted| mounted.parents.last().cloned()).collect();
    for line in record.lines().map(Path::new) {
        if roots.iter().any(|root| line.starts_with(root) && line != root) {
            remove_group(line);
        }
    }
}

/// Removes a group and the groups directly below it. `rmdir` fails for groups with processes, so these are never removed.
fn remove_group(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_busy(&entry.path());
        }
    }
    remove_busy(directory);
}

/// Removes a group without subgroups. Tries again for a short time while the group is busy.
fn remove_busy(directory: &Path) {
    for _ in 0..REMOVAL_TRIES {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => thread::sleep(Duration::from_millis(5)),
            _ => return,
        }
    }
}

/// Returns whether this user can move a process into the group: the permissions of the directory alone do not decide
/// that.
fn can_join(directory: &Path) -> bool {
    let Ok(child) = PausedChild::start() else { return false };
    fs::write(directory.join("cgroup.procs"), child.pid().to_string()).is_ok()
}

/// A mounted hierarchy: its controllers, and the groups below which the emulator may create its own, best first.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    unified: bool,
    controllers: Vec<Controller>,
    parents: Vec<PathBuf>,
}

/// Parses the contents of `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn mounted(mounts: &str, own: &str) -> Vec<Mounted> {
    let mut all: Vec<Mounted> = Vec::new();
    for line in mounts.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let mut front = front.split(' ').skip(3);
        let (Some(root), Some(point)) = (front.next(), front.next()) else { continue };
        let mut back = back.split(' ');
        let (kind, options) = (back.next().unwrap_or_default(), back.nth(1).unwrap_or_default());
        let unified = kind == "cgroup2";
        if !unified && kind != "cgroup" {
            continue;
        }
        let controls = |controller: &Controller| unified || options.split(',').any(|name| name == controller.name());
        let controllers: Vec<Controller> = Controller::ALL.into_iter().filter(controls).collect();
        if controllers.is_empty() {
            continue;
        }
        let ours = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            let same =
                if unified { names.is_empty() } else { names.split(',').any(|name| name == controllers[0].name()) };
            same.then_some(path)
        });
        // The emulator's own group first, then its ancestors up to the root of the mount.
        let inside = ours.and_then(|path| Path::new(path).strip_prefix(root).ok()).unwrap_or(Path::new(""));
        let mut parents: Vec<PathBuf> = inside.ancestors().map(|above| Path::new(point).join(above)).collect();
        parents.retain(|parent| parent.is_absolute());
        all.push(Mounted { unified, controllers, parents });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "30 20 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 20 0:27 /docker/x /cg/cpu rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
                      32 20 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      33 20 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      34 20 0:30 / /proc rw - proc proc rw\n";
        let own = "3:memory:/a/b\n2:cpu,cpuacct:/docker/x/y\n0::/slice/scope\n";
        let found = mounted(mounts, own);
        assert_eq!(found.len(), 3);
        let paths = |mounted: &Mounted| -> Vec<String> {
            mounted.parents.iter().map(|path| path.to_string_lossy().trim_end_matches('/').to_owned()).collect()
        };
        assert_eq!(found[0].controllers, [Controller::Memory]);
        assert_eq!(paths(&found[0]), ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"]);
        assert_eq!(paths(&found[1]), ["/cg/cpu/y", "/cg/cpu"]);
        assert_eq!((found[2].unified, found[2].controllers.len()), (true, 3));
    }
}
