//! The arguments of a verb: `NAME=VALUE…`, then `--` and the words of a command.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    time::Duration,
};

use base64ct::{Base64, Encoding};

use crate::{
    answer::{Answer, Failure},
    base::{Base, Upload},
};

/// The arguments of one call.
pub struct Args {
    named: Vec<(String, String)>,
    /// The words after `--`, or from the file that `args=@NAME` names.
    pub argv: Vec<OsString>,
}

/// The arguments of `init` that hold for all commands and files of the sandbox.
const SETTINGS: [&str; 2] = ["user", "home"];

impl Args {
    /// Parses everything after the verb. `base=DIR` and `args=@NAME` are handled here.
    ///
    /// # Errors
    ///
    /// Fails if an argument has no `=` or is not UTF-8, or the words cannot be read.
    pub fn parse(words: impl Iterator<Item = OsString>) -> Answer<(Self, Base)> {
        let mut words = words;
        let mut named = Vec::new();
        let mut argv = Vec::new();
        while let Some(word) = words.next() {
            if word == "--" {
                argv = words.collect();
                break;
            }
            let word = word.into_string().map_err(|_| Failure::invalid("argument", "An argument is not UTF-8."))?;
            let (name, value) = word.split_once('=').ok_or_else(|| {
                Failure::invalid(&word, format_args!("The argument {word} has no value. Write NAME=VALUE."))
            })?;
            named.push((name.to_string(), value.to_string()));
        }
        let mut args = Self { named, argv };
        let base = Base::at(args.text("base").unwrap_or("/.sandbox"));
        if let Some(name) = args.text("args") {
            let name = name.strip_prefix('@').unwrap_or(name);
            let mut words = Vec::new();
            base.upload(name)?.file.read_to_end(&mut words).map_err(|error| Failure::internal(name, error))?;
            args.argv = split_words(&words);
        }
        Ok((args, base))
    }

    /// The settings of the sandbox, which `init` was given, as they are kept for the other verbs.
    pub fn settings(&self) -> String {
        let kept = SETTINGS.iter().filter_map(|name| Some(format!("{name}={}\n", self.text(name)?)));
        kept.collect()
    }

    /// Adds the settings of the sandbox that are not given.
    pub fn adopt(&mut self, settings: &str) {
        for (name, value) in settings.lines().filter_map(|line| line.split_once('=')) {
            if self.text(name).is_none() {
                self.named.push((name.to_string(), value.to_string()));
            }
        }
    }

    /// The last value of an argument.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.named.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of an argument, in order.
    pub fn texts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.named.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of an argument that has to be there.
    ///
    /// # Errors
    ///
    /// Fails if it is missing.
    pub fn required(&self, name: &str) -> Answer<&str> {
        self.text(name).ok_or_else(|| Failure::invalid(name, format_args!("The argument {name} is missing.")))
    }

    /// A number, or none if the argument is missing.
    ///
    /// # Errors
    ///
    /// Fails if the value is no decimal number.
    pub fn number(&self, name: &str) -> Answer<Option<u64>> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Failure::invalid(name, format_args!("The argument {name} is not a number.")))
        };
        self.text(name).map(parse).transpose()
    }

    /// A number of milliseconds.
    ///
    /// # Errors
    ///
    /// Fails if the value is no decimal number.
    pub fn duration(&self, name: &str) -> Answer<Option<Duration>> {
        Ok(self.number(name)?.map(Duration::from_millis))
    }

    /// Whether the argument is there and neither `0` nor `false`.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| !matches!(value, "0" | "false" | ""))
    }

    /// The bytes of `data=BASE64` or `file=NAME`; none without both.
    ///
    /// # Errors
    ///
    /// Fails if the Base64 is wrong, or the file cannot be read.
    pub fn data(&self, base: &Base) -> Answer<Data> {
        if let Some(name) = self.text("file") {
            return base.upload(name).map(Data::Upload);
        }
        let bytes = Base64::decode_vec(self.text("data").unwrap_or_default());
        bytes.map(Data::Bytes).map_err(|_| Failure::invalid("data", "The argument data is not Base64."))
    }
}

/// The data of a call.
pub enum Data {
    /// From the arguments.
    Bytes(Vec<u8>),
    /// A file, which may be larger than the memory of the sandbox.
    Upload(Upload),
}

impl Data {
    /// Appends everything behind the first `skip` bytes to a file that has `length` bytes, and returns its new length. The
    /// file keeps its length if that fails.
    ///
    /// # Errors
    ///
    /// Fails if the disk is full.
    pub fn append(&mut self, skip: u64, to: &mut File, length: u64) -> io::Result<u64> {
        let mut copy = || {
            to.seek(SeekFrom::Start(length))?;
            match self {
                Self::Bytes(bytes) => {
                    let fresh = usize::try_from(skip).ok().and_then(|skip| bytes.get(skip..)).unwrap_or_default();
                    to.write_all(fresh).map(|()| fresh.len() as u64)
                }
                Self::Upload(upload) => {
                    upload.file.seek(SeekFrom::Start(skip))?;
                    io::copy(&mut upload.file, to)
                }
            }
        };
        match copy() {
            Ok(count) => Ok(length + count),
            Err(error) => {
                let _ = to.set_len(length);
                Err(error)
            }
        }
    }
}

/// The words of a file in which each one ends with NUL.
fn split_words(bytes: &[u8]) -> Vec<OsString> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// `ROWSxCOLUMNS` as numbers.
///
/// # Errors
///
/// Fails if it is anything else.
pub fn parse_size(text: &str) -> Answer<(u16, u16)> {
    text.split_once('x')
        .and_then(|(rows, columns)| Some((rows.parse().ok()?, columns.parse().ok()?)))
        .ok_or_else(|| Failure::invalid("pty", "The size of the terminal is not ROWSxCOLUMNS."))
}

/// A C string of a word.
///
/// # Errors
///
/// Fails if the word contains NUL.
pub fn c_string(subject: &str, word: impl AsRef<std::ffi::OsStr>) -> Answer<std::ffi::CString> {
    std::ffi::CString::new(word.as_ref().as_bytes())
        .map_err(|_| Failure::invalid(subject, format_args!("The argument {subject} contains a NUL byte.")))
}
