//! The corpus of Dockerfiles in `dockerfiles/`: one file for each shape, with what the host must send for it and what must be
//! in its image. The host's tests and those of the whole system read it.
//!
//! ```text
//! # What the case shows
//! emulator: no: WHY               the emulator cannot build it
//! args: NAME=VALUE                a build argument
//! target: STAGE                   the stage to build
//! context: apart                  the Dockerfile lies outside of the context
//! end: none                       the Dockerfile has no line end at its end
//! --- Dockerfile
//! FROM debian
//! COPY . /out/
//! --- context
//! FILE                            with its own path as content, and mode 644
//! FILE<tab>MODE
//! FILE<tab>archive NAME NAME…     a tar archive of files
//! FILE<tab>lines ONE|TWO…
//! DIRECTORY/
//! DIRECTORY/<tab>MODE
//! LINK -> TARGET
//! --- sent
//! FILE, LINK -> TARGET, or DIRECTORY/ if no file of it is sent
//! --- tree
//! FILE<tab>MODE<tab>USER:GROUP<tab>CONTENT      below /out, line ends of the content as blanks
//! DIRECTORY/<tab>MODE<tab>USER:GROUP
//! LINK -> TARGET
//! ```

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// One shape of Dockerfile.
#[allow(dead_code, reason = "each of its users needs a part")]
pub struct Case {
    /// The file's name without its ending.
    pub name: String,
    /// Why the emulator cannot build it.
    pub not_built: Option<String>,
    /// Build arguments.
    pub args: Vec<(String, String)>,
    /// The stage to build.
    pub target: Option<String>,
    /// What the host must send, sorted.
    pub sent: Vec<String>,
    /// What must be below `/out`, sorted, if that is looked at.
    pub tree: Option<Vec<String>>,
    apart: bool,
    dockerfile: String,
    context: Vec<String>,
}

/// All cases, by name.
pub fn all() -> Vec<Case> {
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("tests/corpus/dockerfiles");
    let entries = fs::read_dir(&directory).expect("the corpus");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| Case::read(path)).collect()
}

impl Case {
    fn read(path: &Path) -> Case {
        let text = fs::read_to_string(path).expect("text");
        let mut sections = text.split("\n--- ");
        let head = sections.next().expect("a head");
        let value =
            |key: &str| head.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::to_owned);
        let mut case = Case {
            name: path.file_stem().expect("a name").to_string_lossy().into_owned(),
            not_built: value("emulator"),
            args: value("args")
                .iter()
                .filter_map(|pair| pair.split_once('='))
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
            target: value("target"),
            sent: Vec::new(),
            tree: None,
            apart: value("context").is_some(),
            dockerfile: String::new(),
            context: Vec::new(),
        };
        for section in sections {
            let (title, body) = section.split_once('\n').unwrap_or((section, ""));
            let mut lines: Vec<String> = body.lines().map(str::to_owned).collect();
            match title {
                "Dockerfile" if value("end").is_some() => case.dockerfile = body.to_owned(),
                "Dockerfile" => case.dockerfile = format!("{body}\n"),
                "context" => case.context = lines,
                "sent" => {
                    lines.sort();
                    case.sent = lines;
                }
                "tree" => {
                    lines.sort();
                    case.tree = Some(lines);
                }
                title => panic!("{}: the section {title} is not known", path.display()),
            }
        }
        case
    }

    /// Writes the Dockerfile and the context below a directory: the paths of both.
    pub fn write(&self, below: &Path) -> (PathBuf, PathBuf) {
        let context = below.join("context");
        fs::create_dir(&context).expect("a directory");
        for line in &self.context {
            let (name, what) = line.split_once('\t').unwrap_or((line, ""));
            let (name, target) = name.split_once(" -> ").map_or((name, None), |(name, target)| (name, Some(target)));
            let path = context.join(name);
            make_directories(path.parent().expect("a parent"));
            if let Some(target) = target {
                symlink(target, &path).expect("a link");
            } else if name.ends_with('/') {
                make_directories(&path);
                set_mode(&path, what, 0o755);
            } else if let Some(names) = what.strip_prefix("archive ") {
                fs::write(&path, archive(names)).expect("a file");
            } else if let Some(lines) = what.strip_prefix("lines ") {
                fs::write(&path, lines.replace('|', "\n")).expect("a file");
            } else {
                fs::write(&path, name).expect("a file");
                set_mode(&path, what, 0o644);
            }
        }
        let dockerfile = if self.apart { below } else { &context }.join("Dockerfile");
        fs::write(&dockerfile, &self.dockerfile).expect("a file");
        set_mode(&dockerfile, "", 0o644);
        (dockerfile, context)
    }
}

fn make_directories(path: &Path) {
    if path.is_dir() {
        return;
    }
    make_directories(path.parent().expect("a parent"));
    fs::create_dir(path).expect("a directory");
    set_mode(path, "", 0o755);
}

fn set_mode(path: &Path, mode: &str, usual: u32) {
    let mode = if mode.is_empty() { usual } else { u32::from_str_radix(mode, 8).expect("a mode") };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// Files with their own names as contents, and the directories above them.
fn archive(names: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let header = |kind, mode, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header
    };
    for name in names.split(' ') {
        if let Some((above, _)) = name.rsplit_once('/') {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            archive.append_data(&mut header, format!("{above}/"), &b""[..]).expect("an entry");
        }
        let mut header = header(tar::EntryType::Regular, 0o644, name.len());
        archive.append_data(&mut header, name, name.as_bytes()).expect("an entry");
    }
    archive.into_inner().expect("an archive")
}
