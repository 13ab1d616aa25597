//! The operation that copies a file to standard output.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    path::Path,
};

use super::{
    failure::{About, Failure, Kind, Outcome},
    names::{BETWEEN, HIDDEN},
};

/// Maximum size of a file, in bytes, as in Modal.
const LARGEST: u64 = 5 * 1024 * 1024 * 1024;

/// Reading this file returns the environment without the changes that `HIDDEN` describes.
const ENVIRONMENT: &str = "/proc/self/environ";

/// Copies a file to standard output.
pub(crate) fn read(path: &Path) -> Outcome {
    if path == Path::new(ENVIRONMENT) {
        return environment(path);
    }
    let file = File::open(path).about(path)?;
    let found = file.metadata().about(path)?;
    if found.is_dir() {
        return Err(Failure::new(Kind::IsDirectory, format!("{}: is a directory", path.display())));
    }
    let too_large = || Failure::new(Kind::FileTooLarge, format!("{}: larger than {LARGEST} bytes", path.display()));
    if found.len() > LARGEST {
        return Err(too_large());
    }
    // Copies between file descriptors, so that the kernel can move the content itself. The limit also ends the copy of
    // endless files.
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned().about(Path::new("output"))?);
    let copied = io::copy(&mut (&file).take(LARGEST), &mut out);
    match copied {
        Ok(LARGEST) if (&file).read(&mut [0]).about(path)? > 0 => Err(too_large()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Unheard),
        Err(error) => Err(Failure::io(path, &error)),
    }
}

/// Prints the environment of this process as its caller set it.
fn environment(path: &Path) -> Outcome {
    let mut pairs = Vec::new();
    for pair in std::fs::read(path).about(path)?.split(|byte| *byte == 0).filter(|pair| !pair.is_empty()) {
        match pair.strip_prefix(HIDDEN) {
            Some(hidden) => pairs.extend(hidden.split(|byte| *byte == BETWEEN).map(<[u8]>::to_vec)),
            None => pairs.push(pair.to_vec()),
        }
    }
    let text: Vec<u8> = pairs.into_iter().flat_map(|pair| [pair, vec![0]].concat()).collect();
    io::stdout().write_all(&text).map_err(|error| Failure::output(&error))
}
