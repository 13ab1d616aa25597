//! The description of this provider. Tests compare each capability with the behaviour of the functions.

use sandbox_provider_kit::api::wit::{Capability, Description, EnvVar, Support};

use crate::options;

/// The image of a sandbox that names none, if `DOCKER_DEFAULT_IMAGE` is not set.
pub const DEFAULT_IMAGE: &str = "debian:12-slim";

use Support::{Emulated, Native};

/// The capabilities of this provider. Capabilities that are not listed are absent.
const CAPABILITIES: &[(&str, Support, &str)] = &[
    ("image.registry", Native, "Images that the engine has are not pulled again, except with `force`."),
    (
        "image.registry-credentials",
        Native,
        "The credential `registry` of the host: DOCKER_REGISTRY_USER, DOCKER_REGISTRY_PASSWORD, DOCKER_REGISTRY_SERVER.",
    ),
    (
        "image.dockerfile",
        Native,
        "By the engine's classic builder, or by BuildKit if the Dockerfile needs it, without secrets and SSH. A build is followed by one instance; if that is lost, the engine ends the build.",
    ),
    ("image.context", Emulated, "Files of a container of the provider's own, for one to two days."),
    ("image.commands", Native, "One Dockerfile on top of the image."),
    ("image.delete", Native, ""),
    ("image.list", Native, "Images that were built or saved by this provider."),
    ("create.idempotent", Emulated, "By a label of the container, and by its name for requests at the same time."),
    ("create.names", Native, "Unique on the engine: the container has the name with the prefix `sandbox.`."),
    ("create.tags", Native, "Labels of the container."),
    ("create.env", Native, ""),
    ("create.workdir", Native, ""),
    ("create.user", Emulated, "By the helper program."),
    ("create.command", Native, "Run by the helper program, which is the first process."),
    ("create.platform", Native, "Those that the engine has or emulates; the helper program is for amd64 and arm64."),
    ("create.cpu", Native, "The request is a weight among the containers of the engine."),
    ("create.memory", Native, "Without swap. The request is a soft limit."),
    ("create.gpu", Native, "A number of accelerators; the model is ignored. Needs an engine with a driver for them."),
    ("create.lifetime", Emulated, "By the helper program in the container."),
    ("create.idle-timeout", Emulated, "By the helper program in the container."),
    ("create.volumes", Native, "Volumes of the engine."),
    ("create.pty", Emulated, "By the helper program."),
    ("create.readiness", Emulated, "Checked by `wait-ready` only."),
    ("network.blocked", Native, "The network `none`."),
    (
        "ports.tcp",
        Native,
        "Published on the engine's machine, on 127.0.0.1 unless the option `publish` names another address.",
    ),
    ("tags.update", Emulated, "A file in the container, which is read for each sandbox of a list."),
    ("find", Native, ""),
    ("wait-running", Native, ""),
    ("lifetime.extend", Emulated, "By the helper program in the container."),
    ("pause", Native, ""),
    ("stop", Emulated, "All processes are killed."),
    ("logs", Native, "Of the entry-point command, as the engine keeps them."),
    (
        "stats",
        Emulated,
        "After the end only of sandboxes that were terminated. Memory is what is used now, multiplied by the time since the start.",
    ),
    ("snapshot.filesystem", Native, "Without volumes. The time to live passes when a later snapshot is made."),
    ("volumes.delete", Native, ""),
    ("exec.user", Emulated, "By the helper program."),
    ("exec.idempotent", Emulated, "By the helper program."),
    ("exec.signal", Emulated, "By the helper program, to all descendants."),
    ("exec.deadline", Emulated, "By the helper program: SIGKILL to all descendants."),
    ("exec.pty", Emulated, "By the helper program."),
    ("exec.resize", Emulated, "By the helper program."),
    ("exec.long-argv", Emulated, "Up to the limits of Linux: 128 KiB for a word, 6 MiB together."),
    ("exec.merge-stderr", Emulated, "By the helper program."),
    ("exec.list", Emulated, "By the helper program."),
    ("main.output", Emulated, "By the helper program."),
    ("main.input", Emulated, "By the helper program."),
    ("files.user", Emulated, "By the helper program."),
    ("files.mode", Emulated, "By the helper program."),
    ("files.create-new", Emulated, "By the helper program."),
    ("files.append", Emulated, "By the helper program. Data is appended when all of it has arrived."),
    ("files.atomic", Emulated, "By the helper program."),
    ("files.rename", Emulated, "By the helper program."),
    ("files.symlinks", Emulated, "By the helper program."),
    ("files.trees", Emulated, "By the helper program."),
    ("files.watch", Emulated, "By the helper program. Changes before the watch has started are not reported."),
];

/// Returns the description, which is always the same.
#[must_use]
pub fn describe() -> Description {
    let capabilities = CAPABILITIES
        .iter()
        .map(|(name, support, note)| Capability {
            name: (*name).to_string(),
            support: *support,
            note: (*note).to_string(),
        })
        .collect();
    let variable = |name: &str, purpose: &str, default: Option<&str>| EnvVar {
        name: name.to_string(),
        purpose: purpose.to_string(),
        default: default.map(str::to_string),
        secret: false,
    };
    Description {
        name: "docker".to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        capabilities,
        options_schema: options::SCHEMA.to_string(),
        environment: vec![
            variable("DOCKER_HOST", "The address of the engine.", Some("unix:///var/run/docker.sock")),
            variable(
                "DOCKER_API_VERSION",
                "The version of the engine's API, such as 1.41; without it, the newest.",
                None,
            ),
            variable("DOCKER_DEFAULT_IMAGE", "The image of sandboxes that name none.", Some(DEFAULT_IMAGE)),
            variable("DOCKER_NETWORK", "The network of open sandboxes; without it, that of the engine.", None),
        ],
        digests: Vec::new(),
        extra: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    /// Each name is documented in the interface.
    #[test]
    fn capabilities_have_documented_names() {
        let wit = include_str!("../../../wit/types.wit");
        for (name, _, _) in super::CAPABILITIES {
            assert!(wit.contains(&format!("`{name}`")), "{name} is not in wit/types.wit");
        }
    }
}
