//! Commands: run to the end, or started with streams.

use sandbox_host::metrics::count_retries;
use sandbox_host::types::OutputLimits;
use sandbox_host::{Process, Signal};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::base::{Answer, Context, Place};
use crate::fault::Fault;
use crate::objects::{ProcessObject, Use};
use crate::reply::Reply;
use crate::shapes::basic::Shape;
use crate::shapes::command::{Command, Keep, SignalName};
use crate::shapes::results::{OutputStream, Verdict};

methods! {
    "sandbox.run" => run with data,
    "process.start" => start,
    "process.attach" => attach,
    "process.read" => read,
    "process.write" => write with data,
    "process.close_input" => close_input,
    "process.wait" => wait,
    "process.signal" => signal,
    "process.kill" => kill,
    "process.resize" => resize,
    "process.detach" => detach,
    "exec.signal" => signal_exec,
}

/// Default limit of each stream of `sandbox.run`, in bytes.
const OUTPUT: u64 = 10 << 20;

/// Default and largest size of a piece of output, in bytes.
const PIECE: usize = 64 << 10;
const LARGEST_PIECE: usize = 64 << 20;

in_sandbox! {
    Run {
        command: Command,
        #[serde(default = "output")]
        stdout_max: u64,
        #[serde(default = "output")]
        stderr_max: u64,
        #[serde(default = "tail")]
        keep: Keep,
    }
    Start { command: Command }
    Attach { exec: String }
    SignalExec { exec: String, signal: SignalName }
}

arguments! {
    OfProcess { process: u64 }
    Read { process: u64, stream: OutputStream, #[serde(default = "piece")] max: usize }
    SendSignal { process: u64, signal: SignalName }
    Resize { process: u64, rows: u16, columns: u16 }
}

fn output() -> u64 {
    OUTPUT
}

fn tail() -> Keep {
    Keep::Tail
}

fn piece() -> usize {
    PIECE
}

fn process(context: &Context, number: u64) -> Result<Use<ProcessObject>, Fault> {
    context.objects.get(number)
}

async fn run(context: Context, arguments: Run) -> Answer {
    let place = arguments.place(&context)?;
    let limits = OutputLimits {
        stdout_max: arguments.stdout_max,
        stderr_max: arguments.stderr_max,
        keep: arguments.keep.into_wit(),
    };
    let stdin = Vec::from(context.data);
    let work = count_retries(place.sandbox.run_with(arguments.command.0, stdin, limits));
    let (result, retries) = place.run(async { Ok::<_, Fault>(work.await) }).await?;
    let result = result?;
    let report = json!({
        "verdict": Verdict::from_wit(result.verdict),
        "stdout_total": result.stdout.total,
        "stderr_total": result.stderr.total,
        "duration": result.duration,
        "retries": retries,
    });
    Reply::with(report, vec![result.stdout.data, result.stderr.data])
}

/// Adds a process to the table and returns its number. With `detached`, it continues when the object is closed.
fn keep(context: &Context, place: Place, process: Process, detached: bool) -> Answer {
    let exec = process.id().to_owned();
    let Some(object) = ProcessObject::new(place.sandbox, process) else {
        return Err(Fault::new("internal", "the process has no streams"));
    };
    if detached {
        object.detach();
    }
    Reply::json(json!({ "process": context.objects.add(&place.provider, object)?, "exec": exec }))
}

async fn start(context: Context, arguments: Start) -> Answer {
    let Place { provider, sandbox } = arguments.place(&context)?;
    let command = arguments.command.0;
    let inside = command.container.as_deref().map_or_else(|| sandbox.clone(), |name| sandbox.sidecar(name));
    let process = provider.run(sandbox.spawn(command)).await?;
    keep(&context, Place { provider, sandbox: inside }, process, false)
}

async fn attach(context: Context, arguments: Attach) -> Answer {
    let place = arguments.place(&context)?;
    let process = place.sandbox.attach(arguments.exec);
    keep(&context, place, process, true)
}

async fn read(context: Context, arguments: Read) -> Answer {
    let process = process(&context, arguments.process)?;
    if arguments.max == 0 || arguments.max > LARGEST_PIECE {
        return Err(Fault::invalid(format!("`max` must be between 1 and {LARGEST_PIECE}")));
    }
    let stream = match arguments.stream {
        OutputStream::Stdout => &process.object.stdout,
        OutputStream::Stderr => &process.object.stderr,
    };
    let piece = async {
        let mut stream = stream.lock().await;
        let mut piece = Vec::with_capacity(arguments.max.min(PIECE));
        let read = (&mut *stream).take(arguments.max as u64).read_buf(&mut piece).await;
        read.map(|_| piece).map_err(|error| Fault::io("read the output of the command", error))
    };
    let piece = process.run(piece).await?;
    Reply::with(json!({ "end": piece.is_empty() }), vec![piece])
}

async fn write(context: Context, arguments: OfProcess) -> Answer {
    let process = process(&context, arguments.process)?;
    let written = async {
        let mut stdin = process.object.stdin.lock().await;
        let Some(stdin) = &mut *stdin else { return Err(input_closed()) };
        stdin.write_all(&context.data).await.map_err(|error| Fault::io("write to the command", error))
    };
    process.run(written).await?;
    Reply::null()
}

fn input_closed() -> Fault {
    Fault::closed("the input of the command")
}

async fn close_input(context: Context, arguments: OfProcess) -> Answer {
    let process = process(&context, arguments.process)?;
    let closed = async {
        let mut stdin = process.object.stdin.lock().await;
        let Some(open) = &mut *stdin else { return Ok(()) };
        let closed = open.shutdown().await;
        *stdin = None;
        match closed {
            // The program has ended or closed its input before.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            closed => closed.map_err(|error| Fault::io("close the input of the command", error)),
        }
    };
    process.run(closed).await?;
    Reply::null()
}

async fn wait(context: Context, arguments: OfProcess) -> Answer {
    let process = process(&context, arguments.process)?;
    let verdict = async {
        // Another caller may wait already. When it has the verdict, this one gets it at once.
        match &mut *process.object.process.lock().await {
            Some(process) => process.wait().await.map_err(Fault::from),
            None => Err(Fault::closed("the process")),
        }
    };
    Reply::json(Verdict::from_wit(process.run(verdict).await?))
}

async fn send(context: &Context, process: u64, signal: Signal) -> Answer {
    let process = self::process(context, process)?;
    process.run(process.object.place.signal(&process.object.exec, signal)).await?;
    Reply::null()
}

async fn signal(context: Context, arguments: SendSignal) -> Answer {
    send(&context, arguments.process, arguments.signal.0).await
}

async fn kill(context: Context, arguments: OfProcess) -> Answer {
    send(&context, arguments.process, Signal::KILL).await
}

async fn resize(context: Context, arguments: Resize) -> Answer {
    let process = process(&context, arguments.process)?;
    // A second handle: another caller may be waiting with the first one. Its end has no effect.
    let handle = process.object.place.attach(process.object.exec.as_str());
    process.run(handle.resize(arguments.rows, arguments.columns)).await?;
    Reply::null()
}

async fn detach(context: Context, arguments: OfProcess) -> Answer {
    let process = process(&context, arguments.process)?;
    process.object.detach();
    context.objects.close(arguments.process)?;
    Reply::json(json!({ "exec": process.object.exec }))
}

async fn signal_exec(context: Context, arguments: SignalExec) -> Answer {
    let place = arguments.place(&context)?;
    place.done(place.sandbox.signal(&arguments.exec, arguments.signal.0)).await
}
