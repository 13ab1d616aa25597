//! What is started for an argv: through which programs it goes until the one that was asked for runs, in its directory, as
//! its user, with arguments of any length. Each wrapper ends in `exec`, so the program is the process that was started and
//! sees exactly the arguments, the input and the output that it was meant to.

use crate::{
    bindings::Location,
    error::{Error, Result, clip, shown},
    files::tool_argv,
    ids,
    provider::Provider,
};

/// Longest argv that Modal takes, in bytes (fact sheet, section 7.4).
const MAX_ARGV_BYTES: usize = 65_536;

/// Longest single argument, in bytes: Linux's MAX_ARG_STRLEN less the zero byte at its end.
const MAX_ARGUMENT_BYTES: usize = 128 * 1024 - 1;

/// Longest argv in all, in bytes: three quarters of the stack that Linux gives to arguments at the very most. With the
/// usual limits a program gets a third of that; beyond, it ends with 126 and "Argument list too long".
const MAX_TOTAL_BYTES: usize = 6 * 1024 * 1024;

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

fn total(argv: &[String]) -> usize {
    argv.iter().map(String::len).sum()
}

/// Modal takes absolute directories only: a relative one is resolved by a shell, from where it was started.
pub(crate) fn in_directory(cwd: &str, argv: Vec<String>) -> Vec<String> {
    let shell = ["/bin/sh", "-c", r#"cd -- "$1" && shift && exec "$@""#, "sh", cwd];
    shell.into_iter().map(str::to_string).chain(argv).collect()
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
        if total(&argv) <= MAX_ARGV_BYTES {
            return Ok(argv);
        }
        let at = Location {
            sandbox: sandbox.to_string(),
            container: container.map(str::to_string),
            path: format!("/tmp/.sandbox-argv-{exec_id}"),
        };
        // Named after the exec, so that a repeated start writes nothing twice.
        let transfer = ids::derived_uuid(&format!("argv {exec_id}"));
        self.begin(&at, &transfer, tool_argv("WriteFile", &at.path)).await?;
        self.feed(sandbox, &transfer, script(&argv).into_bytes().into()).await?;
        self.finish(&at, &transfer).await?;
        Ok(vec!["/bin/sh".to_string(), at.path])
    }
}

/// A script that removes itself and becomes this command.
fn script(argv: &[String]) -> String {
    let mut text = String::with_capacity(total(argv) + 4 * argv.len() + 32);
    text.push_str("rm -f -- \"$0\"\nexec");
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
