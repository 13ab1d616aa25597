//! Starts and ends an emulator: creates the state and the listeners, and removes everything at the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use container_isolation::{Engine, Space};
use container_network::Names;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::http::{connect_tokens, server};
use crate::model::faults::Chaos;
use crate::model::ids;
use crate::model::options::Options;
use crate::model::peers::Peers;
use crate::model::state::{State, Tables};
use crate::model::tokens::Signer;
use crate::runtime::{app_lives, disk_guard};
use crate::service::addresses::router_url;

/// A running emulator.
#[derive(Debug)]
pub struct Emulator {
    state: Arc<State>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Emulator {
    /// Starts an emulator. Must be called in a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// Fails if the address is not loopback and remote access is not allowed, if the port is taken, if this machine cannot make
    /// containers, or if the state directory cannot be created.
    pub async fn start(options: Options) -> anyhow::Result<Emulator> {
        if !options.listen.ip().is_loopback() && !options.allow_remote {
            anyhow::bail!(
                "{} is not a loopback address: every program that reaches the emulator can run commands on this machine (--allow-remote permits this)",
                options.listen
            );
        }
        raise_file_limit();
        let program = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().context("cannot find the executable of this program")?,
        };
        // The port is bound before anything is created: if it is taken, nothing is left behind.
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("cannot listen on {} (port 0 selects a free port)", options.listen))?;
        let front =
            TcpListener::bind((options.listen.ip(), 0)).await.context("cannot listen for connections by token")?;
        let parent = options.state_dir.clone().unwrap_or_else(std::env::temp_dir);
        let dir = parent.join(format!("modal-emulator-{}", ids::id("st")));
        let engine = Engine::new(&dir, &program, options.network).context("this machine cannot run sandboxes")?;
        for missing in engine.limits_missing() {
            tracing::warn!("{missing}");
        }
        let peers = peers(&options);
        State::make_directories(&dir).with_context(|| format!("cannot use {}", dir.display()))?;
        let (options_seed, names) = (options.seed, Arc::new(Names::new(&options.resolve)));
        let state = Arc::new(State {
            address: listener.local_addr()?,
            front: front.local_addr()?,
            options,
            peers,
            engine: Arc::new(engine),
            names,
            signer: Signer::new(),
            dir,
            tables: parking_lot::Mutex::new(Tables::new()),
            chaos: Chaos::new(options_seed),
            caches: Default::default(),
        });
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(connect_tokens::serve(front, state.clone(), stopped.clone()));
        let keep = match state.options.keep_free {
            Some(bytes) => bytes,
            None => disk_guard::reserve(Space::of(&state.dir)?),
        };
        tokio::spawn(disk_guard::guard(state.clone(), keep, stopped.clone()));
        tokio::spawn(app_lives::watch(state.clone(), stopped.clone()));
        let accepting = tokio::spawn(server::accept(listener, state.clone(), stopped));
        tracing::info!(url = %router_url(&state, false, None), state = %state.dir.display(), "emulator ready");
        Ok(Emulator { state, stop, accepting })
    }

    /// Returns the URL for the client's variable MODAL_SERVER_URL.
    pub fn url(&self) -> String {
        router_url(&self.state, false, None)
    }

    /// Returns the registry of ordered faults. For tests.
    pub fn chaos(&self) -> &Chaos {
        &self.state.chaos
    }

    /// Returns the emulator's state. For tests that inspect it.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Ends every sandbox and removes all files. Waits up to 5 seconds for sandboxes to end; the rest are killed.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        let _ = self.accepting.await;
        let sandboxes: Vec<_> = self.state.tables.lock().sandboxes.values().cloned().collect();
        for sandbox in &sandboxes {
            sandbox.terminate();
        }
        // Waits for all of them at the same time. The engine kills those that are still running below.
        futures_util::future::join_all(sandboxes.iter().map(|sandbox| sandbox.wait(Duration::from_secs(5)))).await;
        self.state.engine.shutdown().await;
        let dir = self.state.dir.clone();
        let removed = tokio::task::spawn_blocking(move || crate::build::remove(&dir)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, state = %self.state.dir.display(), "the state directory could not be removed completely");
        }
    }
}

/// Raises the soft limit of open files to the hard limit. Each exec holds several descriptors, and the usual soft limit of 1024
/// would be reached at about 200 execs.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Returns which users' connections are accepted. With remote access it is every user, because the kernel of this machine does
/// not know the users of other machines.
fn peers(options: &Options) -> Peers {
    if options.any_user || options.allow_remote {
        return Peers::any();
    }
    Peers::of_this_user().unwrap_or_else(|error| {
        tracing::warn!(%error, "the kernel does not report the user of a connection: all users of this machine are served");
        Peers::any()
    })
}
