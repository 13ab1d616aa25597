//! A container of a sandbox with the settings of its processes. Both sandboxes and sidecars use it.

use std::path::PathBuf;
use std::sync::Arc;

use container_isolation::{Container, ProcessSpec};
use modal_proto::client as proto;

use crate::model::image::Built;
use crate::model::volume_views::Views;

/// Command that runs if neither the request nor the image names one: that of the service's default image.
const DEFAULT_COMMAND: [&str; 2] = ["sleep", "172800"];

/// A container with the settings of its processes.
#[derive(Debug)]
pub struct Unit {
    /// The container.
    pub container: Arc<Container>,
    /// Environment variables of every process.
    pub env: Vec<(String, String)>,
    /// Initial working directory of processes.
    pub workdir: PathBuf,
    /// User that processes run as; `None` means root.
    pub user: Option<String>,
    /// The image that it was made from.
    pub image: Arc<Built>,
    /// Its layers: those of the image, and those of local files.
    pub layers: Vec<PathBuf>,
    /// Its copies of volumes.
    pub volumes: Arc<Views>,
}

impl Unit {
    /// Returns the specification of a process with this container's variables, directory and user.
    pub fn process(&self, argv: Vec<String>) -> ProcessSpec {
        ProcessSpec {
            argv: argv.into_iter().map(Into::into).collect(),
            env: self.env.iter().map(|(key, value)| (key.into(), value.into())).collect(),
            cwd: self.workdir.clone(),
            user: self.user.clone(),
            ..Default::default()
        }
    }
}

/// Returns the arguments of a container's first process: the image's ENTRYPOINT, and after it the command of the request, or
/// the image's CMD if the request names none.
pub fn command(asked: &[String], image: &Built) -> Vec<String> {
    let config = &image.config;
    let rest = if asked.is_empty() { config.cmd.as_deref().unwrap_or_default() } else { asked };
    let all: Vec<String> = config.entrypoint.iter().flatten().chain(rest).cloned().collect();
    if all.is_empty() { DEFAULT_COMMAND.map(str::to_owned).to_vec() } else { all }
}

/// Adds a terminal, and the variables that describe it, to a process if `info` requests one.
pub fn terminal(process: &mut ProcessSpec, info: Option<&proto::PtyInfo>) {
    let Some(info) = info.filter(|info| info.enabled) else { return };
    let cut = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    process.pty = Some((cut(info.winsz_rows), cut(info.winsz_cols)));
    for (key, value) in
        [("TERM", &info.env_term), ("COLORTERM", &info.env_colorterm), ("TERM_PROGRAM", &info.env_term_program)]
    {
        if !value.is_empty() && !process.env.iter().any(|(known, _)| known == key) {
            process.env.push((key.into(), value.into()));
        }
    }
}
