//! Resolves `user[:group]` to ids, from the container's account files.
//!
//! Parses the files itself, because the look-ups of the C library would load plug-ins of the machine or query its name
//! services.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
};

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// Maximum number of bytes that are read of an account file.
const LARGEST_ACCOUNTS: u64 = 1 << 20;

/// The user and groups of a process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl User {
    /// Changes the calling process to this user, permanently.
    pub(crate) fn switch(&self) -> Result<(), String> {
        let failed = |error: nix::errno::Errno| format!("cannot change to user {}: {}", self.uid, error.desc());
        setgroups(&self.groups).map_err(failed)?;
        setgid(self.gid).map_err(failed)?;
        setuid(self.uid).map_err(failed)
    }
}

/// Resolves `spec`. Returns `None` if no change is needed, because it is root like init.
pub(crate) fn find(spec: Option<&str>, all_ids: bool) -> Result<Option<User>, String> {
    let Some(spec) = spec.filter(|spec| !spec.is_empty()) else { return Ok(None) };
    let read = |path| String::from_utf8_lossy(&accounts(path).unwrap_or_default()).into_owned();
    let user = look_up(spec, &read("/etc/passwd"), &read("/etc/group"))?;
    if all_ids {
        return Ok(Some(user));
    }
    // Only root is mapped, so no other user is possible, and the groups of root cannot be changed.
    if user.uid.is_root() && user.gid.as_raw() == 0 {
        return Ok(None);
    }
    Err(format!(
        "cannot change to user {spec}: the emulator runs without privileges, so root is the only user in the sandbox"
    ))
}

/// Returns the home directory of the user in `spec`, or of root if it is `None`. Returns `/` if the account files do not
/// contain the user, as container runtimes do.
pub(crate) fn home(spec: Option<&str>) -> OsString {
    let passwd = String::from_utf8_lossy(&accounts("/etc/passwd").unwrap_or_default()).into_owned();
    home_of(spec.filter(|spec| !spec.is_empty()).unwrap_or("0"), &passwd).into()
}

fn home_of<'a>(spec: &str, passwd: &'a str) -> &'a str {
    let user = spec.split(':').next().unwrap_or_default();
    let home = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, uid, home) = (fields.first()?, fields.get(2)?, fields.get(5)?);
        (*name == user || *uid == user).then_some(*home)
    });
    home.filter(|home| !home.is_empty()).unwrap_or("/")
}

/// Reads the beginning of an account file. It may be any type of file: opening a pipe would block, so `O_NONBLOCK` is
/// used, and only regular files are read.
pub(crate) fn accounts(path: &str) -> io::Result<Vec<u8>> {
    let mut options = fs::File::options();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let mut content = Vec::new();
    if file.metadata()?.is_file() {
        file.take(LARGEST_ACCOUNTS).read_to_end(&mut content)?;
    }
    Ok(content)
}

fn look_up(spec: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user, wanted) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let account = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (name == user || uid == user).then_some((name, uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?))
    });
    let (name, uid, primary) = match account {
        Some((name, uid, gid)) => (Some(name), uid, gid),
        None => (None, user.parse().map_err(|_| format!("no such user: {user}"))?, 0),
    };
    let groups = || {
        group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
            Some((name, gid.parse::<u32>().ok()?, fields.next().unwrap_or_default()))
        })
    };
    let gid = match wanted {
        None => primary,
        Some(wanted) => groups()
            .find(|(name, ..)| *name == wanted)
            .map(|(_, gid, _)| gid)
            .or_else(|| wanted.parse().ok())
            .ok_or_else(|| format!("no such group: {wanted}"))?,
    };
    let mut all = vec![Gid::from_raw(gid)];
    // As in Docker, an explicit group is the only one; otherwise the user is also in all groups that list it.
    if let (Some(name), None) = (name, wanted) {
        let member = groups().filter(|(.., members)| members.split(',').any(|member| member == name));
        all.extend(member.map(|(_, gid, _)| Gid::from_raw(gid)).filter(|other| other.as_raw() != gid));
    }
    Ok(User { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups: all })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nann:x:1001:\ndocker:x:999:bob,ann\n";

    fn ids(spec: &str) -> (u32, u32, Vec<u32>) {
        let user = look_up(spec, PASSWD, GROUP).unwrap();
        (user.uid.as_raw(), user.gid.as_raw(), user.groups.iter().map(|gid| gid.as_raw()).collect())
    }

    #[test]
    fn homes_by_name_and_number() {
        for (spec, home) in
            [("0", "/root"), ("root:docker", "/root"), ("ann", "/home/ann"), ("1000", "/home/ann"), ("4000", "/")]
        {
            assert_eq!(home_of(spec, PASSWD), home, "{spec}");
        }
    }

    #[test]
    fn users_by_name_and_number() {
        assert_eq!(ids("ann"), (1000, 1001, vec![1001, 999]));
        assert_eq!(ids("1000"), (1000, 1001, vec![1001, 999]));
        assert_eq!(ids("ann:docker"), (1000, 999, vec![999]));
        assert_eq!(ids("4000:5000"), (4000, 5000, vec![5000]));
        assert_eq!(ids("4000"), (4000, 0, vec![0]));
        assert!(look_up("eve", PASSWD, GROUP).unwrap_err().contains("eve"));
        assert!(look_up("ann:eve", PASSWD, GROUP).unwrap_err().contains("eve"));
    }
}
