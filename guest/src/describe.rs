//! What this provider says of itself. Tests hold each line against what the functions do.

use serde_json::json;

use crate::{
    bindings::{Capability, Description, Support},
    config,
};

/// Capabilities that are not `absent`.
const CAPABILITIES: &[(&str, Support, &str)] = &[
    ("image.registry", Support::Native, ""),
    ("image.registry-credentials", Support::Native, "Static, AWS and GCP credentials, each a Modal secret by name."),
    ("image.dockerfile", Support::Native, "The last stage; no build context."),
    ("image.commands", Support::Native, "One layer on top of the image."),
    ("image.secrets", Support::Native, ""),
    ("image.delete", Support::Native, ""),
    ("create.idempotent", Support::Native, "By Modal's idempotency key, for as long as Modal remembers it."),
    ("create.names", Support::Native, "Unique among the live sandboxes of one app."),
    ("create.tags", Support::Native, ""),
    ("create.env", Support::Native, ""),
    ("create.secrets", Support::Native, ""),
    ("create.cpu", Support::Native, ""),
    ("create.memory", Support::Native, ""),
    ("create.lifetime", Support::Native, "Whole seconds, rounded up; 300 s when not asked for."),
    ("create.idle-timeout", Support::Native, "Whole seconds, rounded up."),
    ("create.regions", Support::Native, ""),
    ("create.pty", Support::Native, ""),
    ("create.readiness", Support::Native, ""),
    ("network.blocked", Support::Native, ""),
    ("network.cidrs", Support::Native, ""),
    ("network.domains", Support::Native, ""),
    ("network.inbound", Support::Native, "Fixed at creation."),
    ("network.update", Support::Native, "Outbound only."),
    ("ports.tls", Support::Native, ""),
    ("ports.h2", Support::Native, ""),
    ("ports.tcp", Support::Native, ""),
    ("tags.update", Support::Native, ""),
    ("find", Support::Native, ""),
    ("stats", Support::Native, "Totals of processor, memory and accelerator time."),
    ("snapshot.filesystem", Support::Native, "Whole seconds of life, rounded up."),
    ("volumes.reload", Support::Native, ""),
    ("exec.user", Support::Emulated, "Through setpriv, runuser or su of the image; needs /bin/sh and /etc/passwd."),
    (
        "exec.signal",
        Support::Emulated,
        "A second exec signals the process tree; needs /bin/sh, tr and grep in the image.",
    ),
    (
        "exec.deadline",
        Support::Emulated,
        "Whole seconds, rounded up; told from other kills by the clock of the caller.",
    ),
    ("exec.pty", Support::Native, "The size is fixed at the start."),
    ("exec.merge-stderr", Support::Native, ""),
    ("exec.secrets", Support::Native, ""),
    ("main.output", Support::Native, "V2 backend only; old output may be dropped."),
    ("main.input", Support::Native, "V2 backend only."),
    ("cache", Support::Native, ""),
];

/// The description; the same each time.
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
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {},
        "additionalProperties": false,
    });
    Description {
        name: "modal".to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        capabilities,
        options_schema: schema.to_string(),
        environment: config::variables(),
        digests: Vec::new(),
        extra: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    /// Every name in use is one that the interface documents.
    #[test]
    fn capabilities_have_documented_names() {
        let wit = include_str!("../../wit/types.wit");
        for (name, _, _) in super::CAPABILITIES {
            assert!(wit.contains(&format!("`{name}`")), "{name} is not in wit/types.wit");
        }
    }
}
