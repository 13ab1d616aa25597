//! A container of a sandbox, and how processes are started in it.

use std::path::PathBuf;
use std::sync::Arc;

use container_isolation::{Container, ProcessSpec};
use modal_proto::client as proto;

use crate::model::image::Built;
use crate::model::volume_views::Views;

/// What runs when neither the request nor the image names a command: the default image's own command.
const DEFAULT_COMMAND: [&str; 2] = ["sleep", "172800"];

/// A container and how processes are started in it.
#[derive(Debug)]
pub struct Unit {
    /// The container.
    pub container: Arc<Container>,
    /// Variables that every process gets.
    pub env: Vec<(String, String)>,
    /// Where processes start.
    pub workdir: PathBuf,
    /// The user that they run as.
    pub user: Option<String>,
    /// The image it was made of.
    pub image: Arc<Built>,
    /// Its layers: the image's and those of local files.
    pub layers: Vec<PathBuf>,
    /// What it sees of volumes.
    pub volumes: Arc<Views>,
}

impl Unit {
    /// A process with this container's variables, directory and user.
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

/// Gives a process a terminal, and the variables that describe it, if one is asked for.
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
