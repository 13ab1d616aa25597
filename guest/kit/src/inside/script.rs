//! Scripts that a provider runs inside a sandbox for its own operations, and their environment.
//!
//! They may run as root in an image whose PATH, LD_PRELOAD and the like lead to files that an unprivileged user of the
//! sandbox can change. So nothing of the image's environment reaches them: programs are looked up in the system's
//! directories, and in a few others when only root can write there; variables that load code or change what a program
//! does are empty. A caller's own command keeps the image's environment.

/// Where programs are looked up.
const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The shell that scripts are written for.
pub const SHELL: &str = "/bin/sh";

/// Where images without [`SHELL`] may have one (the debug variants of distroless images).
pub const OTHER_SHELL: (&str, &str) = ("/busybox", "/busybox/sh");

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
/// Directories beyond [`SYSTEM_PATH`] count when they are `safe`.
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

/// The environment of our own programs, over that of the image.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let set = [("PATH", SYSTEM_PATH), ("LC_ALL", "C"), ("IFS", " \t\n")];
    let empty = LOADER.into_iter().chain(OTHERS).map(|name| (name, ""));
    set.into_iter().chain(empty).map(|(name, value)| (name.to_string(), value.to_string()))
}

/// What [`Script::argv`] is given by a provider that cannot tell which directories are safe: no others than the system's
/// are used.
pub const NOWHERE_SAFE: &str = "safe() { return 1; }\n";

/// A script with its words, from `$1` on.
#[derive(Debug, Clone)]
pub struct Script {
    text: String,
    words: Vec<String>,
}

impl Script {
    /// A script of this text.
    #[must_use]
    pub fn new(text: impl Into<String>, words: &[&str]) -> Script {
        Script { text: text.into(), words: words.iter().map(|word| (*word).to_string()).collect() }
    }

    /// The argv that runs it. `safe` defines the shell function `safe DIRECTORY`, which succeeds when this directory and
    /// those above it belong to root and no other user may write there. It must not look up programs by PATH.
    #[must_use]
    pub fn argv(&self, safe: &str) -> Vec<String> {
        let text = format!("{HEAD}{safe}{}", self.text);
        let head = [SHELL, "-c", &text, "sh"].map(str::to_string);
        head.into_iter().chain(self.words.iter().cloned()).collect()
    }
}

/// Whether a program that is started with this variable may load what it names.
#[must_use]
pub fn is_loader(name: &str) -> bool {
    (name.starts_with("LD_") && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()))
        || LOADER.contains(&name)
}

/// Starts `argv` with these variables, which the programs before it were not to see.
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
