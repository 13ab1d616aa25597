//! Users and groups of the container, from its `/etc/passwd` and `/etc/group`.

use std::{collections::HashMap, fs, io};

use rustix::{
    io::Errno,
    process::{Gid, Uid, getegid, geteuid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use crate::answer::{Answer, Failure};

/// Greatest user and group number that Docker accepts.
const MAX_NUMBER: u32 = 0x7fff_ffff;

/// The rights with which something is done.
#[derive(Clone, Debug)]
pub struct User {
    /// The number of the user.
    pub uid: u32,
    /// The number of the primary group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The home directory.
    pub home: String,
}

struct Line<'a> {
    name: &'a str,
    fields: Vec<&'a str>,
}

impl Line<'_> {
    fn number(&self, field: usize) -> Option<u32> {
        self.fields.get(field)?.parse().ok()
    }
}

/// The lines of `/etc/passwd` or `/etc/group`. Comments and malformed lines are left out by the users of the fields.
fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let name = *fields.first()?;
        (!name.is_empty() && !name.starts_with('#')).then_some(Line { name, fields })
    })
}

fn read_lossy(path: &str) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

impl User {
    /// Looks up `NAME`, `NUMBER`, `NAME:GROUP` and so on, by the rules of Docker: a number need not be in the files and
    /// then has group 0, and a user with an explicit group has no supplementary groups.
    ///
    /// # Errors
    ///
    /// Fails if a name is unknown, or a number is too great.
    pub fn find(text: &str) -> Answer<Self> {
        Self::find_in(text, &read_lossy("/etc/passwd"), &read_lossy("/etc/group"))
    }

    fn find_in(text: &str, passwd: &str, group: &str) -> Answer<Self> {
        let (name, group_name) = match text.split_once(':') {
            Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
            None => (text, None),
        };
        let name = if name.is_empty() { "0" } else { name };
        let number = number_of(name, text)?;
        let entry = lines(passwd).find(|line| line.name == name || (number.is_some() && line.number(2) == number));
        let mut user = match (&entry, number) {
            (Some(line), _) => Self {
                uid: line.number(2).ok_or_else(|| unknown(text, "user", name))?,
                gid: line.number(3).unwrap_or(0),
                groups: Vec::new(),
                home: line.fields.get(5).filter(|home| !home.is_empty()).map_or("/", |home| *home).to_string(),
            },
            (None, Some(uid)) => Self { uid, gid: 0, groups: Vec::new(), home: "/".into() },
            (None, None) => return Err(unknown(text, "user", name)),
        };
        if let Some(wanted) = group_name {
            let number = number_of(wanted, text)?;
            let found = lines(group)
                .find(|line| line.name == wanted || (number.is_some() && line.number(2) == number))
                .and_then(|line| line.number(2));
            user.gid = found.or(number).ok_or_else(|| unknown(text, "group", wanted))?;
        } else if let Some(entry) = entry {
            let member =
                |line: &Line| line.fields.get(3).is_some_and(|list| list.split(',').any(|one| one == entry.name));
            user.groups = lines(group).filter(member).filter_map(|line| line.number(2)).collect();
        }
        Ok(user)
    }

    /// The failure for a change of the user that the kernel refused.
    pub fn change_failure(error: &io::Error) -> Failure {
        Failure::invalid("user", format_args!("The container lacks the capability to change the user: {error}."))
    }

    /// Gives this process the rights of the user, for good. A process that is not root any more cannot be traced by the
    /// user, because the kernel protects processes that changed their user.
    ///
    /// # Errors
    ///
    /// Fails if the container lacks the capability.
    pub fn become_now(&self) -> io::Result<()> {
        let gid = Gid::from_raw(self.gid);
        let uid = Uid::from_raw(self.uid);
        let groups: Vec<Gid> = self.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        match set_thread_groups(&groups) {
            // A container without capabilities may still run its root as root.
            Err(Errno::PERM) if uid == geteuid() && gid == getegid() => return Ok(()),
            other => other?,
        }
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

fn number_of(name: &str, text: &str) -> Answer<Option<u32>> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match name.parse() {
        Ok(number) if number <= MAX_NUMBER => Ok(Some(number)),
        _ => Err(Failure::invalid("user", format_args!("The number {name} in the user {text:?} is too great."))),
    }
}

fn unknown(text: &str, kind: &str, name: &str) -> Failure {
    let message = if text == name {
        format!("The {kind} {name:?} does not exist in the sandbox.")
    } else {
        format!("The {kind} {name:?} of the user {text:?} does not exist in the sandbox.")
    };
    Failure::new("not-found", "user", message)
}

/// The names of users and groups by number.
pub struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// Reads both files.
    pub fn read() -> Self {
        let names = |path: &str| {
            let text = read_lossy(path);
            let mut names = HashMap::new();
            for line in lines(&text) {
                if let Some(number) = line.number(2) {
                    names.entry(number).or_insert_with(|| line.name.to_string());
                }
            }
            names
        };
        Self { users: names("/etc/passwd"), groups: names("/etc/group") }
    }

    /// The name of a user, or the number as text.
    pub fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    /// The name of a group, or the number as text.
    pub fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_else(|| gid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# a comment\nagent:x:1000:1001::/home/agent:/bin/sh\n7:x:70:70::/seven:\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:other,agent\nagents:x:1001:\nwheel:x:10:agent\n";

    fn find(text: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        match User::find_in(text, PASSWD, GROUP) {
            Ok(user) => Ok((user.uid, user.gid, user.groups, user.home)),
            Err(failure) => Err(failure.payload()),
        }
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        assert_eq!(find("agent"), Ok((1000, 1001, vec![50, 10], "/home/agent".into())));
        assert_eq!(find("1000"), Ok((1000, 1001, vec![50, 10], "/home/agent".into())));
        assert_eq!(find("agent:staff"), Ok((1000, 50, vec![], "/home/agent".into())));
        assert_eq!(find("agent:99"), Ok((1000, 99, vec![], "/home/agent".into())));
        assert_eq!(find("1234"), Ok((1234, 0, vec![], "/".into())));
        assert_eq!(find("7"), Ok((70, 70, vec![], "/seven".into())));
        assert_eq!(find(""), Ok((0, 0, vec![], "/root".into())));
    }

    #[test]
    fn unknown_names_are_refused() {
        assert!(find("stranger").is_err_and(|payload| payload.starts_with("not-found\nuser\n")));
        assert!(find("agent:strangers").is_err_and(|payload| payload.starts_with("not-found\nuser\n")));
        assert!(find("4294967296").is_err_and(|payload| payload.starts_with("invalid\nuser\n")));
    }
}
