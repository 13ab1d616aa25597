//! Compiles untrusted components in bounded time and memory.
//!
//! There are two bounds. First, the component is read once, without storing it, and its parts are counted, because a
//! small file can contain many parts that each cost the compiler memory and time. A component within these limits can
//! still be costly, and a compiler cannot be stopped from within its process. The program that embeds this library can
//! therefore have components compiled in a separate process with limits that the kernel enforces: [`compile_apart`]
//! sets that up, and [`compile_child`] is the code of the separate process. A library should not start its embedder's
//! program on its own, so without [`compile_apart`] there are only the counts.

use std::io::{self, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, setrlimit};
use wasmparser::{
    BinaryReader, ComponentAlias, ComponentExternName, ComponentImport, ComponentType, ComponentTypeRef, CoreType,
    Parser, Payload,
};

use crate::error::clip;
use crate::plugin::engine;

/// Most levels of nested components and modules. Toolchains nest three deep, compositions of components some more.
const MAX_DEPTH: usize = 24;

/// Most components and core modules. An interpreter with its libraries has about 60.
const MAX_PARTS: usize = 500;

/// Most functions of all modules. An interpreter with its libraries has some tens of thousands. A hundred thousand
/// empty ones take seven seconds and half a GiB.
const MAX_FUNCTIONS: u64 = 100_000;

/// Most bytes of one function. The largest ones, the main loops of interpreters, have some hundred thousand.
const MAX_FUNCTION: usize = 2 << 20;

/// Most bytes of all functions. A component of 40 MB has about 30 MB of them; the rest is data.
const MAX_CODE: u64 = 64 << 20;

/// Most local variables of all functions. Compilers generate about ten for each function.
const MAX_LOCALS: u64 = 10_000_000;

/// Most types of all parts, of any kind.
const MAX_TYPES: u64 = 100_000;

/// Most levels of nested types of components and instances. Interfaces nest three deep. The compiler reads them
/// recursively, with some KiB of stack for each level.
const MAX_TYPE_DEPTH: usize = 50;

/// Most bytes of the types of components. The interfaces of a provider need some ten thousand.
const MAX_TYPE_BYTES: u64 = 2 << 20;

/// Most imports of all parts. A library that is linked at run time imports each symbol that it uses.
const MAX_IMPORTS: u64 = 200_000;

/// Most other numbered items: exports, globals, tables, memories, segments, instances, aliases.
const MAX_ITEMS: u64 = 1_000_000;

/// Limit of the computing time of the separate process, in seconds, for all threads together. A component of 1 MiB
/// takes less than one second, one of 40 MB about forty.
pub(crate) const COMPUTE_SECONDS: u64 = 300;

/// Limit of the writable memory of the separate process, in bytes. A component of 40 MB takes about 1.5 GiB.
pub(crate) const MEMORY_BYTES: u64 = 4 << 30;

/// Most bytes of code and of error messages that are read from the separate process.
const MAX_OUTPUT: u64 = 2 << 30;
const MAX_MESSAGE: usize = 4 << 10;

/// The parts of a component that have been counted so far.
#[derive(Default)]
struct Counts {
    parts: usize,
    functions: u64,
    code: u64,
    locals: u64,
    types: u64,
    type_bytes: u64,
    imports: u64,
    items: u64,
}

/// Checks the counts of a component. Fails with a text that names the exceeded limit. Accepts malformed components,
/// because the compiler reports these better.
pub(crate) fn check(wasm: &[u8]) -> Result<(), String> {
    let mut counts = Counts::default();
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        let Ok(payload) = payload else { return Ok(()) };
        match &payload {
            Payload::Version { .. } => {
                depth += 1;
                counts.parts += 1;
            }
            Payload::End(_) => depth -= 1,
            Payload::CodeSectionEntry(body) => {
                let size = body.range().len();
                if size > MAX_FUNCTION {
                    return Err(format!("one of its functions has {size} bytes; the limit is {MAX_FUNCTION}"));
                }
                counts.functions += 1;
                counts.code += size as u64;
                if let Ok(locals) = body.get_locals_reader() {
                    let count = |local: wasmparser::Result<(u32, _)>| local.map_or(0, |(count, _)| u64::from(count));
                    counts.locals += locals.into_iter().map(count).sum::<u64>();
                }
            }
            Payload::TypeSection(section) => counts.types += u64::from(section.count()),
            Payload::CoreTypeSection(section) => counts.types += u64::from(section.count()),
            Payload::ComponentTypeSection(section) => {
                // The types contain lists of further types. Their size in bytes bounds these too, without reading them.
                counts.types += u64::from(section.count());
                counts.type_bytes += section.range().len() as u64;
                if wasm.get(section.range()).is_some_and(|section| is_deep(section).unwrap_or(false)) {
                    return Err(format!(
                        "its types are nested more than {MAX_TYPE_DEPTH} levels deep, which is the limit"
                    ));
                }
            }
            Payload::ImportSection(section) => counts.imports += u64::from(section.count()),
            Payload::ComponentImportSection(section) => counts.imports += u64::from(section.count()),
            Payload::FunctionSection(section) => counts.items += u64::from(section.count()),
            Payload::TableSection(section) => counts.items += u64::from(section.count()),
            Payload::MemorySection(section) => counts.items += u64::from(section.count()),
            Payload::TagSection(section) => counts.items += u64::from(section.count()),
            Payload::GlobalSection(section) => counts.items += u64::from(section.count()),
            Payload::ExportSection(section) => counts.items += u64::from(section.count()),
            Payload::ElementSection(section) => counts.items += u64::from(section.count()),
            Payload::DataSection(section) => counts.items += u64::from(section.count()),
            Payload::InstanceSection(section) => counts.items += u64::from(section.count()),
            Payload::ComponentInstanceSection(section) => counts.items += u64::from(section.count()),
            Payload::ComponentAliasSection(section) => counts.items += u64::from(section.count()),
            Payload::ComponentCanonicalSection(section) => counts.items += u64::from(section.count()),
            Payload::ComponentExportSection(section) => counts.items += u64::from(section.count()),
            _ => {}
        }
        counts.within(depth)?;
    }
    Ok(())
}

/// Returns whether types of components are nested too deeply in a type section. Reads them without recursion.
fn is_deep(section: &[u8]) -> wasmparser::Result<bool> {
    let mut reader = BinaryReader::new(section, 0);
    // The number of items that are still to be read at each level: types at the first level, declarations at the
    // others.
    let mut left = vec![reader.read_var_u32()?];
    while let Some(count) = left.last_mut() {
        if *count == 0 {
            left.pop();
            continue;
        }
        *count -= 1;
        match if left.len() == 1 { 0x01 } else { reader.read_u8()? } {
            0x00 => {
                reader.read::<CoreType>()?;
            }
            0x01 => {
                let mut inner = reader.clone();
                if matches!(inner.read_u8()?, 0x41 | 0x42) {
                    left.push(inner.read_var_u32()?);
                    reader = inner;
                } else {
                    reader.read::<ComponentType>()?;
                }
            }
            0x02 => {
                reader.read::<ComponentAlias>()?;
            }
            0x03 => {
                reader.read::<ComponentImport>()?;
            }
            0x04 => {
                reader.read::<ComponentExternName>()?;
                reader.read::<ComponentTypeRef>()?;
            }
            // Malformed.
            _ => return Ok(false),
        }
        if left.len() > MAX_TYPE_DEPTH {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Counts {
    fn within(&self, depth: usize) -> Result<(), String> {
        let most = [
            ("nested components and modules", depth as u64, MAX_DEPTH as u64),
            ("components and modules", self.parts as u64, MAX_PARTS as u64),
            ("functions", self.functions, MAX_FUNCTIONS),
            ("bytes of functions", self.code, MAX_CODE),
            ("local variables", self.locals, MAX_LOCALS),
            ("types", self.types, MAX_TYPES),
            ("bytes of types", self.type_bytes, MAX_TYPE_BYTES),
            ("imports", self.imports, MAX_IMPORTS),
            ("exports, globals, segments and similar items", self.items, MAX_ITEMS),
        ];
        match most.into_iter().find(|(_, count, most)| count > most) {
            Some((what, _, most)) => Err(format!("it has more than {most} {what}, which is the limit")),
            None => Ok(()),
        }
    }
}

/// The variable that tells the separate process how the engine of this one allocates memory, because the code depends
/// on it.
const ALLOCATION: &str = "SANDBOX_HOST_ALLOCATION";

/// Creates the command that starts the separate process.
type Child = Box<dyn Fn() -> Command + Send + Sync>;

static CHILD: OnceLock<Child> = OnceLock::new();

/// Has all further components compiled in a separate process with limits on its memory and computing time. `command`
/// creates the command that starts that process, which has to call [`compile_child`]. Returns false if this function
/// was called before; the first command stays.
pub fn compile_apart(command: impl Fn() -> Command + Send + Sync + 'static) -> bool {
    CHILD.set(Box::new(command)).is_ok()
}

/// Compiles a component in the process that [`compile_apart`] starts. Reads the component from standard input and
/// writes the code to standard output, or the cause of a failure to standard error. Returns the exit code for the
/// process. Call it before the process has other threads.
pub fn compile_child() -> i32 {
    compile_within(MEMORY_BYTES, COMPUTE_SECONDS)
}

fn compile_within(memory: u64, seconds: u64) -> i32 {
    let result = || -> Result<(), String> {
        let limit = |resource, most| {
            let limit = Rlimit { current: Some(most), maximum: Some(most) };
            setrlimit(resource, limit).map_err(|error| format!("the limits for compiling could not be set: {error}"))
        };
        // Limits the writable memory and not the address space, because the engine reserves much address space without
        // using it.
        limit(Resource::Data, memory)?;
        limit(Resource::Cpu, seconds)?;
        // A core dump would contain the component.
        limit(Resource::Core, 0)?;
        let mut wasm = Vec::new();
        io::stdin().lock().read_to_end(&mut wasm).map_err(|error| error.to_string())?;
        let pooled = std::env::var(ALLOCATION).is_ok_and(|how| how == "pooled");
        let code = engine::compiler(pooled)
            .and_then(|engine| engine.precompile_component(&wasm))
            .map_err(|error| format!("{error:#}"))?;
        let mut output = io::stdout().lock();
        output.write_all(&code).and_then(|()| output.flush()).map_err(|error| error.to_string())
    };
    match result() {
        Ok(()) => 0,
        Err(why) => {
            let _ = io::stderr().write_all(why.as_bytes());
            1
        }
    }
}

/// Compiles a component in a separate process if that was set up, or else in this process.
pub(crate) fn compile(shared: &engine::Shared, wasm: &[u8]) -> Result<Vec<u8>, String> {
    match CHILD.get() {
        Some(command) => {
            let mut command = command();
            command.env(ALLOCATION, if shared.pooled { "pooled" } else { "mapped" });
            apart(command, wasm)
        }
        None => shared.engine.precompile_component(wasm).map_err(|error| format!("{error:#}")),
    }
}

fn apart(mut command: Command, wasm: &[u8]) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("the process that compiles it failed: {error}");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut code, mut said) = (Vec::new(), Vec::new());
    let read = std::thread::scope(|scope| {
        // A process that fails early does not read all of its input. The failed write is ignored, because standard
        // error has the cause.
        scope.spawn(|| input.is_some_and(|mut input| input.write_all(wasm).is_ok()));
        scope.spawn(|| {
            errors.map_or(Ok(0), |mut errors| {
                let read = errors.by_ref().take(MAX_MESSAGE as u64).read_to_end(&mut said);
                // The rest is read too, so that the process does not block on a full pipe.
                io::copy(&mut errors, &mut io::sink()).and(read)
            })
        });
        output.map_or(Ok(0), |output| output.take(MAX_OUTPUT).read_to_end(&mut code))
    });
    let status = child.wait().map_err(failed)?;
    read.map_err(failed)?;
    if status.success() {
        return Ok(code);
    }
    Err(why(status, &String::from_utf8_lossy(&said)))
}

/// Describes why the separate process failed.
fn why(status: ExitStatus, said: &str) -> String {
    use std::os::unix::process::ExitStatusExt as _;

    match status.signal() {
        Some(libc::SIGXCPU | libc::SIGKILL) => {
            format!("compiling it was stopped; the limit is {COMPUTE_SECONDS} seconds of CPU time")
        }
        // A program that gets no memory aborts.
        Some(libc::SIGABRT) => {
            let said = clip(said.trim().to_owned(), MAX_MESSAGE);
            format!("compiling it failed; it may need more than {} GiB of memory ({said})", MEMORY_BYTES >> 30)
        }
        Some(signal) => format!("the process that compiles it was killed by signal {signal}"),
        None if said.is_empty() => format!("compiling it failed ({status})"),
        None => clip(said.trim().to_owned(), MAX_MESSAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes a number as LEB128.
    fn leb(mut n: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out
    }

    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        [&[id], &*leb(content.len()), content].concat()
    }

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    /// Returns nested components.
    fn nested(depth: usize) -> Vec<u8> {
        let mut bytes = COMPONENT.to_vec();
        for _ in 1..depth {
            bytes = [COMPONENT, &section(4, &bytes)].concat();
        }
        bytes
    }

    /// Returns a component with one module that has this many functions, each with this body.
    fn functions(count: usize, body: &[u8]) -> Vec<u8> {
        let body = [&leb(body.len()), body].concat();
        let types = section(1, b"\x01\x60\0\0");
        let declared = section(3, &[leb(count), vec![0; count]].concat());
        let code = section(10, &[leb(count), body.repeat(count)].concat());
        [COMPONENT, &section(1, &[MODULE, &types, &declared, &code].concat())].concat()
    }

    #[test]
    fn what_costs_much_is_counted() {
        let empty = b"\0\x0b";
        let types = |count: usize| [COMPONENT, &section(7, &[leb(count), vec![0x7f; count]].concat())].concat();
        let imports = |count: usize| {
            let import = b"\0\0\0\0";
            let import = section(2, &[leb(count), import.repeat(count)].concat());
            [COMPONENT, &section(1, &[MODULE, &section(1, b"\x01\x60\0\0"), &import].concat())].concat()
        };
        let deep = |kind: u8, depth: usize| {
            [COMPONENT, &section(7, &[vec![1], [kind, 1, 1].repeat(depth), vec![kind, 0]].concat())].concat()
        };
        let modules = |count: usize| [COMPONENT.to_vec(), section(1, MODULE).repeat(count)].concat();
        for (bytes, what) in [
            (nested(MAX_DEPTH + 1), "nested components and modules"),
            (nested(10_000), "nested components and modules"),
            (modules(MAX_PARTS), "components and modules"),
            (functions(MAX_FUNCTIONS as usize + 1, empty), "functions"),
            (functions(300, b"\x01\xd0\x86\x03\x7f\x0b"), "local variables"),
            (functions(1, &vec![0; MAX_FUNCTION + 1]), "one of its functions"),
            (functions(MAX_CODE as usize / MAX_FUNCTION + 1, &vec![0; MAX_FUNCTION]), "bytes of functions"),
            (types(MAX_TYPES as usize + 1), "types"),
            ([COMPONENT, &section(7, &vec![0; MAX_TYPE_BYTES as usize + 1])].concat(), "bytes of types"),
            (imports(MAX_IMPORTS as usize + 1), "imports"),
            (deep(0x41, 100_000), "deep"),
            (deep(0x42, MAX_TYPE_DEPTH), "deep"),
        ] {
            let why = check(&bytes).expect_err(what);
            assert!(why.contains(what), "{what}: {why}");
        }
        // A component with ordinary types.
        let typed = wat::parse_str(
            "(component (type (func)) (type (component
               (core type (module)) (alias outer 1 0 (type))
               (import \"a\" (instance (type (func (param \"p\" string))) (export \"h\" (func (type 0)))))
               (type (instance (export \"x\" (func)))) (export \"e\" (func)))))",
        );
        let typed = typed.unwrap();
        check(&typed).unwrap();
        // All of its type sections are read without an error.
        for payload in Parser::new(0).parse_all(&typed) {
            if let Payload::ComponentTypeSection(section) = payload.unwrap() {
                assert!(!is_deep(&typed[section.range()]).unwrap());
            }
        }
        check(&deep(0x42, 20)).unwrap();
        for bytes in [nested(8), modules(100), functions(60_000, empty), types(20_000), imports(50_000)] {
            check(&bytes).unwrap();
        }
        assert!(is_deep(b"\x01\x7f").is_ok_and(|deep| !deep) && is_deep(b"\x02\x7f").is_err());
        check(b"\0asm\x0d\0\x01\0\x07\xff").unwrap();
    }

    #[test]
    fn what_the_other_process_says_is_passed_on() {
        let run = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            // More input than a pipe can buffer, for a process that does not read it.
            apart(command, &vec![b'x'; 1 << 20])
        };
        assert_eq!(run("cat").unwrap().len(), 1 << 20);
        assert_eq!(run("echo it is wrong >&2; exit 1").unwrap_err(), "it is wrong");
        let long = run("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1").unwrap_err();
        assert!(long.len() <= MAX_MESSAGE + 10, "{}", long.len());
        assert!(run("kill -XCPU $$").unwrap_err().contains("CPU time"));
        assert!(run("kill -ABRT $$").unwrap_err().contains("4 GiB of memory"));
        assert!(run("kill -SEGV $$").unwrap_err().contains("signal 11"));
        assert!(apart(Command::new("/does/not/exist"), b"").unwrap_err().contains("the process that compiles it"));
    }
}
