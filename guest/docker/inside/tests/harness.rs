//! Calls of the program, and their answers.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use base64ct::{Base64, Encoding};
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_inside");
/// How long a condition may take to become true.
const LIMIT: Duration = Duration::from_secs(60);

/// Whether the tests can run. Without root they are left out; in continuous integration that is a failure.
pub fn is_root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("1"), "{test} needs root");
    println!("skipped: {test} needs root");
    false
}

/// Leaves the test out without root.
#[macro_export]
macro_rules! needs_root {
    () => {
        if !$crate::harness::is_root(module_path!()) {
            return;
        }
    };
}

/// Waits until a condition is true.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process lives and is no zombie.
pub fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|text| text.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z")))
}

/// A directory of the helper, and one for files of the test.
pub struct Sandbox {
    base: TempDir,
    files: TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        fs::set_permissions(files.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Self { base, files }
    }

    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// A path that all users may write.
    pub fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.files.path().to_path_buf() } else { self.files.path().join(name) }
    }

    /// `path=…` of a file of the test.
    pub fn at(&self, name: &str) -> String {
        format!("path={}", self.path(name).display())
    }

    pub fn command(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg(verb).arg(format!("base={}", self.base().display())).args(args).stdin(Stdio::null());
        command
    }

    #[track_caller]
    pub fn call(&self, verb: &str, args: &[&str]) -> Answer {
        Answer::of(&self.command(verb, args).output().unwrap())
    }

    /// Puts data where `file=NAME` and `args=@NAME` find it.
    pub fn put(&self, name: &str, data: &[u8]) {
        fs::create_dir_all(self.base().join("up")).unwrap();
        fs::write(self.base().join("up").join(name), data).unwrap();
    }

    /// Runs a shell script to its end.
    #[track_caller]
    pub fn sh(&self, id: &str, script: &str) -> Answer {
        self.call("run", &[&format!("id={id}"), "--", "sh", "-c", script])
    }

    /// The number that a command writes to a file of the test.
    #[track_caller]
    pub fn number(&self, name: &str) -> u32 {
        let read = || fs::read_to_string(self.path(name)).ok().filter(|text| text.ends_with('\n'));
        until(name, || read().is_some());
        read().unwrap().trim().parse().unwrap()
    }

    /// The process that supervises a command.
    pub fn supervisor(&self, id: &str) -> u32 {
        let page = fs::read(self.base().join("execs").join(id).join("state")).unwrap();
        u32::from_ne_bytes(page[16..20].try_into().unwrap())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for place in ["execs", "files"] {
            for entry in fs::read_dir(self.base().join(place)).into_iter().flatten().flatten() {
                let id = format!("id={}", entry.file_name().to_string_lossy());
                let _ = self.command("signal", &[&id, "signal=9"]).output();
            }
        }
    }
}

/// The frames of an answer.
pub struct Answer {
    pub frames: Vec<(u8, Vec<u8>)>,
}

/// Failed tests print answers. Long frames are cut.
impl std::fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cut = |payload: &[u8]| String::from_utf8_lossy(&payload[..payload.len().min(200)]).into_owned();
        let frames = self.frames.iter().map(|(tag, payload)| (char::from(*tag), payload.len(), cut(payload)));
        formatter.debug_list().entries(frames).finish()
    }
}

impl Answer {
    #[track_caller]
    pub fn of(output: &Output) -> Self {
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "standard error is for panics");
        Self::parse(&output.stdout)
    }

    #[track_caller]
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
            frames.push((bytes[0], bytes[5..5 + length].to_vec()));
            bytes = &bytes[5 + length..];
        }
        let last = frames.last().map(|(tag, _)| *tag);
        let answer = Self { frames };
        assert!(matches!(last, Some(b'.' | b'E')), "the answer is not complete: {answer:?}");
        answer
    }

    fn first(&self, tag: u8) -> Option<&[u8]> {
        self.frames.iter().find(|(found, _)| *found == tag).map(|(_, payload)| payload.as_slice())
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.first(b'E').map(String::from_utf8_lossy), None);
        self
    }

    /// Code and subject of the error.
    #[track_caller]
    pub fn error(&self) -> (String, String) {
        let payload = self.first(b'E').unwrap_or_else(|| panic!("no error in {self:?}"));
        let text = String::from_utf8(payload.to_vec()).unwrap();
        let mut lines = text.splitn(3, '\n');
        let mut next = || lines.next().unwrap().to_string();
        let result = (next(), next());
        assert!(next().ends_with('.'), "the message is a sentence: {text}");
        result
    }

    #[track_caller]
    pub fn code(&self) -> String {
        self.error().0
    }

    /// The output of a stream; its pieces have to follow each other from `start`.
    #[track_caller]
    pub fn stream_from(&self, tag: u8, start: u64) -> Vec<u8> {
        let mut all = Vec::new();
        for (_, payload) in self.frames.iter().filter(|(found, _)| *found == tag) {
            let offset = u64::from_be_bytes(payload[..8].try_into().unwrap());
            assert_eq!(offset, start + all.len() as u64, "the pieces follow each other");
            assert!(payload.len() <= 8 + 64 * 1024, "a frame has at most 64 KiB");
            all.extend_from_slice(&payload[8..]);
        }
        all
    }

    #[track_caller]
    pub fn out(&self) -> String {
        String::from_utf8(self.stream_from(b'o', 0)).unwrap()
    }

    #[track_caller]
    pub fn err(&self) -> String {
        String::from_utf8(self.stream_from(b'e', 0)).unwrap()
    }

    /// The length in the frame that ends a stream.
    pub fn end(&self, tag: u8) -> Option<u64> {
        self.first(tag).map(|payload| u64::from_be_bytes(payload.try_into().unwrap()))
    }

    pub fn verdict(&self) -> Option<String> {
        self.first(b'v').map(|payload| String::from_utf8_lossy(payload).into_owned())
    }

    #[track_caller]
    pub fn json(&self) -> String {
        let payload = self.first(b'j').unwrap_or_else(|| panic!("no JSON in {self:?}"));
        String::from_utf8(payload.to_vec()).unwrap()
    }

    pub fn data(&self) -> Vec<u8> {
        self.frames.iter().filter(|(tag, _)| *tag == b'd').flat_map(|(_, payload)| payload.clone()).collect()
    }
}

/// `data=…` of bytes.
pub fn data(bytes: impl AsRef<[u8]>) -> String {
    format!("data={}", Base64::encode_string(bytes.as_ref()))
}
