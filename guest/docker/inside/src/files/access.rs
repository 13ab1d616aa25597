//! The rights with which files are used, and the failures of files.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    process::{Gid, Uid, getegid, getgroups},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use crate::{
    answer::{Answer, Failure, is_no_space},
    args::Args,
    user::User,
};

/// The user with whose rights files are used.
pub struct Access {
    /// The user, or none for root.
    pub user: Option<User>,
    own_group: Gid,
    own_groups: Vec<Gid>,
}

impl Access {
    /// The user of the arguments.
    ///
    /// # Errors
    ///
    /// Fails if the user does not exist.
    pub fn of(args: &Args) -> Answer<Self> {
        let user = args.text("user").map(User::find).transpose()?;
        let own_groups = getgroups().map_err(|error| Failure::internal("user", error))?;
        // Root needs no change, which a container without capabilities would refuse.
        let user = user.filter(|user| user.uid != 0 || user.gid != 0);
        Ok(Self { user, own_group: getegid(), own_groups })
    }

    /// Does something with the rights of the user. Only the effective ids change, so that the user can neither signal
    /// nor trace this process.
    ///
    /// # Errors
    ///
    /// Fails if the container lacks the capabilities to change the user.
    pub fn perform<T>(&self, action: impl FnOnce() -> T) -> Answer<T> {
        let Some(user) = &self.user else { return Ok(action()) };
        let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        let change = || -> Result<(), Errno> {
            set_thread_groups(&groups)?;
            set_thread_res_gid(None::<Gid>, Gid::from_raw(user.gid), None::<Gid>)?;
            set_thread_res_uid(None::<Uid>, Uid::from_raw(user.uid), None::<Uid>)
        };
        let result = change().map(|()| action());
        let back = || -> Result<(), Errno> {
            set_thread_res_uid(None::<Uid>, Uid::ROOT, None::<Uid>)?;
            set_thread_res_gid(None::<Gid>, self.own_group, None::<Gid>)?;
            set_thread_groups(&self.own_groups)
        };
        // The rest of the program must not run with the wrong rights.
        if result.is_ok() && back().is_err() {
            std::process::abort();
        }
        result.map_err(|error| User::change_failure(&error.into()))
    }

    /// Like [`Access::perform`], for an action that fails with the path.
    ///
    /// # Errors
    ///
    /// Fails as the action fails.
    pub fn with<T>(&self, path: &Path, action: impl FnOnce() -> io::Result<T>) -> Answer<T> {
        self.perform(action)?.map_err(|error| file_failure(path, &error))
    }
}

/// The absolute path in an argument.
///
/// # Errors
///
/// Fails if it is missing, relative or contains NUL.
pub fn path_of(args: &Args, name: &str) -> Answer<PathBuf> {
    let path = args.required(name)?;
    if !path.starts_with('/') {
        return Err(Failure::invalid(name, format_args!("The path {path:?} is not absolute.")));
    }
    if path.contains('\0') {
        return Err(Failure::invalid(name, format_args!("The path {path:?} contains a NUL character.")));
    }
    Ok(PathBuf::from(path))
}

/// The failure of a system call on a path.
pub fn file_failure(path: &Path, error: &io::Error) -> Failure {
    let subject = path.to_string_lossy();
    let name = format!("{subject:?}");
    let (code, message) = match Errno::from_io_error(error) {
        Some(Errno::NOENT) => ("file:not-found", format!("The path {name} does not exist.")),
        Some(Errno::ISDIR) => ("file:is-a-directory", format!("The path {name} is a directory.")),
        Some(Errno::NOTDIR) => {
            ("file:not-a-directory", format!("The path {name} is not a directory, or lies in no directory."))
        }
        Some(Errno::EXIST) => ("file:already-exists", format!("The path {name} exists already.")),
        Some(Errno::NOTEMPTY) => ("file:not-empty", format!("The directory {name} is not empty.")),
        Some(Errno::ACCESS | Errno::PERM) => {
            ("file:permission-denied", format!("The user has no permission for the path {name}."))
        }
        Some(Errno::ROFS) => ("file:permission-denied", format!("The path {name} lies on a read-only file system.")),
        _ if is_no_space(error) => ("file:no-space", format!("The disk is full at {name}.")),
        _ => ("file:other", format!("The path {name} cannot be used: {error}.")),
    };
    Failure::new(code, subject, message)
}

/// The failure for a directory where a file is needed.
pub fn is_a_directory(path: &Path) -> Failure {
    file_failure(path, &Errno::ISDIR.into())
}
