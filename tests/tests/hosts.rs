//! Runs the unmodified components in stock hosts: wasmtime from Python, Rust, C, C++ and Go, and JavaScript made by jco in
//! Node and Deno. All of them speak HTTP/1.1 only. So they connect to Modal through `sandbox-host gateway` and hold only the
//! token of the gateway. They connect to Docker without it.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::OnceLock,
};

use engines::{Engine, Error, Kind, Options};
use system_tests::{Emulator, beside_packages, c_api, component, deno, go, node, node_with_jspi, python};

/// A running gateway in front of an emulator, with the environment variables that it prints for a host.
struct Gateway {
    child: Child,
    /// Kept open, because the gateway prints more than is read here and would end when nothing reads its output.
    _output: BufReader<ChildStdout>,
    env: Vec<(String, String)>,
}

impl Gateway {
    fn start(emulator: &Emulator) -> Gateway {
        let mut command = emulator.sandbox();
        command.args(["--plugin".as_ref(), component().as_os_str()]).args(["gateway", "--exit-with-stdin"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cannot start the gateway");
        let mut output = BufReader::new(child.stdout.take().expect("the stream is not piped"));
        let lines = output.by_ref().lines().map(|line| line.expect("not UTF-8"));
        // The first four lines: the address, the wire format, and the two parts of the token.
        let env =
            lines.take(4).map(|line| line.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).expect(&line));
        Gateway { env: env.collect(), child, _output: output }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A stock host. The number counts the checks that it makes with the provider for Modal. One of them needs the gateway.
struct Host {
    name: &'static str,
    checks: usize,
    /// Builds the program, if that is needed. Returns `None` if the machine cannot run it, which fails in CI.
    command: fn() -> Option<Command>,
}

const PYTHON: Host = Host {
    name: "wasmtime for Python",
    checks: 9,
    command: || {
        let mut command = Command::new(python());
        command.arg(sources().join("host.py"));
        Some(command)
    },
};

const NODE: Host = Host {
    name: "jco in Node",
    checks: 9,
    command: || {
        let mut command = node("hosts", "host.mjs", &[]);
        command.env("TRANSLATED", translated("node"));
        Some(command)
    },
};

const NODE_WITH_JSPI: Host = Host {
    name: "jco in Node with JSPI",
    checks: 10,
    command: || {
        let mut command = Command::new(node_with_jspi());
        command.args(["--experimental-wasm-jspi", "--preserve-symlinks", "--preserve-symlinks-main"]);
        command.arg(beside_packages("hosts").join("host-jspi.mjs")).env("TRANSLATED", translated("jspi"));
        Some(command)
    },
};

const DENO: Host = Host {
    name: "jco in Deno",
    checks: 10,
    command: || {
        let mut command = Command::new(deno());
        command
            .args(["run", "--allow-all", "--no-lock", "--no-remote"])
            .arg(beside_packages("hosts").join("host-jspi.mjs"));
        command.env("TRANSLATED", translated("deno")).env("DENO_NO_UPDATE_CHECK", "1");
        Some(command)
    },
};

const RUST: Host =
    Host { name: "raw wasmtime in Rust", checks: 9, command: || Some(Command::new(env!("CARGO_BIN_EXE_stock-host"))) };

const C: Host = Host {
    name: "wasmtime's C API from C",
    checks: 9,
    command: || {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        Some(Command::new(BUILT.get_or_init(|| compile("cc", &["-std=c11"], &["host.c", "provider.c"], "host-c"))))
    },
};

const CPP: Host = Host {
    name: "wasmtime's C API from C++",
    checks: 9,
    command: || {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        Some(Command::new(BUILT.get_or_init(|| compile("c++", &["-std=c++17"], &["host.cpp"], "host-cpp"))))
    },
};

const GO: Host = Host {
    name: "wasmtime's C API from Go",
    checks: 9,
    command: || {
        static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
        BUILT.get_or_init(build_go).as_ref().map(Command::new)
    },
};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hosts")
}

/// Returns the folder for the programs that are built here.
fn programs() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hosts");
    std::fs::create_dir_all(&folder).expect("cannot create the folder");
    folder
}

/// Returns the folder for a translation, next to the npm packages, where the translation finds the WASI implementation.
fn translated(name: &str) -> PathBuf {
    system_tests::npm().join("translated").join(name)
}

/// Returns the arguments with which a compiler finds wasmtime's C API, and with which the program finds it.
fn linking() -> [String; 3] {
    let library = c_api().join("lib").canonicalize().expect("there is no library");
    [format!("-L{}", library.display()), "-lwasmtime".into(), format!("-Wl,-rpath,{}", library.display())]
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Compiles a program of `tests/hosts/c`, in which a warning is an error.
fn compile(compiler: &str, options: &[&str], files: &[&str], name: &str) -> PathBuf {
    let program = programs().join(name);
    let files = files.iter().map(|file| sources().join("c").join(file));
    let mut command = Command::new(compiler);
    command.args(options).args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program);
    command.arg("-isystem").arg(c_api().join("include")).args(files).args(linking());
    succeed(&mut command);
    program
}

fn build_go() -> Option<PathBuf> {
    let program = programs().join("host-go");
    let mut command = Command::new(go()?);
    command.args(["build", "-o"]).arg(&program).arg(".").current_dir(sources().join("go"));
    let include = c_api().join("include").canonicalize().expect("there are no headers");
    command.env("CGO_CFLAGS", format!("-O1 -isystem {}", include.display())).env("CGO_LDFLAGS", linking().join(" "));
    // It depends on no other module, and it writes only into this folder.
    command.env("GOPROXY", "off").env("GOCACHE", programs().join("go-cache")).env("GOPATH", programs().join("go-path"));
    succeed(command.env("CGO_ENABLED", "1"));
    Some(program)
}

impl Host {
    /// Runs the host and expects that this number of checks passes.
    fn check(&self, component: &Path, image: &str, variables: &[(String, String)], checks: usize) {
        let Some(mut command) = (self.command)() else {
            println!("skipped: {}", self.name);
            return;
        };
        for name in ["MODAL_SERVER_URL", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_GRPC_WIRE", "DOCKER_HOST"] {
            command.env_remove(name);
        }
        command.arg(component).arg(image).envs(variables.iter().cloned());
        let output = command.output().unwrap_or_else(|error| panic!("cannot start {}: {error}", self.name));
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("{}\n{text}", self.name);
        let expected = format!("{checks} passed, 0 failed");
        assert!(output.status.success() && text.contains(&expected), "{}, {}: {text}", self.name, output.status);
    }

    /// Runs the host with the provider for Modal, behind a gateway.
    fn check_modal(&self) {
        let emulator = Emulator::start();
        let gateway = Gateway::start(&emulator);
        self.check(&component(), "debian", &gateway.env, self.checks);
    }
}

/// The code on the pages of `docs/embedding` is that of the programs.
#[test]
fn the_pages_quote_the_programs() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/embedding");
    let read =
        |path: PathBuf| std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // The tests of the packages for Python and Node run the programs of their pages.
    for (page, language, programs) in [
        ("stock-rust.md", "rust,ignore", &["rust/main.rs"][..]),
        ("stock-python.md", "python", &["host.py"]),
        ("stock-javascript.md", "js", &["host-jspi.mjs"]),
        ("stock-c.md", "c", &["c/host.c"]),
        ("stock-c.md", "cpp", &["c/host.cpp"]),
        ("stock-go.md", "go", &["go/main.go"]),
        ("c.md", "c", &["../../host/c/examples/sandbox.c"]),
    ] {
        let text = read(pages.join(page));
        let programs: Vec<_> = programs.iter().map(|program| read(sources().join(program))).collect();
        let fence = format!("```{language}\n");
        let blocks: Vec<_> = text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(!blocks.is_empty(), "{page} has no code in {language}");
        for block in blocks {
            assert!(
                programs.iter().any(|program| program.contains(block)),
                "{page} differs from the program:\n{block}"
            );
        }
    }
}

#[test]
fn the_component_runs_in_python_with_wasmtime() {
    PYTHON.check_modal();
}

#[test]
fn the_component_runs_in_node_with_jco() {
    NODE.check_modal();
}

#[test]
fn the_component_runs_in_node_on_one_thread() {
    NODE_WITH_JSPI.check_modal();
}

#[test]
fn the_component_runs_in_deno() {
    DENO.check_modal();
}

#[test]
fn the_component_runs_in_rust_on_raw_wasmtime() {
    RUST.check_modal();
}

#[test]
fn the_component_runs_in_c_with_wasmtime() {
    C.check_modal();
}

#[test]
fn the_component_runs_in_cpp_with_wasmtime() {
    CPP.check_modal();
}

#[test]
fn the_component_runs_in_go_with_wasmtime() {
    GO.check_modal();
}

/// A host that speaks only HTTP/1.1 loses the trailers of gRPC. The error says what is missing.
#[test]
fn without_the_gateway_the_error_names_it() {
    let emulator = Emulator::start();
    let address = emulator.url().to_owned();
    let token = ["MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"].map(|name| (name, "ak-test"));
    for host in [PYTHON, NODE] {
        let mut command = (host.command)().expect("this host needs nothing else");
        command.arg(component()).arg("debian").env_remove("MODAL_GRPC_WIRE").env_remove("DOCKER_HOST");
        let output = command.env("MODAL_SERVER_URL", &address).envs(token).output().expect("cannot start the host");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success() && text.contains("`sandbox-host gateway`"), "{}: {text}", host.name);
    }
}

/// One engine for all hosts, because an engine takes seconds to start.
#[test]
fn docker_needs_no_gateway() {
    let engine = match Engine::start(Kind::Dockerd, &Options::default()) {
        Ok(engine) => engine,
        Err(error @ Error::Missing(_)) if std::env::var_os("CI").is_none() => {
            println!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let component = component().with_file_name("docker-provider.wasm");
    let variables = [("DOCKER_HOST".to_owned(), engine.host())];
    for host in [PYTHON, NODE, NODE_WITH_JSPI, DENO, RUST, C, CPP, GO] {
        // One check is about the token of the gateway.
        host.check(&component, "tools:latest", &variables, host.checks - 1);
    }
    engine.end().expect("the engine did not end");
}
