//! Scripts that a provider runs inside a sandbox, and their environment.
//!
//! Scripts may run as root in an image whose `PATH`, `LD_PRELOAD` and similar variables refer to files that an
//! unprivileged user of the sandbox can change. Scripts therefore do not use the environment of the image. They look up
//! programs only in the system's directories, and in a few others if only root can write there. Variables that load
//! code or change the behaviour of a program are set to the empty string. A caller's command keeps the environment of
//! the image.

/// The directories in which programs are looked up.
const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The shell that scripts are written for.
pub const SHELL: &str = "/bin/sh";

/// The directory and path of the shell in images without [`SHELL`], such as the debug variants of distroless images.
pub const OTHER_SHELL: (&str, &str) = ("/busybox", "/busybox/sh");

/// Variables that make a program load code. The dynamic linker ignores them if they are empty.
const LOADER: [&str; 8] =
    ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "LD_DEBUG", "LD_PROFILE", "GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH"];

/// Other variables that change the behaviour of a shell or a program. They have no effect if they are empty.
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

/// The beginning of each script. Removes functions that come from the environment, and defines `need`, which exits with
/// 127 if a program is missing. Adds directories beyond [`SYSTEM_PATH`] to the path only if `safe` accepts them.
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
"#;

/// Returns the variables that a provider's own programs get in addition to those of the image, which they override.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let set = [("PATH", SYSTEM_PATH), ("LC_ALL", "C"), ("IFS", " \t\n")];
    let empty = LOADER.into_iter().chain(OTHERS).map(|name| (name, ""));
    set.into_iter().chain(empty).map(|(name, value)| (name.to_string(), value.to_string()))
}

/// The argument of [`Script::argv`] for providers that cannot tell which directories are safe: only the system's
/// directories are used.
pub const NOWHERE_SAFE: &str = "safe() { return 1; }\n";

/// A script with its arguments, which begin at `$1`.
#[derive(Debug, Clone)]
pub struct Script {
    text: String,
    words: Vec<String>,
}

impl Script {
    /// Makes a script from its text and its arguments.
    #[must_use]
    pub fn new(text: impl Into<String>, words: &[&str]) -> Script {
        Script { text: text.into(), words: words.iter().map(|word| (*word).to_string()).collect() }
    }

    /// Returns the argv that runs the script. `safe` defines the shell function `safe DIRECTORY`, which succeeds if the
    /// directory and its parents belong to root and no other user can write there. It must not look up programs by
    /// `PATH`.
    #[must_use]
    pub fn argv(&self, safe: &str) -> Vec<String> {
        let text = format!("{HEAD}{safe}{}", self.text);
        let head = [SHELL, "-c", &text, "sh"].map(str::to_string);
        head.into_iter().chain(self.words.iter().cloned()).collect()
    }
}

/// Returns whether a variable with this name can make a program load code.
#[must_use]
pub fn is_loader(name: &str) -> bool {
    (name.starts_with("LD_") && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()))
        || LOADER.contains(&name)
}

/// Wraps an argv in a shell that sets `variables`, so that programs before the shell do not see them.
#[must_use]
pub fn with_variables(variables: &[(String, String)], argv: Vec<String>) -> Vec<String> {
    let mut text: String = variables.iter().map(|(name, _)| format!("{name}=$1; export {name}; shift\n")).collect();
    text.push_str(r#"exec "$@""#);
    let head = [SHELL, "-c", &text, "sh"].map(str::to_string);
    head.into_iter().chain(variables.iter().map(|(_, value)| value.clone())).chain(argv).collect()
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

    fn script(text: &str, words: &[&str]) -> Vec<String> {
        Script::new(text, words).argv(NOWHERE_SAFE)
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
