//! The corpus of Dockerfiles in `dockerfiles/`. Each file is one case: a Dockerfile and its context, with the files
//! that the host must send for it and those that its image must contain. The tests of the host and of the whole system
//! use it.
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

/// One case of the corpus.
#[allow(dead_code, reason = "each user of this module needs only a part")]
pub struct Case {
    /// The name of the file without its extension.
    pub name: String,
    /// The reason why the emulator cannot build the case, if it cannot.
    pub not_built: Option<String>,
    /// Build arguments: names and values.
    pub args: Vec<(String, String)>,
    /// The stage to build, if not the last one.
    pub target: Option<String>,
    /// The paths that the host must send, sorted.
    pub sent: Vec<String>,
    /// The lines that describe the tree below `/out`, sorted, or `None` if the image is not compared.
    pub tree: Option<Vec<String>>,
    apart: bool,
    dockerfile: String,
    context: Vec<String>,
}

/// Returns all cases, sorted by name.
pub fn all() -> Vec<Case> {
    // Crates at different depths use this file.
    let folders =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("tests/corpus/dockerfiles"));
    let directory = folders.into_iter().find(|folder| folder.is_dir()).expect("cannot find the corpus");
    let entries = fs::read_dir(&directory).expect("cannot read the corpus");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("cannot read the directory").path()).collect();
    paths.sort();
    paths.iter().map(|path| Case::read(path)).collect()
}

impl Case {
    fn read(path: &Path) -> Case {
        let text = fs::read_to_string(path).expect("cannot read the text");
        let mut sections = text.split("\n--- ");
        let head = sections.next().expect("an empty case");
        let value =
            |key: &str| head.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::to_owned);
        let mut case = Case {
            name: path.file_stem().expect("no file name").to_string_lossy().into_owned(),
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
                title => panic!("{}: unknown section {title}", path.display()),
            }
        }
        case
    }

    /// Writes the Dockerfile and the context below a directory and returns the paths of both.
    pub fn write(&self, below: &Path) -> (PathBuf, PathBuf) {
        let context = below.join("context");
        fs::create_dir(&context).expect("cannot create the directory");
        for line in &self.context {
            let (name, what) = line.split_once('\t').unwrap_or((line, ""));
            let (name, target) = name.split_once(" -> ").map_or((name, None), |(name, target)| (name, Some(target)));
            let path = context.join(name);
            make_directories(path.parent().expect("no parent directory"));
            if let Some(target) = target {
                symlink(target, &path).expect("cannot create the link");
            } else if name.ends_with('/') {
                make_directories(&path);
                set_mode(&path, what, 0o755);
            } else if let Some(names) = what.strip_prefix("archive ") {
                fs::write(&path, archive(names)).expect("cannot write the file");
            } else if let Some(lines) = what.strip_prefix("lines ") {
                fs::write(&path, lines.replace('|', "\n")).expect("cannot write the file");
            } else {
                fs::write(&path, name).expect("cannot write the file");
                set_mode(&path, what, 0o644);
            }
        }
        let dockerfile = if self.apart { below } else { &context }.join("Dockerfile");
        fs::write(&dockerfile, &self.dockerfile).expect("cannot write the file");
        set_mode(&dockerfile, "", 0o644);
        (dockerfile, context)
    }
}

fn make_directories(path: &Path) {
    if path.is_dir() {
        return;
    }
    make_directories(path.parent().expect("no parent directory"));
    fs::create_dir(path).expect("cannot create the directory");
    set_mode(path, "", 0o755);
}

fn set_mode(path: &Path, mode: &str, usual: u32) {
    let mode = if mode.is_empty() { usual } else { u32::from_str_radix(mode, 8).expect("invalid mode") };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("cannot set the permissions");
}

/// Returns a tar archive of files whose contents are their names, with their parent directories.
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
            archive.append_data(&mut header, format!("{above}/"), &b""[..]).expect("cannot append the entry");
        }
        let mut header = header(tar::EntryType::Regular, 0o644, name.len());
        archive.append_data(&mut header, name, name.as_bytes()).expect("cannot append the entry");
    }
    archive.into_inner().expect("cannot finish the archive")
}
