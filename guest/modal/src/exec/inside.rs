//! What is run inside a sandbox for our own operations: scripts, the programs that they call, and their environment.
//!
//! They may run as root in an image whose PATH, LD_PRELOAD and the like lead to files that an unprivileged user of the
//! sandbox can change. So nothing of the image's environment reaches them: programs are looked up in the system's
//! directories, and in a few others when only root can write there; variables that load code or change what a program
//! does are empty. A caller's own command keeps the image's environment.

use crate::{files::transfer::TOOL, provider::Provider};
use sandbox_provider_kit::{
    Error,
    api::{
        ids,
        wit::{ErrorKind, FileFault, FileInfo, FileKind, Location},
    },
    platform::LocalFuture,
};

/// Where programs are looked up.
const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The shell that scripts are written for.
pub(crate) const SHELL: &str = "/bin/sh";

/// Where images without [`SHELL`] may have one (the debug variants of distroless images).
const OTHER_SHELL: (&str, &str) = ("/busybox", "/busybox/sh");

/// Variables that make a program load code, and that the dynamic linker takes for not set when they are empty.
const LOADER: [&str; 8] =
    ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "LD_DEBUG", "LD_PROFILE", "GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH"];

/// Further variables that change what a shell or a program does; no effect when empty.
const OTHERS: [&str; 18] = [
    "BASH_ENV",
    "ENV",
    "SHELLOPTS",
    "BASHOPTS",
    "CDPATH",
    "GLOBIGNORE",
    "TAR_OPTIONS",
    "TAR_READER_OPTIONS",
    "TAR_WRITER_OPTIONS",
    "GREP_OPTIONS",
    "NLSPATH",
    "LANGUAGE",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PERL5LIB",
    "PERL5OPT",
    "PERL5DB",
];

/// Before each script: no functions out of the environment, and `need`, which ends with 127 when a program is missing.
/// Directories beyond [`SYSTEM_PATH`] count when they and those above belong to root and no other user may write there.
const HEAD: &str = r#"unset POSIXLY_CORRECT
unset -f cd command echo kill read umask 2>/dev/null
need() {
  for tool in "$@"; do
    command -v "$tool" >/dev/null 2>&1 && continue
    for place in /usr/local/bin /busybox; do
      case :$PATH: in *":$place:"*) ;; *) safe "$place" && PATH=$PATH:$place;; esac
    done
    command -v "$tool" >/dev/null 2>&1 || { echo "$tool: not found" >&2; exit 127; }
  done
}
safe() {
  while [ -n "$1" ]; do
    said=$(TOOL "{\"Stat\":{\"path\":\"$1\"}}" 2>/dev/null) || return 1
    case $said in *'"type":"directory"'*|*'"type": "directory"'*) ;; *) return 1;; esac
    case $said in *'"owner":"root"'*|*'"owner": "root"'*|*'"owner":"0"'*|*'"owner": "0"'*) ;; *) return 1;; esac
    case $said in *'"permissions":"'?[0-7][0145][0145]'"'*|*'"permissions": "'?[0-7][0145][0145]'"'*) ;; *) return 1;; esac
    set -- "${1%/*}"
  done
}
"#;

/// The environment of our own programs, over that of the image.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    let set = [("PATH", SYSTEM_PATH), ("LC_ALL", "C"), ("IFS", " \t\n")];
    let empty = LOADER.into_iter().chain(OTHERS).map(|name| (name, ""));
    set.into_iter().chain(empty).map(|(name, value)| (name.to_string(), value.to_string()))
}

/// A script with its words, from `$1` on.
pub(crate) fn script(text: &str, words: &[&str]) -> Vec<String> {
    let text = format!("{}{text}", HEAD.replace("TOOL", TOOL));
    [SHELL, "-c", &text, "sh"].iter().chain(words).map(|word| (*word).to_string()).collect()
}

/// Whether a program that is started with this variable may load what it names.
pub(crate) fn is_loader(name: &str) -> bool {
    (name.starts_with("LD_") && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()))
        || LOADER.contains(&name)
}

/// Starts `argv` with these variables, which the programs before it were not to see.
pub(crate) fn with_variables(variables: &[(String, String)], argv: Vec<String>) -> Vec<String> {
    let mut text: String = variables.iter().map(|(name, _)| format!("{name}=$1; export {name}; shift\n")).collect();
    text.push_str(r#"exec "$@""#);
    let head = [SHELL, "-c", &text, "sh"].map(str::to_string);
    head.into_iter().chain(variables.iter().map(|(_, value)| value.clone())).chain(argv).collect()
}

impl Provider {
    /// What a script is started as in a container: with the shell that was found there.
    pub(crate) fn placed(&self, sandbox: &str, container: Option<&str>, mut argv: Vec<String>) -> Vec<String> {
        let key = (sandbox.to_string(), container.map(str::to_string));
        if argv.first().is_some_and(|program| program == SHELL) && self.inner.state.borrow().shells.get(&key).is_some()
        {
            argv[0] = OTHER_SHELL.1.to_string();
        }
        argv
    }

    /// The transfer that a script does: another one where the container has its shell in another place, since the first has
    /// been used up by then.
    pub(crate) fn script_id(&self, at: &Location, transfer: &str) -> String {
        match self.inner.state.borrow().shells.get(&(at.sandbox.clone(), at.container.clone())) {
            Some(()) => ids::derived_uuid(&format!("shell {transfer}")),
            None => transfer.to_string(),
        }
    }

    /// Whether a script failed because the container has its shell in another place, where it is to be tried again.
    pub(crate) fn is_elsewhere<'a>(&'a self, at: &'a Location, error: Option<&'a Error>) -> LocalFuture<'a, bool> {
        Box::pin(async move {
            error.is_some_and(|error| matches!(error.kind, ErrorKind::Unsupported))
                && self.find_shell(&at.sandbox, at.container.as_deref()).await
        })
    }

    /// Looks for a shell where [`SHELL`] is not there. False if nothing new was found.
    pub(crate) fn find_shell<'a>(&'a self, sandbox: &'a str, container: Option<&'a str>) -> LocalFuture<'a, bool> {
        Box::pin(async move {
            let key = (sandbox.to_string(), container.map(str::to_string));
            if self.inner.state.borrow().shells.get(&key).is_some() {
                return false;
            }
            for (path, good) in [(SHELL, false), (OTHER_SHELL.0, true), (OTHER_SHELL.1, true)] {
                let at = Location { sandbox: key.0.clone(), container: key.1.clone(), path: path.to_string() };
                let as_hoped = match self.stat(&at, true).await {
                    Ok(found) => good && (path != OTHER_SHELL.0 || is_roots(&found)),
                    Err(error) => !good && matches!(error.kind, ErrorKind::File(FileFault::NotFound)),
                };
                if !as_hoped {
                    return false;
                }
            }
            self.inner.state.borrow_mut().shells.insert(key, ());
            true
        })
    }

    /// The variables of a container's environment that make programs load code, with their values. Read by Modal's
    /// helper, which is linked statically and so loads nothing.
    pub(crate) async fn loader_variables(&self, sandbox: &str, container: Option<&str>) -> Vec<(String, String)> {
        let at = Location {
            sandbox: sandbox.to_string(),
            container: container.map(str::to_string),
            path: "/proc/self/environ".to_string(),
        };
        let found = self
            .answer_in(&at, crate::files::transfer::tool_argv("ReadFile", &at.path), false)
            .await
            .unwrap_or_default();
        let pairs = found.split(|byte| *byte == 0).filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once('='));
        let wanted = pairs.filter(|(name, value)| is_loader(name) && !value.is_empty());
        wanted.map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }
}

/// Whether only root can put something there.
fn is_roots(found: &FileInfo) -> bool {
    matches!(found.kind, FileKind::Directory) && matches!(&*found.owner, "root" | "0") && found.mode & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(argv: &[String], environment: &[(&str, &str)]) -> String {
        let output = std::process::Command::new(&argv[0])
            .args(&argv[1..])
            .envs(environment.iter().copied())
            .envs(super::environment())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    }

    #[test]
    fn a_script_sees_nothing_of_the_environment_that_changes_it() {
        let hostile = [("PATH", "/nowhere"), ("LD_PRELOAD", "/nowhere/x.so"), ("IFS", "x"), ("POSIXLY_CORRECT", "1")];
        let argv = script(r#"need cat; v='axb c'; printf '<%s>' $v "${POSIXLY_CORRECT-unset}"; echo ok | cat"#, &[]);
        assert_eq!(run(&argv, &hostile), "<axb><c><unset>ok\n");
        assert_eq!(run(&script("need no-such-program; echo reached", &[]), &[]), "no-such-program: not found\n");
        assert_eq!(run(&script(r#"printf '%s|' "$@""#, &["a b", "", "$x"]), &[]), "a b||$x|");
    }

    #[test]
    fn variables_come_back_for_the_command() {
        let variables =
            [("LD_A", "it's $x\n"), ("LD_B", "")].map(|(name, value)| (name.to_string(), value.to_string()));
        let argv = ["sh", "-c", r#"printf '%s|' "$LD_A" "$LD_B" "$@""#, "sh", "a b", "-n"].map(str::to_string);
        assert_eq!(run(&with_variables(&variables, argv.into()), &[]), "it's $x\n||a b|-n|");
    }

    #[test]
    fn what_loads_code() {
        for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GCONV_PATH", "LD_ANYTHING_NEW"] {
            assert!(is_loader(name), "{name}");
        }
        for name in ["PATH", "LDFLAGS", "LD_X;id", "HOME", "BASH_ENV"] {
            assert!(!is_loader(name), "{name}");
        }
    }
}
