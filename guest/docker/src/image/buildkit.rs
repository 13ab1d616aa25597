//! What has to be known before a build by BuildKit: whether a Dockerfile needs it, whether it can do without a session, and
//! which images have to be pulled first.
//!
//! A session is a connection on which BuildKit asks its client for contexts, logins and secrets. It is gRPC on an upgraded
//! HTTP/1.1 connection, which `wasi:http` does not have. Without a session BuildKit takes the context from the request, and uses
//! the images that the engine has.

use dockerfile_text::{Instruction, Needs, Part};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        error::shown,
        wit::{Dockerfile, ErrorKind},
    },
    image::spec,
};

use super::bases::{Needed, bases};
use crate::engine::{Engine, flavor::Flavor};

/// The repository of the program that is built into BuildKit too. Any other one has to be fetched in a session.
const FRONTEND: &str = "docker/dockerfile";

/// A Dockerfile that BuildKit builds.
#[derive(Debug)]
pub struct Job {
    /// The first part that the classic builder does not know.
    pub part: String,
    /// The text up to the end of the target stage, because BuildKit of Docker Engine 20.10 does not find a stage by its number,
    /// and without the directive `syntax`.
    pub text: String,
    /// The images that the engine must have.
    pub bases: Vec<Needed>,
}

/// Returns how BuildKit builds a Dockerfile. Returns `None` if the engine's usual builder knows all parts of it. Sends nothing
/// but the question for the version of the engine.
///
/// # Errors
///
/// `build-failed` if BuildKit of this engine does not know a part or needs a session for it.
pub async fn job(engine: &Engine, dockerfile: &Dockerfile, platform: Option<&str>) -> Result<Option<Job>> {
    let text = spec::stage(dockerfile)?;
    let instructions = dockerfile_text::parse(text).instructions;
    let parts: Vec<Part> = instructions.iter().flat_map(Instruction::buildkit_parts).collect();
    if parts.is_empty() {
        return Ok(None);
    }
    let flavor = engine.flavor().await?;
    if !flavor.has_classic_builder() {
        return Ok(None);
    }
    make(dockerfile, text, parts, &flavor, platform).map(Some)
}

fn make(
    dockerfile: &Dockerfile,
    stage: &str,
    mut parts: Vec<Part>,
    flavor: &Flavor,
    platform: Option<&str>,
) -> Result<Job> {
    let refused = |part: &str, why: &str| {
        let message = format!("The Dockerfile contains `{}`, {why} (docs/docker.md).", shown(part));
        Err(Error::new(ErrorKind::BuildFailed, message))
    };
    for part in &parts {
        match part.needs {
            Needs::BuildKit => {}
            Needs::Newer if flavor.has_newer_buildkit() => {}
            Needs::Newer => {
                let why = format!(
                    "which BuildKit of this engine (version {}) does not know: use a newer engine",
                    shown(&flavor.version)
                );
                return refused(&part.text, &why);
            }
            Needs::Session => {
                return refused(
                    &part.text,
                    "for which BuildKit needs a session with its client: this provider has none",
                );
            }
        }
    }
    let mut text = stage.to_string();
    if let Some((program, line)) = dockerfile_text::syntax(stage) {
        let name = program.strip_prefix("docker.io/").unwrap_or(program);
        if name.split([':', '@']).next() != Some(FRONTEND) {
            let why = "a program that BuildKit fetches in a session with its client: this provider has none";
            return refused(&format!("# syntax={program}"), why);
        }
        text.replace_range(line, "");
    }
    let own = format!("linux/{}", flavor.arch);
    let bases = bases(stage, &dockerfile.build_args, &own, platform.unwrap_or(&own));
    let is_id = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(base) = bases.iter().find(|base| is_id(&base.reference)) {
        let why = format!(
            "so BuildKit has to build it, which knows images by their names only: give `{}` a name",
            base.reference
        );
        return refused(&parts[0].text, &why);
    }
    Ok(Job { part: parts.swap_remove(0).text, text, bases })
}

/// Returns whether an image belongs to a registry. `server` is the address of the registry as a login has it.
#[must_use]
pub fn is_of_registry(reference: &str, server: &str) -> bool {
    let server = server.split_once("://").map_or(server, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let is_host = |name: &str| name.contains(['.', ':']) || name == "localhost";
    let host = reference.split_once('/').map(|(host, _)| host).filter(|host| is_host(host)).unwrap_or("docker.io");
    // Docker Hub has several names.
    if host == "docker.io" { matches!(server, "docker.io" | "index.docker.io") } else { host == server }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::flavor::Product;

    fn made(text: &str, version: &str) -> Result<Job, String> {
        let text = text.to_string();
        let dockerfile = Dockerfile { text, context: Vec::new(), build_args: Vec::new(), target: None, login: None };
        let flavor =
            Flavor { product: Product::Docker, version: version.into(), api: "1.41".into(), arch: "amd64".into() };
        let instructions = dockerfile_text::parse(&dockerfile.text).instructions;
        let parts = instructions.iter().flat_map(Instruction::buildkit_parts).collect();
        make(&dockerfile, &dockerfile.text, parts, &flavor, None).map_err(|error| error.message.clone())
    }

    #[test]
    fn what_buildkit_cannot_do_is_named() {
        const MOUNT: &str = "FROM a\nRUN --mount=type=cache,target=/c true\n";
        for (above, below, version, named) in [
            ("", "RUN <<E\nE\n", "20.10.24+dfsg1", Some("RUN <<E")),
            ("", "RUN <<E\nE\n", "23.0.0", None),
            ("", "COPY --link a b\n", "20.10.24", Some("COPY --link")),
            ("", "RUN --mount=type=ssh true\n", "27.1.0", Some("RUN --mount=type=ssh")),
            ("# syntax=example.org/x:1\n", "", "27.1.0", Some("# syntax=example.org/x:1")),
            ("# syntax=docker/dockerfile-upstream:1\n", "", "27.1.0", Some("# syntax=docker/dockerfile-upstream:1")),
            ("#syntax = docker.io/docker/dockerfile:1.4\n", "", "20.10.24", None),
            ("# syntax=docker/dockerfile@sha256:0\n", "", "20.10.24", None),
            (
                "",
                "FROM 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n",
                "20.10.24",
                Some("RUN --mount"),
            ),
        ] {
            match (made(&format!("{above}{MOUNT}{below}"), version), named) {
                (Ok(job), None) => {
                    assert_eq!((job.part.as_str(), job.text), ("RUN --mount", format!("{MOUNT}{below}")));
                }
                (Err(message), Some(named)) => assert!(message.contains(&format!("`{named}`")), "{message}"),
                (job, _) => panic!("{above}{below}: {job:?}"),
            }
        }
    }

    #[test]
    fn a_login_is_for_the_images_of_its_registry() {
        for (reference, server, whether) in [
            ("127.0.0.1:5000/a", "127.0.0.1:5000", true),
            ("127.0.0.1:5000/a", "127.0.0.1:5001", false),
            ("ghcr.io/a/b:1", "https://ghcr.io/v2/", true),
            ("debian:12", "https://index.docker.io/v1/", true),
            ("a/b", "docker.io", true),
            ("localhost/a", "docker.io", false),
            ("docker.io/a/b", "ghcr.io", false),
        ] {
            assert_eq!(is_of_registry(reference, server), whether, "{reference} {server}");
        }
    }
}
