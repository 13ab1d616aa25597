//! The verb `probe`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags, open},
    io::fcntl_dupfd_cloexec,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, WaitOptions, set_child_subreaper, waitpid},
    time::Timespec,
};

use crate::{
    answer::{Answer, Failure, send_json},
    args::Args,
    context::Context,
    exec::{command::Command, tree},
    json,
    sys::process::{Fork, block_signals, fork, signal_descriptor, take_signals},
};

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// How long a command may take if the arguments do not say so.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// How long processes are killed again until none is left.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Says whether a port accepts connections, or a command succeeds.
///
/// # Errors
///
/// Fails if an argument is wrong, or no process can be created.
pub fn probe(args: &Args, _: &mut Context) -> Answer {
    let ready = match args.number("port")? {
        Some(port) => {
            let port = u16::try_from(port).map_err(|_| Failure::invalid("port", "A port is a number up to 65535."))?;
            accepts(port)
        }
        None => {
            let mut command = Command::of(args)?;
            command.pty = None;
            let limit = command.timeout.unwrap_or(COMMAND_LIMIT);
            succeeds(&command, limit).map_err(|error| Failure::internal("probe", error))?
        }
    };
    send_json(&json::Object::new().flag("ready", ready).end())
}

fn accepts(port: u16) -> bool {
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    addresses.into_iter().any(|ip| TcpStream::connect_timeout(&SocketAddr::new(ip, port), CONNECT_LIMIT).is_ok())
}

/// Runs a command without input and output. What it leaves behind is killed if the time limit passes.
fn succeeds(command: &Command, limit: Duration) -> io::Result<bool> {
    set_child_subreaper(Pid::from_raw(1))?;
    block_signals(&[libc::SIGCHLD]);
    let signals = signal_descriptor(&[libc::SIGCHLD])?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let again = || fcntl_dupfd_cloexec(&null, 3);
    let inner = [again()?, again()?, again()?];
    // A failure before the execution is an exit code too.
    let (_, report) = pipe_with(PipeFlags::CLOEXEC)?;
    let pid = match fork()? {
        Fork::Child => command.execute(inner, report),
        Fork::Parent(pid) => pid,
    };
    let end = Instant::now().checked_add(limit);
    loop {
        take_signals(&signals);
        if let Some((_, status)) = waitpid(Some(pid), WaitOptions::NOHANG)? {
            return Ok(status.exit_status() == Some(0));
        }
        let left = end.map_or(COMMAND_LIMIT, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            let end = Instant::now() + KILL_LIMIT;
            while tree::signal(std::process::id(), libc::SIGKILL) > 0 && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            return Ok(false);
        }
        let left = left + Duration::from_micros(500);
        let time = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
        let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], Some(&time));
    }
}
