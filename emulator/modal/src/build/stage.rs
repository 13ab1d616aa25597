//! A stage of a build: the image so far, and the container in which its lines are executed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use container_isolation::rootfs::Root;
use container_isolation::{Bind, Container, ContainerSpec, DirectoryError, MountSpec, ProcessSpec};
use container_network::{Network, Policy, Port};
use modal_proto::client::FileDescriptor;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::model::build_log::Log;
use crate::model::image::Built;
use crate::model::network;
use crate::model::outcome::code;
use crate::model::state::State;

/// Longest piece of a line in bytes. Longer lines are split, so that they cannot fill memory.
const LONGEST_LINE: usize = 8 * 1024;

/// How long to wait for the rest of a command's output after its exit.
const GRACE: Duration = Duration::from_secs(1);

/// A stage of a build.
#[derive(Debug)]
pub struct Stage {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The image so far, without the files that the container has written.
    pub image: Built,
    /// Build arguments that have been declared so far, with their values.
    pub args: Vec<(String, String)>,
    /// Whether the stage has a CMD of its own, which a later ENTRYPOINT does not reset.
    pub has_cmd: bool,
    container: Option<Container>,
    network: Option<Network>,
    state: Arc<State>,
    binds: Vec<Bind>,
}

impl Stage {
    /// Creates a stage on top of an image. Its container is started when it is first needed.
    pub fn new(state: &Arc<State>, name: Option<String>, image: Built, binds: Vec<Bind>) -> Stage {
        Stage {
            name,
            image,
            args: Vec::new(),
            has_cmd: false,
            container: None,
            network: None,
            state: state.clone(),
            binds,
        }
    }

    async fn container(&mut self) -> Result<&Container, String> {
        if self.container.is_none() {
            let failed = |e: anyhow::Error| format!("cannot start a build container: {e:#}");
            let port = network::port(self.state.options.network, &network::switch()).map_err(failed)?;
            let spec = ContainerSpec {
                id: crate::model::ids::id("build"),
                layers: self.image.layers.clone(),
                from_scratch: self.image.from_scratch,
                hostname: "build".to_owned(),
                device: port.as_ref().map(Port::number),
                binds: self.binds.clone(),
                ..ContainerSpec::default()
            };
            let id = spec.id.clone();
            let container = self.state.engine.start(spec).await.map_err(failed)?;
            let open = watch::Sender::new(Arc::new(Policy::open())).subscribe();
            self.network = network::serve(&self.state.names, &id, container.device(), port, open).map_err(failed)?;
            self.container = Some(container);
        }
        self.container.as_ref().ok_or_else(|| "no build container".to_owned())
    }

    /// Returns the root directory of the container.
    ///
    /// # Errors
    ///
    /// Returns a text if the container cannot be started or its root cannot be opened.
    pub async fn root(&mut self) -> Result<Root, String> {
        let root = self.container().await?.root().await;
        root.map_err(|e| format!("cannot open the build container's root: {e:#}"))
    }

    /// Mounts something in the container.
    ///
    /// # Errors
    ///
    /// Fails if the container cannot be started, or with the error of the mount.
    pub async fn mount(&mut self, spec: MountSpec) -> Result<(), DirectoryError> {
        let container = self.container().await.map_err(anyhow::Error::msg)?;
        container.mount(spec).await
    }

    /// Removes a mount from the container.
    ///
    /// # Errors
    ///
    /// Returns a text if nothing can be unmounted at the path.
    pub async fn unmount(&mut self, target: &Path) -> Result<(), String> {
        self.container().await?.unmount(target).await.map_err(|e| format!("cannot unmount {}: {e:#}", target.display()))
    }

    /// Runs a command, writes its output to the log, and returns its exit code.
    ///
    /// # Errors
    ///
    /// Returns a text if the command cannot be started, or if the container ends first.
    pub async fn run(&mut self, argv: Vec<String>, env: Vec<(String, String)>, log: &Log) -> Result<i32, String> {
        let spec = ProcessSpec {
            argv: argv.into_iter().map(Into::into).collect(),
            env: env.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            cwd: self.image.config.workdir.clone().unwrap_or_else(|| "/".to_owned()).into(),
            user: self.image.config.user.clone(),
            ..ProcessSpec::default()
        };
        let process = self.container().await?.spawn(spec).await.map_err(|e| format!("{e:#}"))?;
        drop(process.stdin);
        let out = pipe::Receiver::from_owned_fd_unchecked(process.stdout).map_err(|e| e.to_string())?;
        let err = process.stderr.map(pipe::Receiver::from_owned_fd_unchecked).transpose().map_err(|e| e.to_string())?;
        let errors = async {
            if let Some(err) = err {
                lines(err, FileDescriptor::Stderr, log).await;
            }
        };
        let mut output = std::pin::pin!(async { tokio::join!(lines(out, FileDescriptor::Stdout, log), errors) });
        let mut exit = process.exit;
        let ended = tokio::select! {
            _ = output.as_mut() => exit.await,
            ended = &mut exit => {
                // The pipes may still hold output. Background processes of the command may keep them open for ever.
                let _ = tokio::time::timeout(GRACE, output).await;
                ended
            }
        };
        Ok(code(ended.map_err(|_| "the build container ended".to_owned())?))
    }

    /// Ends the stage, moves the files that its container wrote to the layer `to`, and returns the image with that layer.
    ///
    /// # Errors
    ///
    /// Returns a text if the layer cannot be moved.
    pub async fn finish(mut self, to: &Path) -> Result<Built, String> {
        if let Some(container) = self.container.take() {
            container.stop().await;
            let moved = tokio::fs::rename(container.upper(), to).await;
            moved.map_err(|e| format!("cannot store the new layer: {e}"))?;
            self.image.layers.push(to.to_owned());
            remove(container).await;
        }
        Ok(self.image)
    }

    /// Ends the stage and removes its files.
    pub async fn discard(mut self) {
        if let Some(container) = self.container.take() {
            remove(container).await;
        }
    }
}

async fn remove(container: Container) {
    if let Err(error) = container.remove().await {
        tracing::warn!(%error, "cannot remove a build container");
    }
}

async fn lines(pipe: impl AsyncRead + Unpin, fd: FileDescriptor, log: &Log) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while let Ok(available) = pipe.fill_buf().await {
        if available.is_empty() {
            break;
        }
        let end = available.iter().position(|b| *b == b'\n').map_or(available.len(), |at| at + 1);
        let used = end.min(LONGEST_LINE.saturating_sub(line.len()).max(1));
        line.extend_from_slice(&available[..used]);
        pipe.consume(used);
        if line.ends_with(b"\n") || line.len() >= LONGEST_LINE {
            log.write(fd, String::from_utf8_lossy(&line));
            line.clear();
        }
    }
    if !line.is_empty() {
        log.write(fd, String::from_utf8_lossy(&line));
    }
}
