//! `cargo xtask c` and the test step `c`: builds the C library into `target/dist/c`, runs its checks with and without the
//! address sanitizer, and runs the same program in four languages.

use std::{
    cell::OnceCell,
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    build,
    emulator::Emulator,
    go, progress,
    report::Report,
    tools::{self, run},
};

const LIBRARY: &str = "libsandbox_host.so";

/// Most lines of an example program.
const MOST_LINES: usize = 60;

/// Longest run of a program, in seconds. The checks have shorter limits of their own.
const PATIENCE: &str = "600";

/// What the example programs print. `LANGUAGE` stands for the name of theirs.
const EXPECTED: &str = "line 1\nline 2\nline 3\nexit code 7\nhello from LANGUAGE\nterminated\n";

/// The example programs: the name of the check, the file, and the language in the output.
const EXAMPLES: [(&str, &str, &str); 4] = [
    ("example_in_c", "sandbox.c", "C"),
    ("example_in_cpp", "sandbox.cpp", "C++"),
    ("example_in_go", "sandbox.go", "Go"),
    ("example_in_python", "sandbox_ctypes.py", "Python"),
];

/// The ends of the Python interpreter in `shutdown.py`: the name of the check, the argument, and the output.
const ENDS: [(&str, &str, &str); 4] = [
    ("python_closes_the_host_with_calls_under_way", "closed", "closed 1 callbacks 20 freed True\n"),
    ("python_ends_while_threads_wait", "waited-for", "threads 20\n"),
    ("python_ends_without_closing", "left", "calls 20\n"),
    ("python_callback_raises", "raised", "reported ValueError\nclosed 1 callbacks 1 freed True\n"),
];

fn tree() -> PathBuf {
    tools::root().join("host/c")
}

/// Builds the library and copies it and its header into `target/dist/c`, whose path it returns.
///
/// # Errors
///
/// Fails if the library cannot be built.
pub fn library() -> Result<PathBuf> {
    tools::prepare()?;
    progress::cargo("C library", "build", &["--package", "sandbox-host-c", "--release"], &[])?;
    let folder = tools::target().join("dist/c");
    fs::create_dir_all(&folder)?;
    build::replace(&tools::target().join("release").join(LIBRARY), &folder.join(LIBRARY))?;
    build::replace(&tree().join("include/sandbox_host.h"), &folder.join("sandbox_host.h"))?;
    Ok(folder)
}

/// The checks of one run, of which the filter selects some.
struct Checks<'a> {
    report: &'a mut Report,
    filter: Option<&'a str>,
    failures: usize,
}

impl Checks<'_> {
    fn wants(&self, name: &str) -> bool {
        self.filter.is_none_or(|text| name.contains(text))
    }

    /// Runs a check if the filter selects it, and once more if it fails.
    fn check(&mut self, name: &str, check: impl FnMut() -> Result<()>) {
        if self.wants(name) {
            self.failures += usize::from(!self.report.attempt(name, check));
        }
    }
}

/// Builds the library and runs the checks whose names contain the filter.
///
/// # Errors
///
/// Fails if a part cannot be built or a check fails twice.
pub fn test(report: &mut Report, filter: Option<&str>) -> Result<()> {
    let folder = library()?;
    let dist = build::dist()?;
    let component = |provider| dist.program.with_file_name(build::file_name(provider));
    let kit = Kit { folder, built: tools::target().join("c") };
    fs::create_dir_all(&kit.built)?;
    let mut checks = Checks { report, filter, failures: 0 };
    checks.check("header_has_the_exported_functions", || kit.header_is_complete());
    for (prefix, flags) in [("plain", &[][..]), ("asan", &["-fsanitize=address"][..])] {
        kit.run_checks(&mut checks, prefix, flags, &component("memory"))?;
    }
    for (name, end, output) in ENDS {
        checks.check(name, || {
            let script = tree().join("tests/shutdown.py");
            let mut command = kit.command("python3");
            command.arg(script).arg(component("memory")).arg(end);
            expect(&mut command, output)
        });
    }
    let mut command = Emulator::command(&dist.program);
    command.stderr(Stdio::null());
    let emulator = Emulator::start(command)?;
    for (name, file, language) in EXAMPLES {
        checks.check(name, || {
            let file = tree().join("examples").join(file);
            let lines = fs::read_to_string(&file)?.lines().count();
            ensure!(lines <= MOST_LINES, "it has {lines} lines, and {MOST_LINES} are permitted");
            let Some(mut command) = kit.example(&file)? else { return Ok(()) };
            command.arg(component("modal")).env("MODAL_SERVER_URL", emulator.url());
            command.env("MODAL_TOKEN_ID", "ak-test").env("MODAL_TOKEN_SECRET", "as-test");
            command.env("MODAL_CONFIG_PATH", "/dev/null");
            expect(&mut command, &EXPECTED.replace("LANGUAGE", language))
        });
    }
    let failures = checks.failures;
    emulator.stop()?;
    ensure!(failures == 0, "{failures} checks failed twice");
    Ok(())
}

/// The library, and the folder of the programs that use it.
struct Kit {
    folder: PathBuf,
    built: PathBuf,
}

impl Kit {
    /// Returns a command that finds the library and ends after some time.
    fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE).arg(program.into()).env("LD_LIBRARY_PATH", &self.folder).stdin(Stdio::null());
        command
    }

    /// Compares the functions of the header with the exported symbols.
    fn header_is_complete(&self) -> Result<()> {
        let header = fs::read_to_string(self.folder.join("sandbox_host.h"))?;
        let output = Command::new("nm").args(["-D", "--defined-only"]).arg(self.folder.join(LIBRARY)).output();
        let output = output.context("could not start nm")?;
        let symbols = String::from_utf8_lossy(&output.stdout);
        let exported: BTreeSet<_> = symbols.lines().filter_map(|line| line.split(' ').nth(2)).collect();
        let declared = functions(&header);
        ensure!(exported == declared, "the library has {exported:?}, the header has {declared:?}");
        Ok(())
    }

    /// Compiles the checks with these flags, runs them, and records the result of each.
    fn run_checks(&self, checks: &mut Checks, prefix: &str, flags: &[&str], component: &Path) -> Result<()> {
        let source = fs::read_to_string(tree().join("tests/checks.c"))?;
        let names: Vec<_> =
            source.lines().filter_map(|line| line.trim().strip_prefix("CHECK(")?.split(')').next()).collect();
        ensure!(names.len() >= 25, "checks.c has {} checks", names.len());
        let (whole, full) = (format!("{prefix}_ends_well"), |name: &str| format!("{prefix}_{name}"));
        if !checks.wants(&whole) && !names.iter().any(|name| checks.wants(&full(name))) {
            return Ok(());
        }
        let objects = [("gcc", "checks.c", "-std=gnu11"), ("g++", "callback.cpp", "-std=c++17")].map(
            |(compiler, file, standard)| {
                let object = self.built.join(format!("{prefix}-{file}.o"));
                let mut command = self.compiler(compiler, &[standard, "-g", "-c"]);
                command.args(flags).arg(tree().join("tests").join(file)).arg("-o").arg(&object);
                run(&mut command).map(|()| object)
            },
        );
        let program = self.built.join(format!("{prefix}-checks"));
        let mut command = self.compiler("g++", flags);
        for object in objects {
            command.arg(object?);
        }
        run(command.args(["-pthread", "-lsandbox_host", "-o"]).arg(&program))?;
        // One run gives the results of all checks. Those that failed take their second result from a second run.
        let output = || self.command(&program).arg(component).output();
        let (first, second) = (output()?, OnceCell::new());
        let mut record = |name: &str, result: &dyn Fn(&Output) -> Result<()>| {
            if checks.wants(name) {
                let again = || match second.get_or_init(output) {
                    Ok(output) => result(output),
                    Err(error) => bail!("cannot start the checks: {error}"),
                };
                checks.failures += usize::from(!checks.report.attempted(name, result(&first), again));
            }
        };
        for name in names {
            record(&full(name), &|output| {
                let text = String::from_utf8_lossy(&output.stdout);
                let failed = format!("failed {name}: ");
                if let Some(why) = text.lines().find_map(|line| line.strip_prefix(&failed)) {
                    bail!("{why}");
                }
                ensure!(text.lines().any(|line| line.strip_prefix("ok ") == Some(name)), "it did not run to its end");
                Ok(())
            });
        }
        // Also fails for leaks, which the sanitizer reports after the last check.
        record(&whole, &|output| {
            let (status, errors) = (output.status, String::from_utf8_lossy(&output.stderr));
            ensure!(status.success() && errors.is_empty(), "{status}\n{errors}");
            Ok(())
        });
        Ok(())
    }

    fn compiler(&self, compiler: &str, flags: &[&str]) -> Command {
        let mut command = Command::new(compiler);
        command.args(["-Wall", "-Wextra", "-Werror", "-O1", "-I"]).arg(&self.folder).arg("-L").arg(&self.folder);
        command.args(flags);
        command
    }

    /// Compiles an example if necessary, and returns the command that runs it. Returns `None` after a printed reason if
    /// this machine cannot have its compiler.
    fn example(&self, file: &Path) -> Result<Option<Command>> {
        let kind = file.extension().unwrap_or_default().to_string_lossy();
        let program = self.built.join(format!("example-{kind}"));
        let mut command = match &*kind {
            "py" => {
                let mut command = self.command("python3");
                command.arg(file);
                return Ok(Some(command));
            }
            "go" => {
                let Some(go) = go::go()? else { return Ok(None) };
                let (include, link) = (format!("-I{}", self.folder.display()), format!("-L{}", self.folder.display()));
                let mut command = Command::new(go);
                command
                    .args(["build", "-o"])
                    .arg(&program)
                    .arg(file)
                    .env("CGO_CFLAGS", include)
                    .env("CGO_LDFLAGS", link);
                command.env("GOCACHE", self.built.join("go-cache")).env("GOPATH", self.built.join("go"));
                command.env("GO111MODULE", "off").env("CGO_ENABLED", "1");
                command
            }
            kind => {
                let (compiler, standard) = if kind == "c" { ("gcc", "-std=c11") } else { ("g++", "-std=c++17") };
                let mut command = self.compiler(compiler, &[standard]);
                command.arg(file).args(["-pthread", "-lsandbox_host", "-o"]).arg(&program);
                command
            }
        };
        run(&mut command)?;
        Ok(Some(self.command(program)))
    }
}

/// Returns the functions that a header declares.
fn functions(header: &str) -> BTreeSet<&str> {
    let code = header.split("/*").map(|part| part.split_once("*/").map_or(part, |(_, code)| code));
    let words = code.flat_map(|code| code.split('(').filter_map(|before| before.rsplit([' ', '*', '\n']).next()));
    words.filter(|word| word.starts_with("sandbox_") && !word.ends_with([';', ')'])).collect()
}

/// Runs a command and compares its output.
fn expect(command: &mut Command, expected: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("could not start `{}`", tools::line(command)))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(
        output.status.success() && stdout == expected && stderr.is_empty(),
        "{}; it printed {stdout:?} instead of {expected:?}; {stderr}",
        output.status
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_read_from_a_header() {
        let header = "/* sandbox_no(1) */\ntypedef void (*sandbox_callback)(sandbox_call call);\n\
            /* text */ const char *sandbox_a(void);\nint sandbox_b(sandbox_host host,\n    size_t size);\n";
        assert_eq!(functions(header), BTreeSet::from(["sandbox_a", "sandbox_b"]));
    }
}
