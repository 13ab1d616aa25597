//! Replacements for what is not available offline: registry images, and the package installation of the default image.

/// Text of the build log about the base of every image that is not built from scratch.
pub const STAND_IN: &str = "registry images are not pulled; the image contains the programs of this machine";

/// Returns whether these are exactly the lines of the official clients' default image (docs/modal-protocol.md, section 3.2).
/// The lines install a compiler and upgrade pip, which needs a network and must not change the machine's programs.
pub fn is_default_image(lines: &[String]) -> bool {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
    let Some((from, rest)) = lines.split_first() else { return false };
    let Some(image) = from.strip_prefix("FROM python:") else { return false };
    if !image.contains("-slim-") || image.contains(char::is_whitespace) {
        return false;
    }
    let has = |line: &str| rest.contains(&line);
    has("RUN apt-get update")
        && has("RUN apt-get install -y gcc gfortran build-essential")
        && rest.iter().all(|line| is_default_line(line))
}

fn is_default_line(line: &str) -> bool {
    const EXACT: [&str; 7] = [
        "COPY /modal_requirements.txt /modal_requirements.txt",
        "RUN apt-get update",
        "RUN apt-get install -y gcc gfortran build-essential",
        "RUN uv pip install --system --compile-bytecode --no-cache --no-deps -r /modal_requirements.txt",
        "RUN pip install -r /modal_requirements.txt",
        "RUN echo 'debconf debconf/frontend select Noninteractive' | debconf-set-selections",
        "RUN rm /modal_requirements.txt",
    ];
    let upgrade = |tools: &str| tools.split_whitespace().all(|tool| ["pip", "wheel", "uv"].contains(&tool));
    EXACT.contains(&line)
        || line.strip_prefix("RUN pip install --upgrade ").is_some_and(upgrade)
        || line == r#"CMD ["sleep", "172800"]"#
}

/// Returns whether a line is one of those with which older builders prepare a registry image: the same installation without the
/// compiler. `FROM` and all other lines are executed.
pub fn is_client_preparation(line: &str) -> bool {
    let line = line.trim();
    line == "COPY /modal_requirements.txt /modal_requirements.txt"
        || line == "RUN rm /modal_requirements.txt"
        || line == "RUN python -m pip install --upgrade pip wheel uv"
        || line == "RUN python -m pip install --upgrade pip"
        || (line.starts_with("RUN ") && line.contains("pip install") && line.ends_with("-r /modal_requirements.txt"))
}

/// Checks the name of a registry image as far as that is possible offline. By convention, repositories whose last component is
/// `does-not-exist`, and hosts that end in `.invalid`, do not exist.
///
/// # Errors
///
/// Returns a text like that of a registry client if the name is malformed or does not exist.
pub fn check_reference(reference: &str) -> Result<(), String> {
    let invalid = || format!("invalid reference format: '{reference}'");
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (reference, None),
    };
    if let Some(digest) = digest {
        let hexadecimal = digest.strip_prefix("sha256:").unwrap_or_default();
        if hexadecimal.len() != 64 || !hexadecimal.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid());
        }
    }
    // A colon after the last slash begins a tag; one before it begins a port.
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let tag_fits = |tag: &str| {
        (1..=128).contains(&tag.len())
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
            && !tag.starts_with(['.', '-'])
    };
    let mut parts: Vec<&str> = path.split('/').collect();
    let mut host = None;
    if parts.len() > 1 && (parts[0].contains(['.', ':']) || parts[0] == "localhost") {
        host = Some(parts.remove(0));
    }
    let part_fits = |part: &&str| -> bool {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(part.bytes().next())
            && edge(part.bytes().last())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'))
    };
    if path.len() > 255 || !parts.iter().all(part_fits) || !tag.is_none_or(tag_fits) {
        return Err(invalid());
    }
    let host_name = host.unwrap_or_default().split(':').next().unwrap_or_default();
    if parts.last() == Some(&"does-not-exist") || host_name.ends_with(".invalid") {
        return Err(format!("manifest for {reference} not found: manifest unknown"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_image_and_nothing_else() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let newer = "FROM python:3.11.12-slim-bookworm\nRUN apt-get update\n\
            RUN apt-get install -y gcc gfortran build-essential\nRUN pip install --upgrade pip wheel uv\n\
            RUN echo 'debconf debconf/frontend select Noninteractive' | debconf-set-selections\n\
            CMD [\"sleep\", \"172800\"]";
        assert!(is_default_image(&lines(newer)));
        assert!(!is_default_image(&lines(&format!("{newer}\nRUN touch /x"))));
        assert!(!is_default_image(&lines("FROM python:3.12-slim-trixie")));
        assert!(!is_default_image(&lines("FROM debian\nRUN apt-get update")));
    }

    #[test]
    fn references() {
        for good in ["debian", "python:3.12-slim", "ghcr.io/a/b:1", "localhost:5000/x"] {
            assert_eq!(check_reference(good), Ok(()), "{good}");
        }
        assert_eq!(check_reference(&format!("debian@sha256:{}", "0a".repeat(32))), Ok(()));
        for bad in ["", "Debian", "a//b", "a:", "a:b:c!", "a b", "-a", "debian@sha256:12", "a/../b"] {
            assert!(check_reference(bad).unwrap_err().contains("invalid reference"), "{bad}");
        }
        for missing in ["does-not-exist", "a/does-not-exist:1", "registry.invalid/x", "r.invalid:5000/x"] {
            assert!(check_reference(missing).unwrap_err().starts_with("manifest for"), "{missing}");
        }
    }
}
