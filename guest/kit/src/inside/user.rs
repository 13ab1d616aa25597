//! Runs a command as another user, for services without such an option. A program of the image switches the user:
//! `setpriv`, `runuser` or `su`. It is found by its absolute path, so that `PATH`, which the caller can set, does not
//! choose it.
//!
//! The script of [`probe`] runs once per sandbox and user. It finds the program and the ids of the user. After that,
//! the switch costs only the start of the program, and a missing program or user is an error of `start` and not an
//! unexpected exit code.
//!
//! The program runs as root, so it does not get the variables for the dynamic linker (`LD_PRELOAD` and similar). They
//! are set again for the command.

use std::collections::HashMap;

use super::script::{self, Script};
use crate::api::{
    error::{Error, Result, shown},
    wit::ErrorKind,
};

/// Prints the switching program and the user as `key=value` lines. Needs only a shell, which reads `/etc/passwd` and
/// `/etc/group` itself. `$1` is the user, `$2` the group or empty.
const PROBE: &str = r#"
other=/busybox/busybox
[ -x "$other" ] && safe /busybox || other=
for path in /usr/bin/setpriv /bin/setpriv /usr/sbin/runuser /sbin/runuser /usr/bin/runuser /bin/su /usr/bin/su /bin/busybox /usr/bin/busybox $other; do
  [ -x "$path" ] || continue
  case "$path" in
    # Busybox has a setpriv that cannot change the user.
    */setpriv) "$path" --help 2>&1 | { while read -r line; do case "$line" in *--reuid*) exit 0;; esac; done; exit 1; } || continue;;
    */busybox) "$path" su --help >/dev/null 2>&1 || continue;;
  esac
  echo "helper=$path"
  break
done
while IFS=: read -r name _ uid gid _ home _; do
  if [ "$name" = "$1" ] || [ "$uid" = "$1" ]; then
    echo "name=$name"; echo "uid=$uid"; echo "gid=$gid"; echo "home=$home"
    break
  fi
done </etc/passwd
if [ -n "$2" ] && [ -r /etc/group ]; then
  while IFS=: read -r name _ gid _; do
    if [ "$name" = "$2" ] || [ "$gid" = "$2" ]; then echo "group=$gid"; break; fi
  done </etc/group
fi
while read -r key _ effective _; do
  case $key in Uid:) echo "own-uid=$effective";; Gid:) echo "own-gid=$effective";; esac
done </proc/self/status
"#;

/// Maximum number of bytes of the script's output that are read.
pub const MAX_PROBE_BYTES: u64 = 4096;

/// Returns the script that finds out how to switch to a user and a group. [`parse`] reads its output.
#[must_use]
pub fn probe(name: &str, group: Option<&str>) -> Script {
    Script::new(PROBE, &[name, group.unwrap_or_default()])
}

/// How to switch to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Empty if commands run as this user without a switch.
    helper: String,
    /// Empty for a numeric id without an account.
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    /// The dynamic linker's variables in the environment of the container.
    loader: Vec<(String, String)>,
}

impl Switch {
    /// Returns whether a program must switch the user.
    #[must_use]
    pub fn has_helper(&self) -> bool {
        !self.helper.is_empty()
    }

    /// Sets the variables of the container's environment that make programs load code; see [`script::is_loader`].
    #[must_use]
    pub fn with_loader(self, loader: Vec<(String, String)>) -> Switch {
        Switch { loader, ..self }
    }

    /// Returns the argv that runs `argv` with `env` as this user. Changes `env` to the environment of the switching
    /// program.
    #[must_use]
    pub fn wrap(&self, mut argv: Vec<String>, env: &mut HashMap<String, String>) -> Vec<String> {
        if self.helper.is_empty() {
            return argv;
        }
        let mut kept: Vec<(String, String)> =
            self.loader.iter().filter(|(name, _)| !env.contains_key(name)).cloned().collect();
        kept.extend(
            env.iter().filter(|(name, _)| script::is_loader(name)).map(|(name, value)| (name.clone(), value.clone())),
        );
        if !kept.is_empty() {
            argv = script::with_variables(&kept, argv);
            env.extend(kept.into_iter().map(|(name, _)| (name, String::new())));
        }
        let mut wrapped: Vec<String> = if self.helper.ends_with("/setpriv") {
            let groups = if self.name.is_empty() { "--clear-groups" } else { "--init-groups" };
            vec![
                self.helper.clone(),
                format!("--reuid={}", self.uid),
                format!("--regid={}", self.gid),
                groups.to_string(),
                "--".to_string(),
            ]
        } else if self.helper.ends_with("/runuser") {
            [&self.helper, "-u", &self.name, "--"].map(str::to_string).into()
        } else {
            let su: &[&str] = if self.helper.ends_with("/busybox") { &[&self.helper, "su"] } else { &[&self.helper] };
            su.iter()
                .chain(&["-s", "/bin/sh", "-c", r#"exec "$0" "$@""#, &self.name, "--"])
                .map(|word| (*word).to_string())
                .collect()
        };
        wrapped.extend(argv);
        wrapped
    }

    /// Returns whether the argv of [`Switch::wrap`] uses a shell.
    #[must_use]
    pub fn needs_shell(&self, env: &HashMap<String, String>) -> bool {
        !self.helper.is_empty()
            && (!(self.helper.ends_with("/setpriv") || self.helper.ends_with("/runuser"))
                || !self.loader.is_empty()
                || env.keys().any(|name| script::is_loader(name)))
    }

    /// Returns `HOME`, `USER` and `LOGNAME` of the user, which apply unless the caller sets them.
    pub fn environment(&self) -> impl Iterator<Item = (String, String)> {
        let mut pairs =
            vec![("HOME".to_string(), if self.home.is_empty() { "/".to_string() } else { self.home.clone() })];
        if !self.name.is_empty() {
            pairs.push(("USER".to_string(), self.name.clone()));
            pairs.push(("LOGNAME".to_string(), self.name.clone()));
        }
        pairs.into_iter()
    }
}

/// Splits `name|number[:group|number]` into user and group.
///
/// # Errors
///
/// `invalid-argument` with the subject `user` if a name is empty, longer than 64 characters or has other characters
/// than letters, digits, `_`, `-`, `.` and `$`.
pub fn split(user: &str) -> Result<(&str, Option<&str>)> {
    let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let good = |word: &str| {
        (1..=64).contains(&word.len())
            && !word.starts_with('-')
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'$'))
    };
    if good(name) && group.is_none_or(good) {
        return Ok((name, group));
    }
    Err(Error::invalid(format!(
        "`{}` is not a valid user: give a name or a number, such as `nobody` or `1000:1000`.",
        shown(user)
    ))
    .about("user"))
}

/// Makes the `unsupported` error (`exec.user`) for an image in which commands cannot run as this user.
#[must_use]
pub fn no_helper(user: &str, why: &str) -> Error {
    Error::unsupported(
        "exec.user",
        format!(
            "The image cannot run commands as `{}`: {why}. Use an image with setpriv, runuser or su, or run as the image's user.",
            shown(user)
        ),
    )
}

/// Parses the output of the script of [`probe`].
///
/// # Errors
///
/// `not-found` if the image does not have the user or the group; `unsupported` (`exec.user`) if it has no suitable
/// program, or if commands do not run as root.
pub fn parse(user: &str, name: &str, group: Option<&str>, text: &str) -> Result<Switch> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let number = |key: &str| value(key).and_then(|text| text.parse::<u32>().ok());
    let unknown = |what: &str, name: &str| {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "The image has no {what} `{name}`: see its /etc/{}.",
                if what == "group" { "group" } else { "passwd" }
            ),
        )
        .about("user")
    };
    let uid = match (number("uid"), name.parse::<u32>()) {
        (Some(uid), _) | (None, Ok(uid)) => uid,
        (None, Err(_)) => return Err(unknown("user", name)),
    };
    let gid = match group {
        None => number("gid").unwrap_or(uid),
        Some(group) => match (number("group"), group.parse::<u32>()) {
            (Some(gid), _) | (None, Ok(gid)) => gid,
            (None, Err(_)) => return Err(unknown("group", group)),
        },
    };
    let (own_uid, own_gid) = (number("own-uid").unwrap_or(0), number("own-gid").unwrap_or(0));
    let helper = if (uid, gid) == (own_uid, own_gid) {
        ""
    } else if own_uid != 0 {
        return Err(no_helper(
            user,
            &format!("commands in the sandbox run as user {own_uid}, and only root can change the user"),
        ));
    } else {
        value("helper").ok_or_else(|| no_helper(user, "it contains none of setpriv, runuser, su and busybox"))?
    };
    let switch = Switch {
        helper: helper.to_string(),
        name: value("name").unwrap_or_default().to_string(),
        uid,
        gid,
        home: value("home").unwrap_or_default().to_string(),
        loader: Vec::new(),
    };
    if !helper.is_empty() && !helper.ends_with("/setpriv") {
        if switch.name.is_empty() {
            return Err(no_helper(user, "no account has this number, and only setpriv works without an account"));
        }
        if group.is_some() {
            return Err(no_helper(user, "only setpriv can set a group"));
        }
    }
    Ok(switch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_split_and_checked() {
        assert_eq!(split("nobody").unwrap(), ("nobody", None));
        assert_eq!(split("1000:50").unwrap(), ("1000", Some("50")));
        for bad in ["", ":", "a:", ":b", "a b", "-x", "a;b", "$(id)", "ü", "a:b:c", &"x".repeat(65)] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn probes_are_understood() {
        let found = "helper=/usr/bin/setpriv\nname=www\nuid=33\ngid=34\nhome=/var/www\ngroup=4\n";
        let switch = parse("www", "www", None, found).unwrap();
        assert_eq!((switch.uid, switch.gid), (33, 34));
        let wrapped = switch.wrap(vec!["id".into(), "-u".into()], &mut HashMap::new());
        assert_eq!(wrapped, ["/usr/bin/setpriv", "--reuid=33", "--regid=34", "--init-groups", "--", "id", "-u"]);
        assert_eq!(parse("www:adm", "www", Some("adm"), found).unwrap().gid, 4);

        let number = parse("1234", "1234", None, "helper=/usr/bin/setpriv\n").unwrap();
        assert_eq!((number.uid, number.gid, number.name.as_str()), (1234, 1234, ""));
        assert!(number.wrap(Vec::new(), &mut HashMap::new()).contains(&"--clear-groups".to_string()));

        let su = parse("www", "www", None, "helper=/bin/su\nname=www\nuid=33\ngid=33\nhome=/\n").unwrap();
        assert_eq!(
            su.wrap(vec!["id".into()], &mut HashMap::new()),
            ["/bin/su", "-s", "/bin/sh", "-c", r#"exec "$0" "$@""#, "www", "--", "id"]
        );

        let mut env = HashMap::from([("LD_PRELOAD".to_string(), "/a".to_string()), ("A".to_string(), "b".to_string())]);
        let loader = [("LD_LIBRARY_PATH", "/l"), ("LD_PRELOAD", "/i")].map(|(name, value)| (name.into(), value.into()));
        let argv = Switch { loader: loader.into(), ..switch.clone() }.wrap(vec!["id".into()], &mut env);
        assert_eq!(argv[..5], wrapped[..5], "the helper first");
        assert_eq!(argv[argv.len() - 3..], ["/l", "/a", "id"], "the caller's wins over the image's");
        assert_eq!((&*env["LD_PRELOAD"], &*env["LD_LIBRARY_PATH"], &*env["A"]), ("", "", "b"));

        let own = parse("root", "root", None, "name=root\nuid=0\ngid=0\nhome=/root\nown-uid=0\nown-gid=0\n").unwrap();
        assert_eq!(own.wrap(vec!["id".into()], &mut HashMap::new()), ["id"], "no helper is needed");

        let kind = |result: Result<Switch>| format!("{:?}", result.unwrap_err().kind);
        assert_eq!(kind(parse("ghost", "ghost", None, "helper=/bin/su\n")), "ErrorKind::NotFound");
        assert_eq!(kind(parse("www", "www", None, "name=www\nuid=33\ngid=33\n")), "ErrorKind::Unsupported");
        assert_eq!(kind(parse("1234", "1234", None, "helper=/bin/su\n")), "ErrorKind::Unsupported");
        let other = "helper=/bin/su\nname=www\nuid=33\ngid=33\nown-uid=1000\nown-gid=1000\n";
        assert_eq!(kind(parse("www", "www", None, other)), "ErrorKind::Unsupported");
    }
}
