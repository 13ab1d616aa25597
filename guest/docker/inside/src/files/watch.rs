//! The verb `watch`.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::atomic::Ordering,
    time::Instant,
};

use rustix::fs::{FallocateFlags, fallocate};

use crate::{
    answer::{Answer, Failure, send_json},
    args::Args,
    base::make_dir,
    context::Context,
    exec::{Exec, Verdict, detach},
    files::{
        access::{Access, path_of},
        watcher::Watcher,
    },
    json,
    sys::process::{Fork, fork},
};

/// Most bytes of events in one answer.
const MAX_BYTES: u64 = 1024 * 1024;
/// Size of a block of the disk. Only whole blocks are given back.
const BLOCK: u64 = 4096;

/// Sends events of a watch. The first call starts it.
///
/// # Errors
///
/// Fails if the path does not exist, or the user must not read it.
pub fn watch(args: &Args, context: &mut Context) -> Answer {
    let path = path_of(args, "path")?;
    let id = args.required("id")?;
    let dir = context.base.transfer(id)?;
    let failed = |error: io::Error| Failure::internal(id, error);
    let exec = match Exec::open(&dir)? {
        Some(exec) => exec,
        None => {
            begin(args, context, id, &path, &dir)?;
            Exec::existing(&dir, id)?
        }
    };
    exec.until_started()?;
    exec.check();
    let position = args.number("position")?.unwrap_or(0);
    let max = args.number("max")?.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX)).max(1);
    let wait = args.duration("wait")?.unwrap_or_default();
    let end = Instant::now().checked_add(wait);
    let file = OpenOptions::new().read(true).write(true).open(dir.join("events")).map_err(failed)?;
    exec.page().accepted.fetch_max(position, Ordering::SeqCst);
    free(&file, position);
    let (length, ended) = loop {
        let seen = exec.seen();
        // The end is read first: no event comes after it.
        let ended = exec.verdict().is_some();
        let length = exec.page().stdout.load(Ordering::SeqCst);
        let left = end.map(|end| end.saturating_duration_since(Instant::now())).unwrap_or(wait);
        if length > position || ended || left.is_zero() {
            break (length, ended);
        }
        exec.sleep(seen, left);
    };
    let size = length.saturating_sub(position).min(MAX_BYTES);
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, position).map_err(failed)?;
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).collect();
    let lines = &lines[..lines.len().min(max)];
    let next = position + lines.iter().map(|line| line.len() as u64).sum::<u64>();
    let events = json::array(lines.iter().map(|line| String::from_utf8_lossy(line).trim_end().to_string()));
    let answer = json::Object::new().raw("events", &events).number("next", next);
    send_json(&answer.flag("end", ended && next >= length).end())
}

/// Gives the blocks of events that the caller has back to the disk. Disks that cannot do it keep them.
fn free(file: &File, position: u64) {
    let end = position / BLOCK * BLOCK;
    if end > 0 {
        let _ = fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, end);
    }
}

/// Starts the process that watches, exactly once.
fn begin(args: &Args, context: &mut Context, id: &str, path: &Path, dir: &Path) -> Answer {
    let access = Access::of(args)?;
    let recursive = args.flag("recursive");
    let mut watcher = access.with(path, || Ok(Watcher::new(path, recursive)?))?;
    let failed = |error: io::Error| Failure::internal("watch", error);
    let draft = context.base.file("files").join(format!(".new-{}", std::process::id()));
    let prepare = || -> io::Result<(Exec, File)> {
        let _ = fs::remove_dir_all(&draft);
        make_dir(&draft)?;
        let exec = Exec::create(&draft)?;
        let events = OpenOptions::new().append(true).create_new(true).mode(0o600).open(draft.join("events"))?;
        Ok((exec, events))
    };
    let (exec, mut events) = prepare().map_err(failed)?;
    if fs::rename(&draft, dir).is_err() {
        // Another call was faster.
        let _ = fs::remove_dir_all(&draft);
        return Ok(());
    }
    match fork().map_err(failed) {
        Ok(Fork::Parent(_)) => Ok(()),
        Ok(Fork::Child) => {
            detach(&format!("watch {id}"));
            // A watch does not keep the sandbox from being idle; the calls for its events do.
            drop(context.activity.take());
            if exec.supervise_here() {
                let _ = access.perform(|| watcher.run(&exec, &mut events));
                exec.end(Verdict::Exited(0));
            }
            std::process::exit(0)
        }
        Err(failure) => {
            exec.fail(&failure);
            Err(failure)
        }
    }
}
