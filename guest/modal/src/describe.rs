//! The description of this provider. Tests compare each capability with the behaviour of the functions.

use crate::{sandbox::options, service::config};
use sandbox_provider_kit::api::wit::{Capability, Description, Support};

/// The capabilities of this provider. Capabilities that are not listed are absent.
const CAPABILITIES: &[(&str, Support, &str)] = &[
    ("image.registry", Support::Native, ""),
    ("image.registry-credentials", Support::Native, "Static, AWS and GCP credentials, each a Modal secret by name."),
    ("image.dockerfile", Support::Native, "A target stage is built by omitting the lines after it."),
    (
        "image.context",
        Support::Native,
        "Regular files. Links are replaced by their targets, empty directories are dropped.",
    ),
    ("image.commands", Support::Native, "One layer on top of the image."),
    ("image.secrets", Support::Native, ""),
    ("image.gpu", Support::Native, ""),
    ("image.delete", Support::Native, ""),
    ("create.idempotent", Support::Native, "By Modal's idempotency key, for as long as Modal stores it."),
    ("create.names", Support::Native, "Unique among the running sandboxes of one app."),
    ("create.tags", Support::Native, ""),
    ("create.env", Support::Native, ""),
    ("create.workdir", Support::Native, ""),
    ("create.command", Support::Native, "Appended to the ENTRYPOINT of the image. `keep-alive` runs `sleep`."),
    ("create.secrets", Support::Native, ""),
    ("create.platform", Support::Native, "Only linux/amd64."),
    ("create.cpu", Support::Native, ""),
    ("create.memory", Support::Native, ""),
    ("create.gpu", Support::Native, "On Modal's older backend (v1)."),
    ("create.lifetime", Support::Native, "Whole seconds, rounded up; the default is 300 s."),
    ("create.idle-timeout", Support::Native, "Whole seconds, rounded up."),
    ("create.regions", Support::Native, ""),
    ("create.volumes", Support::Native, "Each at most once; not at /, /root and /tmp."),
    (
        "create.buckets",
        Support::Native,
        "Further fields: requester_pays and force_path_style (true or false), oidc_role (a string).",
    ),
    ("create.proxy", Support::Native, ""),
    ("create.pty", Support::Native, ""),
    ("create.readiness", Support::Native, ""),
    ("network.blocked", Support::Native, ""),
    ("network.cidrs", Support::Native, ""),
    ("network.domains", Support::Native, ""),
    ("network.inbound", Support::Native, "Fixed at creation."),
    ("network.update", Support::Native, "Outbound only; a blocked network is an empty allow-list."),
    ("ports.tls", Support::Native, ""),
    ("ports.h2", Support::Native, ""),
    ("ports.tcp", Support::Native, ""),
    ("connect-token", Support::Native, ""),
    (
        "sidecars",
        Support::Native,
        "Their network cannot be blocked. Sidecars that have ended are listed as long as Modal knows them.",
    ),
    ("tags.update", Support::Native, ""),
    ("find", Support::Native, ""),
    ("logs", Support::Native, "Of the entry-point command, at most 35 days back."),
    ("stats", Support::Native, "Totals of processor, memory and accelerator time."),
    ("stats.cost", Support::Native, "As Modal reports it, also after the end; the most recent usage may be missing."),
    ("snapshot.filesystem", Support::Native, "The time to live is in whole seconds, rounded up."),
    ("snapshot.directory", Support::Native, "The time to live is in whole seconds, rounded up."),
    (
        "snapshot.memory",
        Support::Native,
        "With the option memory_snapshots; ends the sandbox on the newer backend (v2).",
    ),
    ("snapshot.exit", Support::Native, "With the option exit_snapshot."),
    ("mount", Support::Native, "Images of directory snapshots."),
    ("volumes.reload", Support::Native, ""),
    ("volumes.delete", Support::Native, ""),
    (
        "exec.user",
        Support::Emulated,
        "Through setpriv, runuser, su or busybox of the image; needs /bin/sh and /etc/passwd, and a sandbox that runs as root.",
    ),
    ("exec.idempotent", Support::Native, ""),
    ("exec.signal", Support::Emulated, "A second exec signals the process tree; needs /bin/sh in the image."),
    (
        "exec.deadline",
        Support::Emulated,
        "By the clock of the caller: SIGTERM to the process tree, and SIGKILL to the remaining processes after 5 seconds. If the caller has exited or the image has no /bin/sh, the service kills the program 7 seconds later, in whole seconds.",
    ),
    ("exec.pty", Support::Native, ""),
    ("exec.resize", Support::Emulated, "By a second exec; needs /bin/sh and stty in the image."),
    ("exec.long-argv", Support::Emulated, "Beyond 64 KiB by a script in /tmp that deletes itself; needs /bin/sh."),
    ("exec.merge-stderr", Support::Native, ""),
    ("exec.secrets", Support::Native, ""),
    ("main.output", Support::Native, "V2 backend only; old output may be dropped."),
    ("main.input", Support::Native, "V2 backend only."),
    ("files.mode", Support::Emulated, "Needs /bin/sh, chmod and mv in the image."),
    ("files.create-new", Support::Emulated, "Needs /bin/sh in the image."),
    (
        "files.append",
        Support::Emulated,
        "Data is appended when all of it has arrived; needs /bin/sh and cat in the image.",
    ),
    ("files.atomic", Support::Native, ""),
    ("files.rename", Support::Emulated, "Needs /bin/sh and mv; replacing a directory by another one takes two steps."),
    ("files.symlinks", Support::Emulated, "Creating a link needs /bin/sh and ln."),
    ("files.trees", Support::Emulated, "By the image's tar."),
    ("files.watch", Support::Native, "Changes before the watch has started are not reported."),
    ("cache", Support::Native, ""),
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
    Description {
        name: "modal".to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        capabilities,
        options_schema: options::SCHEMA.to_string(),
        environment: config::variables(),
        digests: vec!["md5".to_string()],
        // A list searches all apps of one environment.
        extra: vec![(
            "list-scope".to_string(),
            r#"{"units":"apps","scope":"environment","variable":"MODAL_ENVIRONMENT"}"#.to_string(),
        )],
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
