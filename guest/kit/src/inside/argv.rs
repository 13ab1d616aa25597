//! Wrappers around an argv that set the directory, the variables and arguments of any length. Each wrapper ends with
//! `exec`, so the caller's program becomes the started process and gets its exact arguments, input and output.

use std::collections::HashMap;

/// Returns whether the arguments have more than `limit` bytes in total.
#[must_use]
pub fn is_long(argv: &[String], limit: usize) -> bool {
    total(argv) > limit
}

fn total(argv: &[String]) -> usize {
    argv.iter().map(String::len).sum()
}

/// Wraps an argv in a shell that changes to a directory that is relative to the one it starts in. For services that
/// accept only absolute directories. The shell runs as the user of the command, so this user must be able to enter the
/// directory.
#[must_use]
pub fn in_directory(cwd: &str, argv: Vec<String>) -> Vec<String> {
    let shell = ["/bin/sh", "-c", r#"CDPATH= cd -- "$1" && shift && exec "$@""#, "sh", cwd];
    shell.into_iter().map(str::to_string).chain(argv).collect()
}

/// Wraps an argv in `env`, which sets the variables that a shell drops: a shell passes on only variables whose names
/// are valid in the shell. Returns the argv unchanged if there are none.
#[must_use]
pub fn past_a_shell(env: &HashMap<String, String>, argv: Vec<String>) -> Vec<String> {
    let mut others: Vec<String> =
        env.iter().filter(|(name, _)| !is_identifier(name)).map(|(name, value)| format!("{name}={value}")).collect();
    if !others.is_empty() {
        others.insert(0, "/usr/bin/env".to_string());
    }
    others.into_iter().chain(argv).collect()
}

/// Returns whether a shell can have a variable with this name.
fn is_identifier(name: &str) -> bool {
    let good =
        |(index, byte): (usize, u8)| byte == b'_' || byte.is_ascii_alphabetic() || index > 0 && byte.is_ascii_digit();
    !name.is_empty() && name.bytes().enumerate().all(good)
}

/// Returns a shell script that deletes its file and then executes `argv`. For services that limit the length of a
/// command line: write the script to a file and run it with a shell.
#[must_use]
pub fn script(argv: &[String]) -> String {
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
    fn variables_that_a_shell_would_drop_are_set_behind_it() {
        let env =
            HashMap::from([("a.b", "c d"), ("A", "x")].map(|(name, value)| (name.to_string(), value.to_string())));
        assert_eq!(past_a_shell(&env, vec!["id".into()]), ["/usr/bin/env", "a.b=c d", "id"]);
        assert_eq!(past_a_shell(&HashMap::new(), vec!["id".into()]), ["id"]);
    }
}
