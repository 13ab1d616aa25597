//! The verb `write-file`.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
    io::{self, Seek},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{Gid, OFlags, Uid, fchown},
    io::Errno,
};

use crate::{
    answer::{Answer, Failure},
    args::Args,
    context::Context,
    files::{
        access::{Access, path_of},
        change::{mode_of, rename_new},
        copy::write_stream,
        transfer::{Upload, receive},
    },
};

/// Permissions of a new file.
const NEW_MODE: u32 = 0o644;
/// Most links at the end of a path, as in the kernel.
const MAX_LINKS: usize = 40;

/// Accepts a piece of a file, and writes the file with the last one.
///
/// # Errors
///
/// Fails if the piece does not fit, or the user must not write the file.
pub fn write_file(args: &Args, context: &mut Context) -> Answer {
    let path = path_of(args, "path")?;
    let access = Access::of(args)?;
    let permissions = mode_of(args, "permissions")?;
    let apply = match args.text("mode").unwrap_or("replace") {
        "replace" => replace,
        "append" => append,
        "create-new" => create_new,
        other => return Err(Failure::invalid("mode", format_args!("There is no mode {other:?}."))),
    };
    receive(args, context, |upload| apply(&path, permissions, &access, upload))
}

fn create_parents(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => match DirBuilder::new().recursive(true).mode(0o755).create(parent) {
            // A file lies where a directory is needed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Errno::NOTDIR.into()),
            other => other,
        },
        None => Ok(()),
    }
}

/// Opens something for writing that the user may have replaced by a pipe or a terminal.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(NEW_MODE).custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32);
    options
}

/// Where a symbolic link at the end of the path leads, also if nothing is there.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(Errno::LOOP.into())
}

/// A file beside the target that becomes the target.
struct Draft {
    file: File,
    path: PathBuf,
}

impl Draft {
    fn create(target: &Path) -> io::Result<Self> {
        // A path without a name is `/` or ends with `..`.
        let parent = target.file_name().and(target.parent()).ok_or(Errno::ISDIR)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = parent.join(format!(".sandbox-{}-{:x}", std::process::id(), now.as_nanos()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path })
    }

    /// Does the last steps with the rights of the user, and removes the file if one of them fails.
    fn complete(&self, step: impl FnOnce(&Self) -> io::Result<()>) -> io::Result<()> {
        step(self).inspect_err(|_| {
            let _ = fs::remove_file(&self.path);
        })
    }
}

/// How a file is replaced.
enum Plan {
    /// By a new file. The old one, if there is one, can be written too.
    Draft { draft: Draft, old: Option<(Option<File>, Box<Metadata>)>, target: PathBuf },
    /// By writing into it.
    InPlace(File),
}

fn plan(path: &Path) -> io::Result<Plan> {
    let target = resolve(path)?;
    let metadata = match fs::symlink_metadata(&target) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_parents(&target)?;
            return Ok(Plan::Draft { draft: Draft::create(&target)?, old: None, target });
        }
        Err(error) => return Err(error),
    };
    if metadata.is_dir() {
        return Err(Errno::ISDIR.into());
    }
    // The user must be able to write the old file, as if it were overwritten.
    let old = match options().open(&target) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => None,
        Err(error) => return Err(error),
    };
    if !metadata.is_file() {
        return old.map(Plan::InPlace).ok_or_else(|| Errno::TXTBSY.into());
    }
    match (Draft::create(&target), old) {
        (Ok(draft), old) => Ok(Plan::Draft { draft, old: Some((old, Box::new(metadata))), target }),
        // Only the file is writable, not its directory.
        (Err(error), Some(old)) if is_forbidden(&error) => Ok(Plan::InPlace(old)),
        (Err(error), _) => Err(error),
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS))
}

fn replace(path: &Path, permissions: Option<u32>, access: &Access, upload: &mut Upload) -> Answer {
    match access.with(path, || plan(path))? {
        Plan::InPlace(mut file) => access.with(path, || overwrite(&mut file, permissions, &mut upload.content)),
        Plan::Draft { draft, old, target } => {
            let privileged = access.user.is_none();
            let mut mode = permissions.or(old.as_ref().map(|(_, old)| old.mode() & 0o7777)).unwrap_or(NEW_MODE);
            let owner = old.as_ref().map(|(_, old)| (old.uid(), old.gid()));
            if !privileged && owner.is_some_and(|(uid, _)| access.user.as_ref().is_none_or(|user| user.uid != uid)) {
                // The kernel takes these bits from a file that another user writes.
                mode &= 0o1777;
            }
            access.with(path, || draft.complete(|draft| io::copy(&mut upload.content, &mut &draft.file).map(drop)))?;
            // The descriptor is that of the new file, so that root may give it the owner of the old one.
            if let Some((uid, gid)) = owner {
                let _ = fchown(&draft.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            }
            let renamed = draft.file.set_permissions(Permissions::from_mode(mode));
            let renamed =
                access.with(path, || draft.complete(|draft| renamed.and_then(|()| fs::rename(&draft.path, &target))));
            match (renamed, old) {
                // Docker mounts single files, which cannot be replaced.
                (Err(_), Some((Some(mut old), _))) if is_mounted(&target, &old) => {
                    access.with(path, || overwrite(&mut old, permissions, &mut upload.content))
                }
                (renamed, _) => renamed,
            }
        }
    }
}

/// Whether a file has another mount than its directory, or the rename failed for another reason that leaves it there.
fn is_mounted(target: &Path, old: &File) -> bool {
    let same = |one: &Metadata, other: &Metadata| one.dev() == other.dev() && one.ino() == other.ino();
    match (fs::symlink_metadata(target), old.metadata()) {
        (Ok(one), Ok(other)) => same(&one, &other),
        _ => false,
    }
}

fn overwrite(file: &mut File, permissions: Option<u32>, content: &mut File) -> io::Result<()> {
    content.rewind()?;
    if file.metadata()?.is_file() {
        file.set_len(0)?;
        io::copy(content, file)?;
        if let Some(mode) = permissions {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        return Ok(());
    }
    write_stream(content, file)
}

fn append(path: &Path, permissions: Option<u32>, access: &Access, upload: &mut Upload) -> Answer {
    access.with(path, || {
        create_parents(path)?;
        let mut file = options().append(true).create(true).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return write_stream(&mut upload.content, &mut file);
        }
        if let Err(error) = io::copy(&mut upload.content, &mut file) {
            let _ = file.set_len(metadata.len());
            return Err(error);
        }
        permissions.map_or(Ok(()), |mode| file.set_permissions(Permissions::from_mode(mode)))
    })
}

fn create_new(path: &Path, permissions: Option<u32>, access: &Access, upload: &mut Upload) -> Answer {
    access.with(path, || {
        if fs::symlink_metadata(path).is_ok() {
            return Err(Errno::EXIST.into());
        }
        create_parents(path)?;
        Draft::create(path)?.complete(|draft| {
            io::copy(&mut upload.content, &mut &draft.file)?;
            draft.file.set_permissions(Permissions::from_mode(permissions.unwrap_or(NEW_MODE)))?;
            rename_new(&draft.path, path)
        })
    })
}
