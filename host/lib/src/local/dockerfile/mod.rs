//! A Dockerfile on this machine, with the directory that its COPY lines refer to.
//!
//! [`sources`] finds the paths that the build needs, and [`crate::local::context`] reads them. A provider accepts a
//! flat list of files, so [`entries`] adds links, empty directories and modes of directories in another way.

mod entries;
mod sources;

use std::path::{Path, PathBuf};

use self::entries::Archived;
use self::sources::Sources;
use crate::error::{Error, Result};
use crate::local::context::{BuildContext, ContextFilter};
use crate::types::{ContextFile, Dockerfile, RegistryLogin};

/// A Dockerfile, with the directory of this machine that its build needs.
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
    /// Number of files and links of the context.
    pub files: usize,
    /// Number of bytes that the provider did not have.
    pub bytes: u64,
    /// The selected entries that could not be sent, each with the reason.
    pub skipped: Vec<String>,
}

impl LocalDockerfile {
    /// Creates a Dockerfile from its text, without a context.
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

    /// Reads a Dockerfile. Its directory is the context, unless [`context`](Self::context) sets another one. A file
    /// with the same name plus `.dockerignore` contains the ignore rules, if it exists.
    ///
    /// # Errors
    ///
    /// [`Kind::Io`](crate::Kind::Io) if the file cannot be read or is not UTF-8.
    pub async fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = tokio::fs::read_to_string(path)
            .await
            .map_err(|error| Error::io(format!("read the Dockerfile {}", path.display()), error))?;
        let mut rules = path.as_os_str().to_owned();
        rules.push(".dockerignore");
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let ignore_file = Some(PathBuf::from(rules)).filter(|rules| rules.is_file());
        Ok(LocalDockerfile { context: Some(parent.to_owned()), ignore_file, ..LocalDockerfile::new(text) })
    }

    /// Sets the directory that COPY lines refer to.
    pub fn context(mut self, directory: impl Into<PathBuf>) -> Self {
        self.context = Some(directory.into());
        self
    }

    /// Sets the value of an ARG line.
    pub fn build_arg(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.build_args.push((name.into(), value.into()));
        self
    }

    /// Sets the last stage to build. Stages that it needs are built too.
    pub fn target(mut self, stage: impl Into<String>) -> Self {
        self.target = Some(stage.into());
        self
    }

    /// Sets the login to the registry of the FROM images.
    pub fn login(mut self, login: RegistryLogin) -> Self {
        self.login = Some(login);
        self
    }

    /// Returns whether the build needs anything from a directory of this machine.
    pub(crate) fn reads_context(&self) -> bool {
        self.context.is_some() && self.sources().any()
    }

    /// Returns the record for the provider, with these files of the context.
    pub(crate) fn with_files(self, context: Vec<ContextFile>) -> Dockerfile {
        let LocalDockerfile { text, build_args, target, login, .. } = self;
        Dockerfile { text, context, build_args, target, login }
    }

    /// Returns the paths that the build needs from its context.
    fn sources(&self) -> Sources {
        Sources::of(&dockerfile_text::parse(&self.text), &self.build_args, self.target.as_deref())
    }

    /// Reads the files that the build needs from its context, and adapts the Dockerfile to a provider that accepts a
    /// list of files.
    pub(crate) async fn local(mut self, digests: Vec<String>) -> Result<(LocalDockerfile, Option<BuildContext>)> {
        // Some builders do not accept a byte order mark.
        if self.text.starts_with('\u{feff}') {
            self.text.remove(0);
        }
        let sources = self.sources();
        let (Some(directory), true) = (&self.context, sources.any()) else { return Ok((self, None)) };
        let everything = sources.everything.then(|| ".".to_owned());
        let only = sources.wanted.iter().map(|wanted| wanted.path.clone()).chain(everything).collect();
        let filter = ContextFilter { ignore_file: self.ignore_file.clone(), only: Some(only), digests };
        let mut context = BuildContext::read(directory.clone(), filter, true).await?;
        let missing: Vec<_> = sources
            .wanted
            .iter()
            .filter(|wanted| wanted.required && !context.has(&wanted.path))
            .map(|wanted| wanted.path.as_str())
            .collect();
        if !missing.is_empty() {
            return Err(Error::invalid(
                format!("build with the context {}", directory.display()),
                format!("files to copy are missing from it: {}", missing.join(", ")),
            )
            .with_hint("paths of COPY are relative to the context; check .dockerignore too, which can exclude them"));
        }
        if !context.is_flat() {
            let file = dockerfile_text::parse(&self.text);
            let archived =
                Archived { text: &self.text, file: &file, sources: &sources, target: self.target.as_deref() };
            (self.text, self.target) = archived.rewritten(&context);
            context.archive().await?;
        }
        Ok((self, Some(context)))
    }
}

#[cfg(test)]
#[path = "../../../../../tests/corpus/dockerfiles.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the files that are sent for each Dockerfile of the corpus.
    #[tokio::test]
    async fn the_corpus_sends_what_it_takes_and_nothing_else() {
        let cases = corpus::all();
        assert!(cases.len() >= 100, "{}", cases.len());
        let mut wrong = Vec::new();
        for case in cases {
            let directory = tempfile::tempdir().unwrap();
            let (path, context) = case.write(directory.path());
            let mut dockerfile = LocalDockerfile::read(&path).await.unwrap().context(&context);
            for (name, value) in &case.args {
                dockerfile = dockerfile.build_arg(name, value);
            }
            if let Some(target) = &case.target {
                dockerfile = dockerfile.target(target);
            }
            let sent = match dockerfile.local(vec!["md5".to_owned()]).await {
                Ok((_, None)) => vec![],
                Ok((_, Some(context))) => context.entries(),
                Err(error) => vec![error.to_string()],
            };
            if sent != case.sent {
                wrong.push(format!("{}: {sent:?} instead of {:?}", case.name, case.sent));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), "").unwrap();
        for (text, missing) in [
            ("FROM x\nCOPY a 'b c' /x/", Some("b c")),
            ("FROM x\nCOPY a b* /x/", None),
            ("FROM x AS y\nCOPY b /x/\nFROM z\nCOPY a /x/", None),
            ("FROM x\nRUN --mount=source=d/e,target=/x true", Some("d/e")),
            ("FROM x\nADD https://example.org/b a /x/", None),
        ] {
            let local = LocalDockerfile::new(text).context(directory.path()).local(vec![]).await;
            match (local, missing) {
                (Ok(_), None) => {}
                (Err(error), Some(name)) => assert!(error.to_string().contains(name), "{error}"),
                (local, missing) => panic!("{text}: {missing:?}, {local:?}"),
            }
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_cannot_be_sent_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("s")).unwrap();
        std::fs::write(directory.path().join("a"), "").unwrap();
        std::fs::write(directory.path().join(std::ffi::OsString::from_vec(b"\xff".to_vec())), "").unwrap();
        let dockerfile = LocalDockerfile::new("FROM x\nCOPY . /x/").context(directory.path());
        let (_, context) = dockerfile.local(vec![]).await.unwrap();
        let skipped = context.unwrap().skipped().join("\n");
        assert!(skipped.contains("s: it is a socket") && skipped.contains("its name is not UTF-8"), "{skipped}");
    }

    use std::os::unix::ffi::OsStringExt as _;
}
