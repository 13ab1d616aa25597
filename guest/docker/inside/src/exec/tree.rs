//! Processes as `/proc` shows them.

use std::{collections::HashMap, fs};

use crate::sys::process::kill;

/// One process.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The id of its parent.
    pub parent: u32,
    /// When it started, in clock ticks since the boot.
    pub ticks: u64,
    /// Whether it has ended and only waits for its parent.
    pub zombie: bool,
}

/// Reads `/proc/PID/stat`; none if there is no such process.
pub fn process(pid: u32) -> Option<Process> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(pid, &String::from_utf8_lossy(&text))
}

fn parse(pid: u32, text: &str) -> Option<Process> {
    // The name of the program stands in parentheses, and may contain anything.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // The start time is field 22 of the line; the state is field 3.
    let ticks = fields.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, ticks, zombie: matches!(state, "Z" | "X") })
}

/// Whether a process with this id and start time lives.
pub fn lives(pid: u32, ticks: u64) -> bool {
    process(pid).is_some_and(|process| process.ticks == ticks && !process.zombie)
}

/// All living descendants of a process, parents before their children.
pub fn descendants(root: u32) -> Vec<Process> {
    let mut children: HashMap<u32, Vec<Process>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(process) = process(pid) {
            children.entry(process.parent).or_default().push(process);
        }
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let more = children.remove(&process.pid).unwrap_or_default();
        found.extend(more);
        next += 1;
    }
    found.retain(|process| !process.zombie);
    found
}

/// Sends a signal to all living descendants of a process, and returns to how many.
pub fn signal(root: u32, signal: i32) -> usize {
    descendants(root).into_iter().filter(|process| kill(process.pid, signal).is_ok()).count()
}
