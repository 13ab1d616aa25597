//! The command line of the emulator, shared by its own program and by others that offer it.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::emulator::Emulator;
use crate::model::options::Options;
use crate::sys::is_ignored;

/// Files that are open at once in an emulator without a sandbox, and some to spare.
const NEEDED_FILES: usize = 64;

/// Longest line of credentials on standard input, in bytes.
const LONGEST_TOKEN: u64 = 4096;

/// What can be said on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Address and port to listen on; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Allow an address that other machines can reach: they can then run commands on this one
    #[arg(long)]
    pub allow_remote: bool,
    /// Answer every user of this machine: they can then run commands as the one that runs the emulator [default: this user and root]
    #[arg(long)]
    pub any_user: bool,
    /// Where to make the state directory [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Let sandboxes reach, through this machine, what their network policies permit [default: nothing]
    #[arg(long)]
    pub network: bool,
    /// A name and its address inside sandboxes, whatever this machine's resolver says; may be repeated
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = name, requires = "network")]
    pub resolve: Vec<(String, IpAddr)>,
    /// Space that every sandbox has to write to, in mebibytes, held in memory [default: the machine's disk]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    pub disk: Option<u64>,
    /// Space to leave free on the disk, in mebibytes: the sandbox that has written most is ended before [default: up to 1024]
    #[arg(long, value_name = "MIB")]
    pub keep_free: Option<u64>,
    /// Streams that one connection may have open at once
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: u32,
    /// Image builder version that environments name
    #[arg(long, value_name = "VERSION", default_value = "2025.06")]
    pub image_builder_version: String,
    /// Take only these credentials; `-` reads them from the first line of standard input [default: any]
    #[arg(long, value_name = "ID:SECRET", value_parser = token)]
    pub token: Option<Token>,
    /// How long router tokens are good for, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub router_token_life: u64,
    /// How long control-plane tokens are good for, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1200, value_parser = clap::value_parser!(u64).range(1..))]
    pub auth_token_life: u64,
    /// Decides which calls are hit by ordered faults that have a probability
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,
    /// End when standard input ends: with the program that started it
    #[arg(long)]
    pub exit_with_stdin: bool,
    /// Form of the log on standard error; RUST_LOG chooses what it says
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object per line.
    Json,
}

/// Where the only credentials that are taken come from.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// The command line, which other users of the machine can read.
    Given(String, String),
    /// The first line of standard input.
    Input,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Token::Given(..) => "Given(…)",
            Token::Input => "Input",
        })
    }
}

fn token(text: &str) -> Result<Token, String> {
    match text.split_once(':') {
        None if text == "-" => Ok(Token::Input),
        Some((id, secret)) if !id.is_empty() && !secret.is_empty() => {
            Ok(Token::Given(id.to_owned(), secret.to_owned()))
        }
        _ => Err("expected ID:SECRET, or - to read that from standard input".to_owned()),
    }
}

/// The credentials on the first line of standard input.
fn token_of_input() -> anyhow::Result<(String, String)> {
    let mut line = String::new();
    std::io::stdin().lock().take(LONGEST_TOKEN).read_line(&mut line).context("cannot read standard input")?;
    match token(line.trim()) {
        Ok(Token::Given(id, secret)) => Ok((id, secret)),
        _ => anyhow::bail!("--token - needs a line ID:SECRET on standard input"),
    }
}

fn name(text: &str) -> Result<(String, IpAddr), String> {
    let (name, address) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("expected NAME=ADDRESS")?;
    Ok((name.to_owned(), address.parse().map_err(|_| format!("not an address: {address}"))?))
}

impl From<&Args> for Options {
    fn from(args: &Args) -> Options {
        Options {
            listen: args.listen,
            allow_remote: args.allow_remote,
            any_user: args.any_user,
            state_dir: args.state_dir.clone(),
            network: args.network,
            resolve: args.resolve.clone(),
            disk: args.disk.map(|mib| mib.saturating_mul(1 << 20)),
            keep_free: args.keep_free.map(|mib| mib.saturating_mul(1 << 20)),
            max_streams: args.max_streams,
            image_builder_version: args.image_builder_version.clone(),
            token: match &args.token {
                Some(Token::Given(id, secret)) => Some((id.clone(), secret.clone())),
                Some(Token::Input) | None => None,
            },
            router_token_life: Duration::from_secs(args.router_token_life),
            auth_token_life: Duration::from_secs(args.auth_token_life),
            seed: args.seed,
            ..Options::default()
        }
    }
}

/// Runs an emulator until a signal, or the end of standard input, ends it. Prints one line when it is ready. To be called
/// while the program has one thread.
pub fn run(args: Args) -> anyhow::Result<()> {
    // Without them, what is started below ends in a panic here and there.
    let opened: std::io::Result<Vec<_>> = (0..NEEDED_FILES).map(|_| std::fs::File::open("/dev/null")).collect();
    opened
        .map(drop)
        .with_context(|| format!("{NEEDED_FILES} files cannot be open at once; raise the limit with `ulimit -n`"))?;
    start_log(args.log_format);
    let mut options = Options::from(&args);
    if args.token == Some(Token::Input) {
        options.token = Some(token_of_input()?);
    }
    // Before anything is made: a signal from here on must not leave anything behind.
    let end = End::watch(args.exit_with_stdin).context("cannot wait for signals")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let ended = runtime.block_on(serve(options, &end));
    // Nothing that still runs then is worth waiting for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

/// How long cleaning up may take. A defect must not keep the emulator from ending; what is left is removed at the next start.
const CLEANING_LIMIT: Duration = Duration::from_secs(60);

/// The signals that end it. SIGHUP is that of a terminal that is closed.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Why it ends, once it does. Signals and the input have threads of their own, which nothing that goes wrong in the runtime
/// can hold up.
#[derive(Debug, Clone)]
struct End(watch::Sender<Option<&'static str>>);

impl End {
    /// Begins to wait for reasons: signals, and the end of standard input if that is one.
    fn watch(input: bool) -> anyhow::Result<End> {
        let end = End(watch::Sender::new(None));
        let mut signals = SigSet::empty();
        for signal in ENDING.into_iter().filter(|signal| *signal != Signal::SIGHUP || !is_ignored(*signal)) {
            signals.add(signal);
        }
        // For all threads that are started from here on; a signal that comes now waits for the thread below.
        signals.thread_block()?;
        let told = end.clone();
        let wait = move || {
            let mut interrupts = 0;
            while let Ok(signal) = signals.wait() {
                interrupts += u32::from(signal == Signal::SIGINT);
                let first = told.tell(if signal == Signal::SIGINT { "interrupted" } else { "told to end" });
                // The second interrupt ends it at once; what is left is removed at the next start. One interrupt after another
                // reason does not: Ctrl-C also reaches the program that started this one, whose end is the end of the input.
                if !first && interrupts > 1 {
                    std::process::exit(0);
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(wait)?;
        if input {
            let told = end.clone();
            let read = move || {
                let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
                told.tell("standard input ended");
            };
            thread::Builder::new().name("input".into()).spawn(read)?;
        }
        Ok(end)
    }

    /// Ends the emulator for this reason; false when there is one already. From here on there is a limit of time.
    fn tell(&self, reason: &'static str) -> bool {
        let first = self.0.send_if_modified(|known| known.is_none() && known.replace(reason).is_none());
        if first {
            let limit = || {
                thread::sleep(CLEANING_LIMIT);
                tracing::error!("cleaning up takes more than {CLEANING_LIMIT:?}; the next start removes what is left");
                std::process::exit(1);
            };
            let _ = thread::Builder::new().name("limit".into()).spawn(limit);
        }
        first
    }

    /// Resolves with the reason.
    async fn reason(&self) -> &'static str {
        let mut reasons = self.0.subscribe();
        match reasons.wait_for(Option::is_some).await {
            Ok(reason) => reason.unwrap_or_default(),
            Err(_) => "no reason",
        }
    }
}

async fn serve(options: Options, end: &End) -> anyhow::Result<()> {
    let emulator = Emulator::start(options).await?;
    let told = {
        let mut out = std::io::stdout().lock();
        writeln!(out, "MODAL_SERVER_URL={}", emulator.url()).and_then(|()| out.flush())
    };
    let told = match told {
        Ok(()) => {
            let reason = end.reason().await;
            tracing::info!(reason, "emulator ends");
            Ok(())
        }
        failed => failed.context("cannot write to standard output"),
    };
    emulator.shutdown().await;
    told
}

/// Standard error, for lines that may be lost. A pipe that nothing reads any more, or a full disk, is no reason to fail.
#[derive(Debug, Clone, Copy)]
struct Lossy;

impl std::io::Write for Lossy {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        let _ = std::io::stderr().write_all(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // What goes wrong with the log itself would be printed by a macro that panics when that cannot be written either.
    let log = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(|| Lossy);
    // A program that has set up its own log keeps it.
    let _ = match format {
        LogFormat::Text => {
            log.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
        LogFormat::Json => log.json().try_init(),
    };
}
