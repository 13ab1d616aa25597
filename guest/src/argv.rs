//! What is started for an argv: through which programs it goes until the one that was asked for runs, in its directory, as
//! its user, with arguments of any length. Each wrapper ends in `exec`, so the program is the process that was started and
//! sees exactly the arguments, the input and the output that it was meant to.

use std::collections::HashMap;

use crate::{
    bindings::Location,
    error::{Error, Result, clip, shown},
    files::tool_argv,
    ids, inside,
    provider::Provider,
};

/// Longest argv that Modal takes, in bytes (fact sheet, section 7.4).
const MAX_ARGV_BYTES: usize = 65_536;

/// Longest single argument, in bytes: Linux's MAX_ARG_STRLEN less the zero byte at its end.
const MAX_ARGUMENT_BYTES: usize = 128 * 1024 - 1;

/// Longest argv in all, in bytes: three quarters of the stack that Linux gives to arguments at the very most. With the
/// usual limits a program gets a third of that; beyond, it ends with 126 and "Argument list too long".
const MAX_TOTAL_BYTES: usize = 6 * 1024 * 1024;

/// Largest environment of one exec, in bytes: it goes in one message, beside a command line of [`MAX_ARGV_BYTES`], and gRPC
/// servers take messages of 4 MiB.
const MAX_ENVIRONMENT_BYTES: usize = 2 * 1024 * 1024;

/// Refuses what no program can be given.
///
/// # Errors
///
/// `invalid-argument`.
pub(crate) fn check(argv: &[String]) -> Result<()> {
    match argv.first() {
        None => return Err(Error::invalid("The command is empty: give a program and its arguments.")),
        Some(program) if program.is_empty() => {
            return Err(Error::invalid("The program's name is empty: give a name or a path."));
        }
        Some(_) => {}
    }
    for argument in argv {
        if argument.contains('\0') {
            return Err(Error::invalid(format!(
                "The argument `{}` contains a NUL character, which no program can be given.",
                shown(&clip(argument))
            )));
        }
        if argument.len() > MAX_ARGUMENT_BYTES {
            return Err(Error::invalid(format!(
                "An argument has {} bytes and Linux takes {MAX_ARGUMENT_BYTES}: pass it by stdin or a file.",
                argument.len()
            )));
        }
    }
    let total = total(argv);
    if total > MAX_TOTAL_BYTES {
        return Err(Error::invalid(format!(
            "The command has {total} bytes and Linux takes {MAX_TOTAL_BYTES} at the most: pass the rest by stdin or a file."
        )));
    }
    Ok(())
}

/// Whether Modal takes no command line of this length.
pub(crate) fn is_long(argv: &[String]) -> bool {
    total(argv) > MAX_ARGV_BYTES
}

fn total(argv: &[String]) -> usize {
    argv.iter().map(String::len).sum()
}

/// Modal takes absolute directories only: a relative one is resolved by a shell, from where it was started. As the user of
/// the command, so that the directory is one that this user may enter.
pub(crate) fn in_directory(cwd: &str, argv: Vec<String>) -> Vec<String> {
    let shell = ["/bin/sh", "-c", r#"CDPATH= cd -- "$1" && shift && exec "$@""#, "sh", cwd];
    shell.into_iter().map(str::to_string).chain(argv).collect()
}

/// A shell passes on only variables whose names it could use itself. Others are set again behind it, by `env`.
pub(crate) fn past_a_shell(env: &HashMap<String, String>, argv: Vec<String>) -> Vec<String> {
    let mut others: Vec<String> =
        env.iter().filter(|(name, _)| !is_identifier(name)).map(|(name, value)| format!("{name}={value}")).collect();
    if !others.is_empty() {
        others.insert(0, "/usr/bin/env".to_string());
    }
    others.into_iter().chain(argv).collect()
}

/// Whether a shell can have a variable of this name.
fn is_identifier(name: &str) -> bool {
    let good =
        |(index, byte): (usize, u8)| byte == b'_' || byte.is_ascii_alphabetic() || index > 0 && byte.is_ascii_digit();
    !name.is_empty() && name.bytes().enumerate().all(good)
}

/// Refuses variables that no program can be given.
///
/// # Errors
///
/// `invalid-argument`.
pub(crate) fn check_env(env: &[(String, String)]) -> Result<()> {
    let mut total = 0;
    for (name, value) in env {
        let fault = if name.is_empty() || name.contains(['=', '\0']) {
            "cannot name an environment variable: a name is not empty and has neither `=` nor NUL"
        } else if value.contains('\0') {
            "has a value with a NUL character, which no program can be given"
        } else if name.len() + value.len() + 1 > MAX_ARGUMENT_BYTES {
            "has a value that is too long: Linux takes 131072 bytes for a variable"
        } else {
            total += name.len() + value.len() + 2;
            continue;
        };
        let name = clip(name);
        return Err(Error::invalid(format!("The environment variable `{}` {fault}.", shown(&name))).about(&name));
    }
    if total > MAX_ENVIRONMENT_BYTES {
        return Err(Error::invalid(format!(
            "The environment has {total} bytes and may have {MAX_ENVIRONMENT_BYTES} at the most: pass the rest by a file."
        )));
    }
    Ok(())
}

impl Provider {
    /// The argv to start for `argv`: the same, or when Modal would not take it, a shell that reads it from a file.
    ///
    /// # Errors
    ///
    /// What writing the file gives.
    pub(crate) async fn bootstrap(
        &self,
        sandbox: &str,
        container: Option<&str>,
        exec_id: &str,
        argv: Vec<String>,
    ) -> Result<Vec<String>> {
        if !is_long(&argv) {
            return Ok(argv);
        }
        let at = Location {
            sandbox: sandbox.to_string(),
            container: container.map(str::to_string),
            path: format!("/tmp/.{exec_id}.sh"),
        };
        // Named after the exec, so that a repeated start writes nothing twice.
        let transfer = ids::derived_uuid(&format!("argv {exec_id}"));
        self.begin(&at, &transfer, tool_argv("WriteFile", &at.path)).await?;
        self.feed(sandbox, &transfer, script(&argv).into_bytes().into()).await?;
        self.finish(&at, &transfer).await?;
        Ok(self.placed(sandbox, container, vec![inside::SHELL.to_string(), at.path]))
    }
}

/// A script that removes itself and becomes this command.
fn script(argv: &[String]) -> String {
    let mut text = String::with_capacity(total(argv) + 4 * argv.len() + 32);
    text.push_str("(PATH=/usr/bin:/bin; exec rm -f -- \"$0\")\nexec");
    for argument in argv {
        text.push_str(" '");
        text.push_str(&argument.replace('\'', r"'\''"));
        text.push('\'');
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_gives_the_arguments_unchanged() {
        let argv: Vec<String> =
            ["printf", "%s|", "", "a b", "it's", "$HOME `id` \\ \"", "line\nbreak", "-n", "\u{141}ódź\u{81}"]
                .map(str::to_string)
                .into();
        let directory = std::env::temp_dir().join(format!("argv-{}", std::process::id()));
        std::fs::write(&directory, script(&argv)).unwrap();
        let output = std::process::Command::new("/bin/sh").arg(&directory).output().unwrap();
        let expected: String = argv[2..].iter().map(|argument| format!("{argument}|")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        assert!(!directory.exists(), "it removes itself");
    }

    #[test]
    fn variables_of_any_name_that_linux_takes() {
        let check = |name: &str, value: &str| check_env(&[(name.to_string(), value.to_string())]);
        for name in ["A", "discovery.type", "1A", "a-b", "ü", "a b"] {
            assert!(check(name, "x").is_ok(), "{name}");
        }
        let long = "x".repeat(MAX_ARGUMENT_BYTES);
        for (name, value, word) in [
            ("", "x", "name"),
            ("a=b", "x", "name"),
            ("a\0", "x", "name"),
            ("A", "x\0y", "NUL"),
            ("A", &long, "too long"),
        ] {
            let message = check(name, value).unwrap_err().into_record().message;
            assert!(message.contains(word), "{word}: {message}");
        }
        let many: Vec<_> = (0..100).map(|n| (format!("A{n}"), "x".repeat(100_000))).collect();
        assert!(check_env(&many).unwrap_err().into_record().message.contains("bytes"));

        let env =
            HashMap::from([("a.b", "c d"), ("A", "x")].map(|(name, value)| (name.to_string(), value.to_string())));
        assert_eq!(past_a_shell(&env, vec!["id".into()]), ["/usr/bin/env", "a.b=c d", "id"]);
        assert_eq!(past_a_shell(&HashMap::new(), vec!["id".into()]), ["id"]);
    }

    #[test]
    fn impossible_arguments_are_refused() {
        let check = |argv: &[&str]| check(&argv.iter().map(|a| (*a).to_string()).collect::<Vec<_>>());
        assert!(check(&["true"]).is_ok());
        let long = "x".repeat(MAX_ARGUMENT_BYTES + 1);
        assert!(check(&["echo", &long[1..]]).is_ok());
        for (argv, word) in [
            (vec![], "empty"),
            (vec![""], "empty"),
            (vec!["a", "b\0c"], "NUL"),
            (vec!["a", long.as_str()], "131072 bytes"),
            (vec!["a"; MAX_TOTAL_BYTES + 1], "at the most"),
        ] {
            let message = check(&argv).unwrap_err().into_record().message;
            assert!(message.contains(word), "{word}: {message}");
        }
    }
}
