//! The verbs that change entries: `mkdir`, `remove`, `rename`, `symlink` and `chmod`.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::{
    answer::{Answer, Failure, send},
    args::Args,
    context::Context,
    files::access::{Access, file_failure, path_of},
};

/// Creates a directory.
///
/// # Errors
///
/// Fails if it exists and `parents` is not set, or the user must not create it.
pub fn mkdir(args: &Args, _: &mut Context) -> Answer {
    let path = path_of(args, "path")?;
    let parents = args.flag("parents");
    Access::of(args)?.with(&path, || DirBuilder::new().recursive(parents).mode(0o755).create(&path))?;
    send(b'.', "")
}

/// Removes an entry.
///
/// # Errors
///
/// Fails if it does not exist, is a directory with entries and `recursive` is not set, or the user must not remove it.
pub fn remove(args: &Args, _: &mut Context) -> Answer {
    let path = path_of(args, "path")?;
    let recursive = args.flag("recursive");
    Access::of(args)?.with(&path, || match fs::symlink_metadata(&path)?.is_dir() {
        true if recursive => fs::remove_dir_all(&path),
        true => fs::remove_dir(&path),
        false => fs::remove_file(&path),
    })?;
    send(b'.', "")
}

/// Renames an entry as rename(2) does.
///
/// # Errors
///
/// Fails if the new path exists and `replace` is not set, or the user must not rename it.
pub fn rename(args: &Args, _: &mut Context) -> Answer {
    let (path, to) = (path_of(args, "path")?, path_of(args, "to")?);
    let access = Access::of(args)?;
    let replace = args.flag("replace");
    let result = access.perform(|| if replace { fs::rename(&path, &to) } else { rename_new(&path, &to) });
    match result? {
        Ok(()) => send(b'.', ""),
        Err(error) => {
            let about_target = matches!(
                Errno::from_io_error(&error),
                Some(Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR | Errno::NOTDIR)
            );
            Err(file_failure(if about_target { &to } else { &path }, &error))
        }
    }
}

/// Renames an entry unless the new path exists.
///
/// # Errors
///
/// Fails with `AlreadyExists` if it exists.
pub fn rename_new(path: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, path, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems do not have the flag.
        Err(Errno::INVAL | Errno::NOSYS) => match fs::symlink_metadata(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(path, to),
            Err(error) => Err(error),
        },
        other => Ok(other?),
    }
}

/// Creates a symbolic link.
///
/// # Errors
///
/// Fails if the path exists, or the user must not create it.
pub fn symlink(args: &Args, _: &mut Context) -> Answer {
    let path = path_of(args, "path")?;
    let target = args.required("target")?;
    Access::of(args)?.with(&path, || std::os::unix::fs::symlink(target, &path))?;
    send(b'.', "")
}

/// Changes the permissions of an entry.
///
/// # Errors
///
/// Fails if the entry does not belong to the user.
pub fn chmod(args: &Args, _: &mut Context) -> Answer {
    let path = path_of(args, "path")?;
    let mode = mode_of(args, "mode")?.ok_or_else(|| Failure::invalid("mode", "The argument mode is missing."))?;
    Access::of(args)?.with(&path, || fs::set_permissions(&path, Permissions::from_mode(mode)))?;
    send(b'.', "")
}

/// Permissions in octal digits.
///
/// # Errors
///
/// Fails if they are anything else, or more than 7777.
pub fn mode_of(args: &Args, name: &str) -> Answer<Option<u32>> {
    let parse = |text: &str| {
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| Failure::invalid(name, "Permissions are octal digits up to 7777."))
    };
    args.text(name).map(parse).transpose()
}
