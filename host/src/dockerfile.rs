//! A Dockerfile on this machine, with the directory that its COPY lines mean.

use std::path::{Path, PathBuf};

use parse_dockerfile::{Flag, Instruction, Source};

use crate::context::{Context, ContextFilter};
use crate::error::{Error, Result};
use crate::provider::Provider;
use crate::types::{Dockerfile, ImageSource, ImageSpec, RegistryLogin};

/// A Dockerfile and what its build takes from this machine.
#[derive(Clone, Debug)]
pub struct LocalDockerfile {
    text: String,
    context: Option<PathBuf>,
    ignore_file: Option<PathBuf>,
    build_args: Vec<(String, String)>,
    target: Option<String>,
    login: Option<RegistryLogin>,
}

/// What was sent for a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Files of the context.
    pub files: usize,
    /// Bytes that the provider did not have.
    pub bytes: u64,
    /// What was wanted and could not be sent, with the reason.
    pub skipped: Vec<String>,
}

impl LocalDockerfile {
    /// A Dockerfile by its text, without a context.
    pub fn new(text: impl Into<String>) -> Self {
        LocalDockerfile {
            text: text.into(),
            context: None,
            ignore_file: None,
            build_args: vec![],
            target: None,
            login: None,
        }
    }

    /// Reads a Dockerfile. Its directory is the context until [`context`](Self::context) names another; a file beside it
    /// with `.dockerignore` after its name has the ignore rules, if there is one.
    ///
    /// # Errors
    ///
    /// [`Kind::Io`](crate::Kind::Io) when it cannot be read or is not text.
    pub async fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = tokio::fs::read_to_string(path)
            .await
            .map_err(|error| Error::io(format!("read the Dockerfile {}", path.display()), &error))?;
        let mut rules = path.as_os_str().to_owned();
        rules.push(".dockerignore");
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let ignore_file = Some(PathBuf::from(rules)).filter(|rules| rules.is_file());
        Ok(LocalDockerfile { context: Some(parent.to_owned()), ignore_file, ..LocalDockerfile::new(text) })
    }

    /// Sets the directory that COPY lines mean.
    pub fn context(mut self, directory: impl Into<PathBuf>) -> Self {
        self.context = Some(directory.into());
        self
    }

    /// Gives a value for an ARG line.
    pub fn build_arg(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.build_args.push((name.into(), value.into()));
        self
    }

    /// Builds this stage and those that it needs.
    pub fn target(mut self, stage: impl Into<String>) -> Self {
        self.target = Some(stage.into());
        self
    }

    /// Signs in to the registry of the FROM images.
    pub fn login(mut self, login: RegistryLogin) -> Self {
        self.login = Some(login);
        self
    }
}

impl Provider {
    /// Makes an image specification of a Dockerfile: reads what its COPY lines take of the context, and sends what the
    /// provider does not have. `progress` is told how many bytes of how many have been sent.
    ///
    /// # Errors
    ///
    /// [`Kind::Io`](crate::Kind::Io) when the context cannot be read, [`Kind::InvalidArgument`](crate::Kind::InvalidArgument)
    /// when nothing is there that is to be copied; as any call.
    pub async fn dockerfile(
        &self,
        dockerfile: LocalDockerfile,
        progress: impl Fn(u64, u64),
    ) -> Result<(ImageSpec, Sent)> {
        let wanted = sources(&dockerfile.text);
        let mut sent = Sent::default();
        let mut files = vec![];
        if let (Some(directory), true) = (&dockerfile.context, wanted.as_ref().is_none_or(|wanted| !wanted.is_empty()))
        {
            let digests = self.describe().await?.digests;
            let filter = ContextFilter { ignore_file: dockerfile.ignore_file, only: wanted.clone(), digests };
            let context = Context::filtered(directory, filter).await?;
            files = context.files();
            if files.is_empty() {
                return Err(Error::invalid(
                    format!("build with the context {}", directory.display()),
                    match wanted {
                        Some(wanted) => format!("nothing in it is what is to be copied: {}", wanted.join(", ")),
                        None => "there are no files in it".to_owned(),
                    },
                )
                .with_hint("paths of COPY are relative to the context; .dockerignore may exclude them"));
            }
            sent.bytes = self.upload_context_with(&context, progress).await?;
            sent.files = files.len();
            sent.skipped = context.skipped().to_vec();
        }
        let LocalDockerfile { text, build_args, target, login, .. } = dockerfile;
        let source = ImageSource::Dockerfile(Dockerfile { text, context: files, build_args, target, login });
        Ok((ImageSpec { source, ..ImageSpec::default() }, sent))
    }
}

/// What a Dockerfile copies from its context: patterns, or none where they cannot be told and everything may be needed.
fn sources(text: &str) -> Option<Vec<String>> {
    // What is no Dockerfile gets its error from whoever builds it.
    let Ok(parsed) = parse_dockerfile::parse(text) else { return None };
    let mut wanted = Vec::new();
    for instruction in &parsed.instructions {
        let (options, sources, adds): (&[Flag<'_>], &[Source<'_>], bool) = match instruction {
            Instruction::Copy(copy) => (&copy.options, &copy.src, false),
            Instruction::Add(add) => (&add.options, &add.src, true),
            _ => continue,
        };
        // From a stage or another image.
        if options.iter().any(|option| option.name.value == "from") {
            continue;
        }
        for source in sources {
            let Source::Path(path) = source else { continue };
            if adds && (path.value.contains("://") || path.value.starts_with("git@")) {
                continue;
            }
            // Variables have their values only in the build.
            if path.value.contains('$') {
                return None;
            }
            wanted.push(path.value.clone().into_owned());
        }
    }
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_the_context() {
        let of = |text: &str| sources(&format!("FROM a AS b\n{text}\n"));
        let list = |all: &[&str]| Some(all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
        assert_eq!(of("COPY a b* /x/"), list(&["a", "b*"]));
        assert_eq!(of("copy --chown=1:1 . /x"), list(&["."]));
        assert_eq!(of("COPY [\"a b\", \"/x\"]"), list(&["a b"]));
        assert_eq!(of("ADD https://example.org/x local /x/"), list(&["local"]));
        assert_eq!(of("RUN echo COPY x\nCOPY --from=b /x /y"), list(&[]));
        assert_eq!(of("COPY <<EOF /x\nCOPY no /y\nEOF"), list(&[]));
        assert_eq!(of("COPY a \\\n  # comment\n  c /x"), list(&["a", "c"]));
        assert_eq!(of("ARG v\nCOPY $v /x"), None);
        assert_eq!(sources("this is none"), None);
    }
}
