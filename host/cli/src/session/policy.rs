//! Policy files: limits and grants for the plugin (docs/security.md).

use std::path::Path;

use anyhow::Result;
use sandbox_host::Limits;
use serde::Deserialize;

use crate::args::duration;
use crate::output::Failure;

/// The content of a policy file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyFile {
    pub limits: LimitsFile,
    pub grants: GrantsFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsFile {
    memory_mib: Option<usize>,
    table_elements: Option<usize>,
    call_time: Option<String>,
    answer_time: Option<String>,
    overdue_time: Option<String>,
    compute_time: Option<String>,
    resources: Option<usize>,
    header_bytes: Option<usize>,
    body_mib: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrantsFile {
    /// Names of origins in the manifest.
    pub origins: Option<Vec<String>>,
    /// Environment variables in the manifest that the plugin can read.
    pub env: Option<Vec<String>>,
    /// SHA-256 digests of plugins that get what their manifests request.
    pub plugins: Vec<String>,
}

/// Reads and parses a policy file.
pub fn read_policy(path: &Path) -> Result<PolicyFile> {
    let what = format!("read the policy {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| Failure::io(&what, &error))?;
    toml::from_str(&text)
        .map_err(|error| Failure::new(what, error.to_string()).hint("docs/security.md describes the file").into())
}

/// Returns the default limits with the changes in a policy file.
pub fn limits(file: LimitsFile) -> Result<Limits> {
    let mut limits = Limits::default();
    let time = |text: Option<String>, name: &str| {
        text.map(|text| duration(&text).map_err(|why| Failure::new(format!("use the policy's {name}"), why)))
            .transpose()
    };
    if let Some(value) = file.memory_mib {
        limits.memory = value.saturating_mul(1 << 20);
    }
    if let Some(value) = file.table_elements {
        limits.table_elements = value;
    }
    if let Some(value) = time(file.call_time, "call_time")? {
        limits.call_time = value;
    }
    if let Some(value) = time(file.answer_time, "answer_time")? {
        limits.answer_time = value;
    }
    if let Some(value) = time(file.overdue_time, "overdue_time")? {
        limits.overdue_time = value;
    }
    if let Some(value) = time(file.compute_time, "compute_time")? {
        limits.compute_time = value;
    }
    if let Some(value) = file.resources {
        limits.resources = value;
    }
    if let Some(value) = file.body_mib {
        limits.body_bytes = value.saturating_mul(1 << 20);
    }
    if let Some(value) = file.header_bytes {
        limits.header_bytes = value;
    }
    Ok(limits)
}
