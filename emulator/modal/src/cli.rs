//! The command line of the emulator. The program `modal-emulator` uses it, and so do other programs that offer the emulator as
//! a subcommand.

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

/// Number of file descriptors that must be available at the start: what an emulator without sandboxes has open, with a margin.
const NEEDED_FILES: usize = 64;

/// Longest line of credentials that is read from standard input, in bytes.
const LONGEST_TOKEN: u64 = 4096;

/// The options of the emulator.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Address and port to listen on; port 0 selects a free port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Permit an address that other machines can reach; these machines can then run commands on this one
    #[arg(long)]
    pub allow_remote: bool,
    /// Serve all users of this machine; they can then run commands as the user of the emulator [default: only this user and root]
    #[arg(long)]
    pub any_user: bool,
    /// Directory in which the state directory is created [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Connect sandboxes to the network of this machine, within their network policies [default: no network]
    #[arg(long)]
    pub network: bool,
    /// Resolve this name to this address inside sandboxes, instead of asking this machine's resolver (repeatable)
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = name, requires = "network")]
    pub resolve: Vec<(String, IpAddr)>,
    /// Disk size of each sandbox in MiB; the disk is held in memory [default: use this machine's disk without a limit]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    pub disk: Option<u64>,
    /// Free space to keep on the disk in MiB; below it, the sandbox that has written most is ended [default: up to 1024]
    #[arg(long, value_name = "MIB")]
    pub keep_free: Option<u64>,
    /// Maximum number of concurrent streams per connection
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: u32,
    /// Image builder version of all environments
    #[arg(long, value_name = "VERSION", default_value = "2025.06")]
    pub image_builder_version: String,
    /// Accept only these credentials; `-` reads them from the first line of standard input [default: accept any]
    #[arg(long, value_name = "ID:SECRET", value_parser = token)]
    pub token: Option<Token>,
    /// Lifetime of router tokens in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub router_token_life: u64,
    /// Lifetime of control-plane tokens in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1200, value_parser = clap::value_parser!(u64).range(1..))]
    pub auth_token_life: u64,
    /// Seed of the random numbers that decide which calls get a fault with a probability
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,
    /// Exit when standard input is closed, so that the emulator ends with the program that started it
    #[arg(long)]
    pub exit_with_stdin: bool,
    /// Format of the log on standard error; RUST_LOG selects its entries
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

/// Source of the credentials that every request must present.
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
        _ => Err("expected ID:SECRET, or - to read it from standard input".to_owned()),
    }
}

/// Reads credentials `ID:SECRET` from the first line of standard input.
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

/// Runs an emulator until a signal, or the end of standard input, ends it. Prints the line `MODAL_SERVER_URL=…` when it is
/// ready. Must be called while the program has one thread, because it blocks signals for all threads that are started later.
///
/// # Errors
///
/// Fails if too few files can be open, if standard input has no credentials although `--token -` asks for them, if the emulator
/// cannot start, or if standard output cannot be written.
pub fn run(args: Args) -> anyhow::Result<()> {
    // With too few file descriptors, code that runs later would panic.
    let opened: std::io::Result<Vec<_>> = (0..NEEDED_FILES).map(|_| std::fs::File::open("/dev/null")).collect();
    opened
        .map(drop)
        .with_context(|| format!("the process cannot open {NEEDED_FILES} files; raise the limit with `ulimit -n`"))?;
    start_log(args.log_format);
    let mut options = Options::from(&args);
    if args.token == Some(Token::Input) {
        options.token = Some(token_of_input()?);
    }
    // Signals are handled before anything is created, so that a signal cannot leave files or processes behind.
    let end = End::watch(args.exit_with_stdin).context("cannot wait for signals")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let ended = runtime.block_on(serve(options, &end));
    // Tasks that still run after the shutdown have nothing left to clean up.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

/// Longest time that the shutdown may take. A defect must not keep the emulator running; the next start removes what is left.
const CLEANING_LIMIT: Duration = Duration::from_secs(60);

/// Signals that end the emulator. A closed terminal sends SIGHUP.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Returns whether this process ignores `signal`. It inherits that from the program that started it, such as `nohup`.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    // The lowest bit is signal 1.
    mask & (1 << (signal as i32 - 1)) != 0
}

/// The reason why the emulator ends; `None` while it runs. Signals and standard input are read by threads of their own, so that
/// a blocked async runtime cannot delay them.
#[derive(Debug, Clone)]
struct End(watch::Sender<Option<&'static str>>);

impl End {
    /// Starts to wait for signals and, if `input` is set, for the end of standard input.
    fn watch(input: bool) -> anyhow::Result<End> {
        let end = End(watch::Sender::new(None));
        let mut signals = SigSet::empty();
        for signal in ENDING.into_iter().filter(|signal| *signal != Signal::SIGHUP || !is_ignored(*signal)) {
            signals.add(signal);
        }
        // All threads that start later inherit this mask. A signal that arrives now stays pending for the thread below.
        signals.thread_block()?;
        let told = end.clone();
        let wait = move || {
            let mut interrupts = 0;
            while let Ok(signal) = signals.wait() {
                interrupts += u32::from(signal == Signal::SIGINT);
                let first = told.tell(if signal == Signal::SIGINT { "interrupted" } else { "terminated by a signal" });
                // A second SIGINT ends the process at once; the next start removes what is left. A single SIGINT after another
                // reason does not: Ctrl-C also reaches the program that started the emulator, and when that program ends, so
                // does the input.
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

    /// Ends the emulator for `reason`. Returns false if there is a reason already. The first call starts the time limit.
    fn tell(&self, reason: &'static str) -> bool {
        let first = self.0.send_if_modified(|known| known.is_none() && known.replace(reason).is_none());
        if first {
            let limit = || {
                thread::sleep(CLEANING_LIMIT);
                tracing::error!("the clean-up takes longer than {CLEANING_LIMIT:?}; the next start removes the rest");
                std::process::exit(1);
            };
            let _ = thread::Builder::new().name("limit".into()).spawn(limit);
        }
        first
    }

    /// Waits for the reason to end, and returns it.
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
            tracing::info!(reason, "the emulator exits");
            Ok(())
        }
        failed => failed.context("cannot write to standard output"),
    };
    emulator.shutdown().await;
    told
}

/// A writer to standard error that ignores failures. A closed pipe or a full disk must not fail the emulator.
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
    // The logger would report its own failures with a macro that panics if standard error cannot be written.
    let log = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(|| Lossy);
    // Fails if the program has set up its own logger, which then stays in use.
    let _ = match format {
        LogFormat::Text => {
            log.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
        LogFormat::Json => log.json().try_init(),
    };
}
