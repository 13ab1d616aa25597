//! Commands, signals, and the modes of a write.

use sandbox_host::{Signal, fresh_id};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::basic::{Extras, Pairs, Shape, object, shorthand};
use super::spec::Pty;

variant! {
    OutputMode { Keep, Discard }
    Keep { Head, Tail }
    WriteMode { Replace, Append, CreateNew }
}

record! {
    ExecSpec {
        #[serde(default = "fresh_id")]
        id: String,
        argv: Vec<String>,
        #[serde(default)]
        env: Pairs,
        #[serde(default)]
        secrets: Vec<String>,
        cwd: Option<String>,
        user: Option<String>,
        timeout: Option<u64>,
        pty: Option<Pty>,
        #[serde(default = "keep")]
        stdout: OutputMode,
        #[serde(default = "keep")]
        stderr: OutputMode,
        #[serde(default)]
        merge_stderr: bool,
        container: Option<String>,
        #[serde(default)]
        extra: Extras,
    }
}

fn keep() -> OutputMode {
    OutputMode::Keep
}

/// A command. `shell` is a line for `/bin/sh -c`, instead of `argv`.
#[derive(Debug)]
pub(crate) struct Command(pub(crate) sandbox_host::types::ExecSpec);

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut map = object(Value::deserialize(from)?, "a command")?;
        shorthand(&mut map, "shell", "argv", |line| match line {
            Value::String(line) => Ok(json!(["/bin/sh", "-c", line])),
            _ => Err(D::Error::custom("`shell` must be a string")),
        })?;
        if map.get("id").is_some_and(Value::is_null) {
            map.remove("id");
        }
        let spec: ExecSpec = serde_json::from_value(Value::Object(map)).map_err(D::Error::custom)?;
        Ok(Command(spec.into_wit()))
    }
}

/// A signal: its number, or its name with or without `SIG`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SignalName(pub(crate) Signal);

/// The names and numbers of the signals that a program can be sent, on Linux.
const SIGNALS: [(&str, u32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

impl<'de> Deserialize<'de> for SignalName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let number = match &value {
            Value::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
            Value::String(name) => {
                let name = name.to_ascii_uppercase();
                let name = name.strip_prefix("SIG").unwrap_or(&name);
                SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
            }
            _ => None,
        };
        let signal = number.and_then(Signal::new);
        signal.map(SignalName).ok_or_else(|| D::Error::custom(format!("{value} is no signal: use a name or 1 to 64")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let command: Command = serde_json::from_value(json!({ "shell": "exit 3", "cwd": "/" })).expect("unusable");
        assert_eq!(command.0.argv, ["/bin/sh", "-c", "exit 3"]);
        assert!(!command.0.id.is_empty());
        let command: Command =
            serde_json::from_value(json!({ "argv": ["a"], "id": "x", "timeout": 5 })).expect("unusable");
        assert_eq!((command.0.id.as_str(), command.0.timeout), ("x", Some(5)));
        for bad in
            [json!({}), json!({ "shell": 1 }), json!({ "argv": ["a"], "shell": "b" }), json!("a"), json!({ "argc": 1 })]
        {
            assert!(serde_json::from_value::<Command>(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (value, number) in [(json!("TERM"), 15), (json!("sigkill"), 9), (json!(64), 64), (json!("SIGWINCH"), 28)] {
            let signal: SignalName = serde_json::from_value(value).expect("no signal");
            assert_eq!(signal.0.number(), number);
        }
        for bad in [json!("TREM"), json!(0), json!(65), json!(-1), json!(null), json!(1.5)] {
            assert!(serde_json::from_value::<SignalName>(bad.clone()).is_err(), "{bad}");
        }
    }
}
