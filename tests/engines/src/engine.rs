//! The start and the end of an engine.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::unix::{fs::MetadataExt as _, net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    error::Error,
    http,
    image::{self, IMAGES},
    registry,
    relay::{Relay, Slot, Target, WORLD, listens},
    tls,
};

/// Time limit for the start of an engine.
const START: Duration = Duration::from_secs(60);

/// Time limit for the end of an engine, longer than the limits of the script.
const END: Duration = Duration::from_secs(60);

/// Time limit for an answer of an engine, without one for its whole length.
const ANSWER: Duration = Duration::from_secs(120);

/// Time between two looks at a state.
const POLL: Duration = Duration::from_millis(10);

/// Where the scripts find programs of the machine.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The scripts that run an engine, with their names.
const SCRIPTS: [(&str, &str); 5] = [
    ("supervise.sh", include_str!("scripts/supervise.sh")),
    ("inside.sh", include_str!("scripts/inside.sh")),
    ("dockerd.sh", include_str!("scripts/dockerd.sh")),
    ("podman.sh", include_str!("scripts/podman.sh")),
    ("registry.sh", include_str!("scripts/registry.sh")),
];

/// A program that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// dockerd, with the images [`IMAGES`].
    Dockerd,
    /// The API service of podman, with the images [`IMAGES`].
    Podman,
    /// An image registry with the image [`REPOSITORY`](crate::REPOSITORY).
    Registry,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Dockerd, Self::Podman, Self::Registry];

    /// Returns the name of the kind: `dockerd`, `podman` or `registry`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dockerd => "dockerd",
            Self::Podman => "podman",
            Self::Registry => "registry",
        }
    }
}

/// How an engine is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The folder in which the engine gets a folder of its own; by default that for temporary files. Its path must have
    /// at most 60 bytes, because it is part of the path of a Unix socket.
    pub folder: Option<PathBuf>,
    /// dockerd: the TCP port demands TLS with a client certificate of [`Engine::certificates`]. Other kinds refuse it.
    pub tls: bool,
    /// The registry: each request needs the login [`USER`](crate::USER). Other kinds refuse it.
    pub login: bool,
}

/// A running engine. Dropping it ends the engine with all containers, and removes its files.
#[derive(Debug)]
pub struct Engine {
    kind: Kind,
    folder: PathBuf,
    port: u16,
    tls: bool,
    supervisor: Supervisor,
    relay: Relay,
    _slot: Slot,
}

impl Engine {
    /// Starts an engine and waits until it answers and has its images.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::Missing`] if this user or machine cannot run engines, with [`Error::Start`] if the engine
    /// ends or does not answer within 60 seconds, and if a file or a connection fails.
    pub fn start(kind: Kind, options: &Options) -> Result<Self, Error> {
        let packages = packages()?;
        if options.tls && kind != Kind::Dockerd || options.login && kind != Kind::Registry {
            return Err(io::Error::other(format!("the options do not fit {}", kind.name())).into());
        }
        let slot = Slot::take()?;
        let base = options.folder.clone().unwrap_or_else(std::env::temp_dir);
        let folder = tempfile::Builder::new().prefix("engine-").tempdir_in(fs::canonicalize(base)?)?;
        let arguments = configure(kind, options, folder.path())?;
        // From here on the script removes the folder.
        let mut supervisor = Supervisor::start(kind, folder.path(), &packages, &slot, &arguments)?;
        let folder = folder.keep();
        let pid = supervisor.wait_until(|| ready(kind, &folder))?;
        let target = match kind {
            Kind::Registry => Target::Port(registry::PORT),
            _ if options.tls => Target::Port(tls::PORT),
            _ => Target::Unix(engine_socket(&folder)),
        };
        let relay = Relay::new(pid, target)?;
        let port = relay.open_port()?;
        let engine = Self { kind, folder, port, tls: options.tls, supervisor, relay, _slot: slot };
        if kind == Kind::Registry {
            registry::fill(port, &packages)?;
        } else {
            if !options.tls {
                engine.relay.open_socket(&engine.socket())?;
            }
            for image in IMAGES {
                engine.import(image, &packages)?;
            }
        }
        Ok(engine)
    }

    /// Returns what was started.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address in the form of `DOCKER_HOST`, `tcp://127.0.0.1:PORT`; for a registry `127.0.0.1:PORT`, with
    /// which the names of its images begin.
    #[must_use]
    pub fn host(&self) -> String {
        let scheme = if self.kind == Kind::Registry { "" } else { "tcp://" };
        format!("{scheme}127.0.0.1:{}", self.port)
    }

    /// Returns the Unix socket of the API. A registry and an engine with TLS have none.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("api.sock")
    }

    /// Returns the folder with `ca.pem`, `cert.pem` and `key.pem` of a client, in the form of `DOCKER_CERT_PATH`.
    /// `None` without TLS.
    #[must_use]
    pub fn certificates(&self) -> Option<PathBuf> {
        self.tls.then(|| self.folder.join(tls::CLIENT))
    }

    /// Returns the folder of the engine. It exists until the engine has ended.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens a port of the machine's 127.0.0.1 in the network of the engine: for the engine at 127.0.0.1, for containers
    /// with a bridge at [`WORLD`], with the same number.
    ///
    /// # Errors
    ///
    /// Fails if the port is in use in the network of the engine.
    pub fn reach(&self, port: u16) -> Result<(), Error> {
        Ok(self.relay.reach(port)?)
    }

    /// Sends a request to the API of dockerd or podman, with a JSON body unless it is null, and returns the status and the body. A body that is no JSON is
    /// returned as a string. With TLS this is the only way that needs no certificate.
    ///
    /// # Errors
    ///
    /// Fails if the engine has ended or is a registry. Any status is a success.
    pub fn request(&self, method: &str, target: &str, body: Option<&Value>) -> Result<(u16, Value), Error> {
        let body = body.filter(|body| !body.is_null()).map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let answer = ask(&self.folder, method, target, "application/json", &body)?;
        let json = serde_json::from_slice(&answer.body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&answer.body).into_owned()));
        Ok((answer.status, json))
    }

    /// Ends the engine with all containers and waits until its processes and files are gone. Dropping does the same
    /// without a report.
    ///
    /// # Errors
    ///
    /// Fails if a part remains for 60 seconds.
    pub fn end(mut self) -> Result<(), Error> {
        Ok(self.supervisor.end()?)
    }

    fn import(&self, image: &str, packages: &Path) -> Result<(), Error> {
        let (name, tag) = image.split_once(':').unwrap_or((image, "latest"));
        let changes: String = image::CHANGES.iter().map(|change| format!("&changes={}", encode(change))).collect();
        let target = format!("/images/create?fromSrc=-&repo={name}&tag={tag}{changes}");
        let archive = image::archive(image, packages)?;
        let answer = ask(&self.folder, "POST", &target, "application/x-tar", &archive)?;
        let text = answer.text();
        if answer.status != 200 || text.contains("\"error\"") {
            return Err(Error::Refused { what: format!("POST {target}"), status: answer.status, text });
        }
        Ok(())
    }
}

/// Sends a request to the engine itself, past the relay.
fn ask(folder: &Path, method: &str, target: &str, kind: &str, body: &[u8]) -> io::Result<http::Answer> {
    let stream = UnixStream::connect(engine_socket(folder))?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    http::request(stream, method, target, &[("Content-Type", kind)], body)
}

/// The socket on which the engine listens. Clients use the one of the relay.
fn engine_socket(folder: &Path) -> PathBuf {
    folder.join("engine.sock")
}

/// Escapes a value of a query.
fn encode(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b':' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Returns the folder with the unpacked packages. It contains the client `usr/bin/docker`, which runs without further
/// files.
///
/// # Errors
///
/// Fails with [`Error::Missing`] without root, or if the folder does not exist.
pub fn packages() -> Result<PathBuf, Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Missing("they run as root only".to_owned()));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let root = target.join("engines/root");
    fs::canonicalize(&root)
        .map_err(|_| Error::Missing(format!("{} is missing, run `cargo xtask engines`", root.display())))
}

/// Writes the files that an engine reads, and returns its further arguments.
fn configure(kind: Kind, options: &Options, folder: &Path) -> Result<Vec<String>, Error> {
    fs::create_dir(folder.join("scripts"))?;
    for (name, text) in SCRIPTS {
        fs::write(folder.join("scripts").join(name), text)?;
    }
    match kind {
        Kind::Dockerd => {
            let config = json!({
                "userland-proxy-path": "/usr/sbin/docker-proxy",
                "log-level": "warn",
                // The usual place of its key, `/etc/docker`, is read-only in the namespace.
                "deprecated-key-path": folder.join("key.json"),
            });
            fs::write(folder.join("dockerd.json"), config.to_string())?;
            if options.tls {
                return tls::prepare(folder);
            }
        }
        Kind::Podman => configure_podman(folder)?,
        Kind::Registry => registry::configure(folder, options.login)?,
    }
    Ok(Vec::new())
}

fn configure_podman(folder: &Path) -> io::Result<()> {
    let quoted = |name: &str| format!("{:?}", folder.join(name).display().to_string());
    let (networks, data) = (quoted("networks"), quoted("data"));
    let config = format!(
        r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "/run/libpod"
init_path = "/usr/bin/tini-static"
[network]
network_backend = "netavark"
network_config_dir = {networks}
"#
    );
    fs::write(folder.join("containers.conf"), config)?;
    let config = format!("[storage]\ndriver = \"overlay\"\nrunroot = \"/run/storage\"\ngraphroot = {data}\n");
    fs::write(folder.join("storage.conf"), config)?;
    // Registries on loopback have no TLS.
    let config = "unqualified-search-registries = []\n[[registry]]\nprefix = \"127.0.0.1\"\nlocation = \"127.0.0.1\"\ninsecure = true\n";
    fs::write(folder.join("registries.conf"), config)?;
    let home = folder.join("home/.config/containers");
    fs::create_dir_all(&home)?;
    fs::write(home.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
}

/// Returns the id of a process in the network namespace of the engine if the engine answers.
fn ready(kind: Kind, folder: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(folder.join("pid")).ok()?.trim().parse().ok()?;
    let space = |process: &str| fs::metadata(format!("/proc/{process}/ns/net")).ok().map(|space| space.ino());
    if space(&pid.to_string())? == space("self")? {
        return None;
    }
    let answers = match kind {
        Kind::Registry => listens(pid, registry::PORT),
        _ => ask(folder, "GET", "/_ping", "text/plain", &[]).is_ok_and(|answer| answer.status == 200),
    };
    answers.then_some(pid)
}

/// The process of the script `supervise.sh`. The engine ends when its standard input does.
#[derive(Debug)]
struct Supervisor {
    child: Child,
    folder: PathBuf,
    /// What the engine and the scripts printed. It can be read after the folder has been removed.
    log: File,
}

impl Supervisor {
    fn start(kind: Kind, folder: &Path, packages: &Path, slot: &Slot, arguments: &[String]) -> io::Result<Self> {
        let log = File::options().read(true).append(true).create(true).open(folder.join("engine.log"))?;
        let child = Command::new("sh")
            .arg(folder.join("scripts/supervise.sh"))
            .args([folder, packages])
            .arg(kind.name())
            .args(arguments)
            // Settings of the machine, such as proxies and folders, are not for the engine.
            .env_clear()
            .env("PATH", PATH)
            .env("ENGINES_WORLD", WORLD)
            .env("ENGINES_PORTS", slot.range())
            // Keys that end the owner from a terminal do not reach it.
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()?;
        Ok(Self { child, folder: folder.to_path_buf(), log })
    }

    /// Looks at a state until it has a value.
    fn wait_until<T>(&mut self, mut state: impl FnMut() -> Option<T>) -> Result<T, Error> {
        let begun = Instant::now();
        loop {
            if let Some(value) = state() {
                return Ok(value);
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || begun.elapsed() > START {
                let what = ended.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
                return Err(Error::Start(format!("{what}; {}", self.last_lines())));
            }
            thread::sleep(POLL);
        }
    }

    fn last_lines(&mut self) -> String {
        let mut text = Vec::new();
        let _ = self.log.rewind().and_then(|()| self.log.read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("; ")
    }

    fn end(&mut self) -> io::Result<()> {
        drop(self.child.stdin.take());
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > END {
                return Err(io::Error::other(format!("the processes of {} did not end", self.folder.display())));
            }
            thread::sleep(POLL);
        }
        if self.folder.exists() {
            return Err(io::Error::other(format!("{} remains", self.folder.display())));
        }
        Ok(())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("an engine did not end: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_escaped() {
        assert_eq!(encode(r#"CMD ["sh"]"#), "CMD%20%5B%22sh%22%5D");
        assert_eq!(encode("ENV PATH=/bin:/sbin"), "ENV%20PATH%3D/bin:/sbin");
    }
}
