//! How often the kernel killed a process of this container for memory.

use std::fs;

/// The counter of the container's control group, of version 2 or 1. None if the container does not see it.
pub fn kills() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = |wanted: &dyn Fn(&str) -> bool| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            wanted(controllers).then(|| path.trim_start_matches('/').to_string())
        })
    };
    let unified = path(&|controllers| controllers.is_empty());
    let memory = path(&|controllers| controllers.split(',').any(|one| one == "memory"));
    // A container sees its own group at the root of the mount, or the whole tree.
    let mut places = Vec::new();
    if let Some(memory) = memory {
        places.push(format!("/sys/fs/cgroup/memory/{memory}/memory.oom_control"));
        places.push("/sys/fs/cgroup/memory/memory.oom_control".into());
    }
    if let Some(unified) = unified {
        places.push(format!("/sys/fs/cgroup/{unified}/memory.events"));
        places.push("/sys/fs/cgroup/memory.events".into());
    }
    places.iter().find_map(|place| {
        let text = fs::read_to_string(place).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    })
}
