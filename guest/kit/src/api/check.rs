//! Checks of arguments before a request is sent. All of them fail with `invalid-argument` and a message that says what
//! is wrong and what to give instead. The subject of the error is the argument or its value.

use super::{
    error::{Error, Result, clip, shown},
    ids,
    wit::{ExecSpec, Gpu},
};

/// Largest reply of one call, in bytes, as documented in the interface.
const MAX_REPLY_BYTES: u32 = 64 * 1024 * 1024;

/// Longest path, in bytes: `PATH_MAX` of Linux.
const MAX_PATH_BYTES: usize = 4096;

/// Longest single argument, in bytes: `MAX_ARG_STRLEN` of Linux without the terminating zero byte.
const MAX_ARGUMENT_BYTES: usize = 128 * 1024 - 1;

/// Largest argv, in bytes: Linux allows at most three quarters of an 8 MiB stack for arguments. Usual limits allow a
/// third of that; a longer argv then ends with the exit code 126 and "Argument list too long".
const MAX_TOTAL_BYTES: usize = 6 * 1024 * 1024;

/// Largest environment of one command, in bytes. It is sent in one message together with the command line, and servers
/// commonly accept messages of at most 4 MiB.
const MAX_ENVIRONMENT_BYTES: usize = 2 * 1024 * 1024;

/// Checks that there are no extra fields, for providers that define none.
///
/// # Errors
///
/// `invalid-argument` with the name of the first field as its subject.
pub fn extra(extra: &[(String, String)]) -> Result<()> {
    match extra.first() {
        None => Ok(()),
        Some((name, _)) => Err(Error::invalid(format!(
            "The extra field `{}` is unknown: this version has no extra fields.",
            shown(name)
        ))
        .about(name)),
    }
}

/// Returns the error for the case `other` of a variant of a request, for providers that define no further cases. `what`
/// is the field, such as `outbound`.
#[must_use]
pub fn unknown_case(what: &str, name: &str) -> Error {
    Error::invalid(format!("There is no {what} `{}` in this provider.", shown(name))).about(what)
}

/// Checks that a request leaves out a field that the provider does not support. `set` is whether the field is set, and
/// `capability` is what it needs.
///
/// # Errors
///
/// `unsupported` with the capability as its subject.
pub fn absent(set: bool, capability: &str) -> Result<()> {
    if set {
        return Err(Error::unsupported(
            capability,
            format!("This provider does not have the capability {capability}."),
        ));
    }
    Ok(())
}

/// Converts the argument `max-bytes` to the maximum size of a reply, in bytes: at most 64 MiB.
///
/// # Errors
///
/// `invalid-argument` if `max_bytes` is 0.
pub fn max_bytes(max_bytes: u32) -> Result<usize> {
    if max_bytes == 0 {
        return Err(Error::invalid("max-bytes is 0: request at least one byte."));
    }
    Ok(max_bytes.min(MAX_REPLY_BYTES) as usize)
}

/// Checks a path in a sandbox: absolute, without NUL characters, at most 4096 bytes.
///
/// # Errors
///
/// `invalid-argument` with the path as its subject.
pub fn path(path: &str) -> Result<()> {
    let fault = if !path.starts_with('/') {
        "is not absolute: begin it with `/`"
    } else if path.contains('\0') {
        "contains a NUL character"
    } else if path.len() > MAX_PATH_BYTES {
        "is longer than 4096 bytes"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("The path `{}` {fault}.", shown(&clip(path)))).about(path))
}

/// Checks that a file mode has at most twelve bits.
///
/// # Errors
///
/// `invalid-argument` if it has more.
pub fn permissions(permissions: u32) -> Result<()> {
    if permissions > 0o7777 {
        return Err(Error::invalid(format!(
            "{permissions:o} (octal) is not a file mode: a mode has twelve bits, 0 to 7777."
        )));
    }
    Ok(())
}

/// Checks a transfer id: 1 to 64 characters of `[A-Za-z0-9_-]`, and not the reserved id `main`.
///
/// # Errors
///
/// `invalid-argument` for another id.
pub fn transfer(transfer: &str) -> Result<()> {
    ids::check_chosen("a transfer id", transfer)?;
    if transfer == ids::MAIN {
        return Err(Error::invalid("`main` is the entry-point command: choose another transfer id, such as a UUID."));
    }
    Ok(())
}

/// Checks a signal to a command: a Linux signal number, 1 to 64, to any command except `main`.
///
/// # Errors
///
/// `invalid-argument` for another number, and for `main`.
pub fn signal(exec: &str, signal: u32) -> Result<()> {
    if exec == ids::MAIN {
        return Err(Error::invalid("The entry-point command `main` cannot be signalled.").about(exec));
    }
    if !(1..=64).contains(&signal) {
        return Err(Error::invalid(format!("{signal} is no signal: give a number from 1 to 64.")).about("signal"));
    }
    Ok(())
}

/// Checks the name of a sandbox: 1 to 64 characters of `[A-Za-z0-9._-]`.
///
/// # Errors
///
/// `invalid-argument` with the subject `name`.
pub fn name(name: &str) -> Result<()> {
    let good = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if good {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{}` is not a valid sandbox name: use 1 to 64 letters, digits, `.`, `_` and `-`.",
        shown(name)
    ))
    .about("name"))
}

/// Checks an accelerator: a model of letters, digits, `-` and `_`, and a count of at least 1.
///
/// # Errors
///
/// `invalid-argument` with the subject `gpu`.
pub fn gpu(gpu: &Gpu) -> Result<()> {
    let named = !gpu.model.is_empty() && gpu.model.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if named && gpu.count > 0 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{} × `{}` is not a valid accelerator: give a model such as H100 and a number of at least 1.",
        gpu.count,
        shown(&gpu.model)
    ))
    .about("gpu"))
}

/// Checks the specification of a command: its id, argv, environment, working directory, time limit and extra fields.
///
/// # Errors
///
/// `invalid-argument` for the first field that is not valid.
pub fn exec_spec(spec: &ExecSpec) -> Result<()> {
    ids::check_chosen("an exec id", &spec.id)?;
    if spec.id == ids::MAIN {
        return Err(Error::invalid(
            "The exec id `main` stands for the entry-point command: choose another, such as a UUID.",
        ));
    }
    argv(&spec.argv)?;
    env(&spec.env)?;
    if spec.cwd.as_deref().is_some_and(|cwd| cwd.is_empty() || cwd.contains('\0')) {
        return Err(Error::invalid("The working directory is empty or contains a NUL character: give a path."));
    }
    if spec.timeout == Some(0) {
        return Err(Error::invalid("The time limit is 0: give a positive time, or omit it for no limit."));
    }
    extra(&spec.extra)
}

/// Checks an argv: it is not empty, its program is named, no argument has a NUL character or more than 131071 bytes,
/// and all arguments together have at most 6 MiB.
///
/// # Errors
///
/// `invalid-argument` for the first of these rules that is broken.
pub fn argv(argv: &[String]) -> Result<()> {
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
                "The argument `{}` contains a NUL character, which Linux does not permit.",
                shown(&clip(argument))
            )));
        }
        if argument.len() > MAX_ARGUMENT_BYTES {
            return Err(Error::invalid(format!(
                "An argument has {} bytes, more than the {MAX_ARGUMENT_BYTES} that Linux permits: pass it by stdin or a file.",
                argument.len()
            )));
        }
    }
    let total: usize = argv.iter().map(String::len).sum();
    if total > MAX_TOTAL_BYTES {
        return Err(Error::invalid(format!(
            "The command has {total} bytes, more than the {MAX_TOTAL_BYTES} that Linux permits: pass data by stdin or a file."
        )));
    }
    Ok(())
}

/// Checks environment variables: the name is not empty and has neither `=` nor NUL, the value has no NUL, one variable
/// fits Linux's limit for an argument, and all variables together have at most 2 MiB.
///
/// # Errors
///
/// `invalid-argument`, with the variable's name as its subject if one variable is at fault.
pub fn env(env: &[(String, String)]) -> Result<()> {
    let mut total = 0;
    for (name, value) in env {
        let fault = if name.is_empty() || name.contains(['=', '\0']) {
            "has an invalid name: a name is not empty and contains neither `=` nor NUL"
        } else if value.contains('\0') {
            "has a value with a NUL character, which Linux does not permit"
        } else if name.len() + value.len() + 1 > MAX_ARGUMENT_BYTES {
            "has a value that is too long: Linux permits 131072 bytes per variable"
        } else {
            total += name.len() + value.len() + 2;
            continue;
        };
        let name = clip(name);
        return Err(Error::invalid(format!("The environment variable `{}` {fault}.", shown(&name))).about(&name));
    }
    if total > MAX_ENVIRONMENT_BYTES {
        return Err(Error::invalid(format!(
            "The environment has {total} bytes, more than the permitted {MAX_ENVIRONMENT_BYTES}: pass data by a file."
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wit::OutputMode;

    #[test]
    fn bad_specs_are_refused_with_their_reason() {
        let spec = |change: fn(&mut ExecSpec)| {
            let mut spec = ExecSpec {
                id: "e1".into(),
                argv: vec!["true".into()],
                env: Vec::new(),
                secrets: Vec::new(),
                cwd: None,
                user: None,
                timeout: None,
                pty: None,
                stdout: OutputMode::Keep,
                stderr: OutputMode::Keep,
                merge_stderr: false,
                container: None,
                extra: Vec::new(),
            };
            change(&mut spec);
            exec_spec(&spec).map_err(|error| error.into_record().message)
        };
        assert_eq!(spec(|_| {}), Ok(()));
        type Change = fn(&mut ExecSpec);
        let refused: [(Change, &str); 7] = [
            (|s| s.argv.clear(), "empty"),
            (|s| s.argv[0].clear(), "empty"),
            (|s| s.argv.push("a\0b".into()), "NUL"),
            (|s| s.id = "main".into(), "main"),
            (|s| s.env.push(("A=B".into(), "x".into())), "A=B"),
            (|s| s.timeout = Some(0), "time limit"),
            (|s| s.extra.push(("nice".into(), "1".into())), "nice"),
        ];
        for (change, text) in refused {
            assert!(spec(change).is_err_and(|message| message.contains(text)), "{text}");
        }
    }

    #[test]
    fn bad_paths_are_refused() {
        assert!(path("/a b/ü").is_ok());
        for bad in ["", "a", "./a", "/a\0b", &format!("/{}", "x".repeat(4096))] {
            assert!(path(bad).is_err(), "{bad:.20}");
        }
    }

    #[test]
    fn variables_of_any_name_that_linux_takes() {
        let check = |name: &str, value: &str| env(&[(name.to_string(), value.to_string())]);
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
        assert!(env(&many).unwrap_err().into_record().message.contains("bytes"));
    }

    #[test]
    fn impossible_arguments_are_refused() {
        let check = |words: &[&str]| argv(&words.iter().map(|a| (*a).to_string()).collect::<Vec<_>>());
        assert!(check(&["true"]).is_ok());
        let long = "x".repeat(MAX_ARGUMENT_BYTES + 1);
        assert!(check(&["echo", &long[1..]]).is_ok());
        for (words, word) in [
            (vec![], "empty"),
            (vec![""], "empty"),
            (vec!["a", "b\0c"], "NUL"),
            (vec!["a", long.as_str()], "131072 bytes"),
            (vec!["a"; MAX_TOTAL_BYTES + 1], "that Linux permits"),
        ] {
            let message = check(&words).unwrap_err().into_record().message;
            assert!(message.contains(word), "{word}: {message}");
        }
    }
}
