//! Carries out a build: one instruction after the other, stage by stage.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};
use modal_proto::client as proto;

use super::context;
use super::dockerfile::{Command, Copy, Instruction, Line, parse, parse_line};
use super::expand::expand;
use super::known;
use super::stage::Stage;
use super::{Built, Image, remove};
use crate::control::mounts;
use crate::control::sandbox::DEFAULT_PATH;
use crate::ids;
use crate::isolation::rootfs::{Attributes, Root};
use crate::state::{State, overlay};

/// Builds an image. The text of a failure is what clients show.
pub async fn build(state: Arc<State>, image: Arc<Image>, definition: proto::Image) -> Result<Built, String> {
    let mut build = Build::new(state, image, definition).map_err(|e| format!("Dockerfile {e}"))?;
    let done = build.run().await;
    for stage in build.stages.drain(..) {
        stage.discard().await;
    }
    if let Some(directory) = build.context.take() {
        super::remove_in_background(directory);
    }
    if let Err(error) = &done {
        build.image.log.info(format!("Build failed: {error}"));
    }
    done
}

struct Build {
    state: Arc<State>,
    image: Arc<Image>,
    definition: proto::Image,
    lines: Vec<Line>,
    /// The last one is being built.
    stages: Vec<Stage>,
    /// ARG before the first FROM.
    global_args: Vec<(String, String)>,
    /// Variables of RUN that come from secrets.
    secrets: Vec<(String, String)>,
    context: Option<PathBuf>,
    /// The context is the service's own Python, for which the machine's stands in.
    stand_in_python: bool,
}

impl Build {
    fn new(state: Arc<State>, image: Arc<Image>, definition: proto::Image) -> Result<Build, String> {
        let lines = parse(&definition.dockerfile_commands.join("\n"))?;
        let mut secrets = Vec::new();
        for id in &definition.secret_ids {
            secrets.extend(state.secret_values(id).map_err(|status| status.message().to_owned())?);
        }
        let mount = mounts::get(&state, &definition.context_mount_id).ok();
        let stand_in_python = mount.is_some_and(|mount| mount.files.is_empty());
        Ok(Build {
            state,
            image,
            definition,
            lines,
            stages: Vec::new(),
            global_args: Vec::new(),
            secrets,
            context: None,
            stand_in_python,
        })
    }

    async fn run(&mut self) -> Result<Built, String> {
        let default_image = known::is_default_image(&self.definition.dockerfile_commands);
        if default_image {
            self.image.log.info(format!("The default image: {}", known::STAND_IN));
        }
        let requirements = self.definition.context_files.iter().any(|f| f.filename.ends_with("modal_requirements.txt"));
        for line in std::mem::take(&mut self.lines) {
            let shown = &line.text[..line.text.floor_char_boundary(500)];
            self.image.log.info(format!("=> {shown}"));
            let skipped = default_image && !matches!(line.instruction, Instruction::From { .. } | Instruction::Cmd(_))
                || requirements && known::is_client_preparation(&line.text)
                || self.stand_in_python && is_python_preparation(&line.text);
            if skipped {
                self.image.log.info("   (not carried out: the machine's programs stand in)");
                continue;
            }
            let done = self.step(&line.instruction).await;
            done.map_err(|error| format!("Dockerfile line {} ({shown}): {error}", line.number))?;
        }
        let last = self.stages.pop().ok_or("Dockerfile has no FROM")?;
        let layer = self.state.layers().join(&self.image.id);
        last.finish(&layer).await
    }

    fn stage(&mut self) -> Result<&mut Stage, String> {
        self.stages.last_mut().ok_or_else(|| "there is no FROM before this line".to_owned())
    }

    /// A variable as instructions see it: ENV before ARG.
    fn expand(&self, text: &str) -> Result<String, String> {
        let find = |list: &[(String, String)], name: &str| {
            list.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        };
        match self.stages.last() {
            Some(stage) => {
                expand(text, &|name| find(&stage.image.config.env, name).or_else(|| find(&stage.args, name)))
            }
            None => expand(text, &|name| find(&self.global_args, name)),
        }
    }

    async fn step(&mut self, instruction: &Instruction) -> Result<(), String> {
        match instruction {
            Instruction::From { image, alias } => self.from(image, alias.clone()).await,
            Instruction::Arg(args) => self.args(args),
            Instruction::Run(command) => self.run_command(command).await,
            Instruction::Copy(copy) => self.copy(copy).await,
            Instruction::Env(pairs) => {
                let mut values = Vec::new();
                for (key, value) in pairs {
                    values.push((self.expand(key)?, self.expand(value)?));
                }
                overlay(&mut self.stage()?.image.config.env, values);
                Ok(())
            }
            Instruction::Label(pairs) => {
                for (key, value) in pairs {
                    let (key, value) = (self.expand(key)?, self.expand(value)?);
                    self.stage()?.image.config.labels.insert(key, value);
                }
                Ok(())
            }
            Instruction::Workdir(path) => {
                let path = self.expand(path)?;
                let path = absolute(self.stage()?.image.config.workdir.as_deref(), &path);
                let root = self.stage()?.root().await?;
                let inside = PathBuf::from(&path[1..]);
                let made = move || root.make_directories(&inside, Attributes::default()).map_err(|e| e.to_string());
                blocking(made).await?;
                self.stage()?.image.config.workdir = Some(path);
                Ok(())
            }
            Instruction::User(user) => {
                let user = self.expand(user)?;
                self.stage()?.image.config.user = Some(user);
                Ok(())
            }
            Instruction::Entrypoint(command) => {
                let argv = self.argv(command)?;
                let config = &mut self.stage()?.image.config;
                // A new entry point makes the base's command meaningless.
                config.cmd = None;
                config.entrypoint = Some(argv);
                Ok(())
            }
            Instruction::Cmd(command) => {
                let argv = self.argv(command)?;
                self.stage()?.image.config.cmd = Some(argv);
                Ok(())
            }
            Instruction::Shell(shell) => {
                self.stage()?.image.config.shell = Some(shell.clone());
                Ok(())
            }
            Instruction::Onbuild(line) => {
                self.stage()?.image.config.onbuild.push(line.clone());
                Ok(())
            }
            Instruction::Ignored => self.stage().map(drop),
        }
    }

    async fn from(&mut self, image: &str, alias: Option<String>) -> Result<(), String> {
        let expanded = {
            let find = |name: &str| self.global_args.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.clone());
            expand(image, &find)?
        };
        // A stage that others build on is finished first.
        let earlier =
            self.stages.iter().position(|stage| stage.name.as_deref() == Some(&expanded.to_ascii_lowercase()));
        let mut base = match earlier {
            Some(at) => self.finish_stage(at).await?,
            None => self.base(&expanded)?,
        };
        let triggers = std::mem::take(&mut base.config.onbuild);
        let binds = crate::control::storage::binds(&self.state, &self.definition.volume_mounts, &[])
            .map_err(|error| format!("cannot mount a volume: {error}"))?;
        self.stages.push(Stage::new(&self.state, alias, base, binds));
        for line in triggers {
            self.image.log.info(format!("=> ONBUILD {line}"));
            let instruction = parse_line(&line)?;
            Box::pin(self.step(&instruction)).await.map_err(|e| format!("ONBUILD {line}: {e}"))?;
        }
        Ok(())
    }

    /// Turns a stage's writes into a layer; the stage goes on from there.
    async fn finish_stage(&mut self, at: usize) -> Result<Built, String> {
        let stage = &mut self.stages[at];
        let again = Stage::new(&self.state, stage.name.clone(), Built::default(), Vec::new());
        let layer = self.state.layers().join(format!("{}-{at}-{}", self.image.id, ids::id("stage")));
        let built = std::mem::replace(stage, again).finish(&layer).await?;
        self.stages[at].image = built.clone();
        Ok(built)
    }

    /// The image that a name in FROM or `--from` means, other than a stage.
    fn base(&self, name: &str) -> Result<Built, String> {
        if let Some(base) = self.definition.base_images.iter().find(|base| base.docker_tag == name) {
            let built = self.state.image(&base.image_id).and_then(|image| image.built());
            return built.map(|built| (*built).clone()).map_err(|status| status.message().to_owned());
        }
        if name == "scratch" {
            return Ok(Built { from_scratch: true, ..Built::default() });
        }
        known::check_reference(name)?;
        self.image.log.info(format!("{name}: {}", known::STAND_IN));
        let mut built = Built::default();
        built.layers.extend(python_layer(&self.state).map_err(|e| e.to_string())?);
        Ok(built)
    }

    fn args(&mut self, args: &[(String, Option<String>)]) -> Result<(), String> {
        for (name, default) in args {
            let value = match (self.definition.build_args.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(default)?),
                (None, None) => self.global_args.iter().rev().find(|(key, _)| key == name).map(|(_, v)| v.clone()),
            };
            let Some(value) = value else { continue };
            match self.stages.last_mut() {
                Some(stage) => overlay(&mut stage.args, [(name.clone(), value)]),
                None => overlay(&mut self.global_args, [(name.clone(), value)]),
            }
        }
        Ok(())
    }

    fn shell(&mut self) -> Result<Vec<String>, String> {
        let shell = self.stage()?.image.config.shell.clone();
        Ok(shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]))
    }

    fn argv(&mut self, command: &Command) -> Result<Vec<String>, String> {
        match command {
            Command::Exec(argv) => Ok(argv.clone()),
            Command::Shell(text) | Command::Script(text) if text.is_empty() => Ok(Vec::new()),
            Command::Shell(text) | Command::Script(text) => {
                let mut argv = self.shell()?;
                argv.push(text.clone());
                Ok(argv)
            }
        }
    }

    async fn run_command(&mut self, command: &Command) -> Result<(), String> {
        let mut script = None;
        let argv = match command {
            Command::Script(text) if text.starts_with("#!") => {
                let path = format!("/tmp/.{}", ids::id("script"));
                let attributes = Attributes { owner: None, mode: Some(0o755) };
                let root = self.stage()?.root().await?;
                let (inside, text) = (PathBuf::from(&path[1..]), text.clone());
                blocking(move || root.write(&inside, text.as_bytes(), attributes).map_err(|e| e.to_string())).await?;
                script = Some(path.clone());
                vec![path]
            }
            command => self.argv(command)?,
        };
        if argv.is_empty() {
            return Err("RUN needs a command".to_owned());
        }
        let mut env = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())];
        let (secrets, image) = (self.secrets.clone(), self.image.clone());
        let stage = self.stage()?;
        overlay(&mut env, stage.args.clone());
        overlay(&mut env, stage.image.config.env.clone());
        overlay(&mut env, secrets);
        let code = stage.run(argv, env, &image.log).await?;
        if let Some(path) = script {
            let root = stage.root().await?;
            let _ = blocking(move || root.remove(Path::new(&path[1..])).map_err(|e| e.to_string())).await;
        }
        if code == 0 { Ok(()) } else { Err(format!("the command exited with code {code}")) }
    }

    async fn copy(&mut self, copy: &Copy) -> Result<(), String> {
        let mut attributes = Attributes::default();
        if let Some(mode) = &copy.chmod {
            let mode = self.expand(mode)?;
            attributes.mode = Some(u32::from_str_radix(&mode, 8).map_err(|_| format!("--chmod={mode} is not octal"))?);
        }
        let to = Arc::new(self.stage()?.root().await?);
        if let Some(owner) = &copy.chown {
            let (root, owner) = (to.clone(), self.expand(owner)?);
            attributes.owner = Some(blocking(move || owner_of(&root, &owner)).await?);
        }
        let mut sources = Vec::new();
        for source in &copy.sources {
            sources.push(self.expand(source)?);
        }
        let target = self.expand(&copy.target)?;
        let into = target.ends_with('/') || target == "." || sources.len() + copy.inline.len() > 1;
        let target = absolute(self.stage()?.image.config.workdir.as_deref(), &target);
        let target = PathBuf::from(&target[1..]);
        let (root, directory) = (to.clone(), target.clone());
        let into = into || blocking(move || Ok(root.is_dir(&directory))).await?;
        if let Some(url) = sources.iter().find(|s| copy.add && (s.contains("://") || s.starts_with("git@"))) {
            return Err(format!("the emulator fetches nothing from the network: {url}"));
        }
        if !sources.is_empty() {
            let from = match &copy.from {
                Some(from) => {
                    let from = self.expand(from)?;
                    self.source_root(&from).await?
                }
                None => {
                    let context = self.context().await?;
                    blocking(move || Root::open(&context).map_err(|e| e.to_string())).await?
                }
            };
            let job = Job { from, to: to.clone(), sources, target: target.clone(), into, attributes };
            let archives = blocking(move || job.run()).await?;
            if copy.add && copy.from.is_none() {
                for archive in archives {
                    self.unpack(&archive).await?;
                }
            }
        }
        for (name, content) in &copy.inline {
            let path = if into { target.join(name) } else { target.clone() };
            let (root, content) = (to.clone(), content.clone());
            blocking(move || root.write(&path, content.as_bytes(), attributes).map_err(|e| e.to_string())).await?;
        }
        Ok(())
    }

    /// ADD unpacks local archives where it would have put them.
    async fn unpack(&mut self, archive: &Path) -> Result<(), String> {
        let path = format!("/{}", archive.display());
        let parent = Path::new(&path).parent().unwrap_or(Path::new("/")).display().to_string();
        let argv = ["tar", "-xf", &path, "-C", &parent].map(str::to_owned).to_vec();
        let image = self.image.clone();
        let stage = self.stage()?;
        let user = stage.image.config.user.take();
        let workdir = stage.image.config.workdir.take();
        let code = stage.run(argv, vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())], &image.log).await;
        stage.image.config.user = user;
        stage.image.config.workdir = workdir;
        match code? {
            0 => {
                let (root, archive) = (stage.root().await?, archive.to_owned());
                blocking(move || root.remove(&archive).map_err(|e| e.to_string())).await
            }
            code => Err(format!("cannot unpack {path}: tar exited with code {code}")),
        }
    }

    /// The files of a stage or image named in `--from`.
    async fn source_root(&mut self, name: &str) -> Result<Root, String> {
        let last = self.stages.len().saturating_sub(1);
        let named =
            self.stages[..last].iter().position(|stage| stage.name.as_deref() == Some(&name.to_ascii_lowercase()));
        let at = match named.or_else(|| name.parse().ok().filter(|at| *at < last)) {
            Some(at) => at,
            None => {
                // Before the stage in work, which stays the last.
                let stage = Stage::new(&self.state, Some(name.to_ascii_lowercase()), self.base(name)?, Vec::new());
                self.stages.insert(last, stage);
                last
            }
        };
        self.stages[at].root().await
    }

    /// The build context as a directory, made when it is first needed.
    async fn context(&mut self) -> Result<PathBuf, String> {
        if let Some(path) = &self.context {
            return Ok(path.clone());
        }
        let path = self.state.layers().join(format!("{}-context", self.image.id));
        let mount = mounts::get(&self.state, &self.definition.context_mount_id).ok();
        let (contents, files, to) = (self.state.files(), self.definition.context_files.clone(), path.clone());
        blocking(move || {
            std::fs::create_dir_all(&to).map_err(|e| e.to_string())?;
            if let Some(mount) = mount {
                context::write(&mount, &contents, &to, false).map_err(|e| format!("{e:#}"))?;
            }
            for file in files {
                context::write_small(&file.filename, &file.data, &to).map_err(|e| format!("{e:#}"))?;
            }
            Ok(())
        })
        .await?;
        self.context = Some(path.clone());
        Ok(path)
    }
}

/// The copying of one COPY or ADD.
struct Job {
    from: Root,
    to: Arc<Root>,
    sources: Vec<String>,
    target: PathBuf,
    /// The target is a directory to copy into.
    into: bool,
    attributes: Attributes,
}

impl Job {
    /// Returns archives that have been copied, as paths in the target.
    fn run(self) -> Result<Vec<PathBuf>, String> {
        let mut archives = Vec::new();
        let mut found = Vec::new();
        for source in &self.sources {
            let matches = matching(&self.from, source).map_err(|e| format!("{source}: {e}"))?;
            if matches.is_empty() {
                return Err(format!("{source}: not found in the source"));
            }
            found.extend(matches);
        }
        let into = self.into || found.len() > 1;
        for source in found {
            let is_directory = self.from.is_dir(&source);
            let target = match source.file_name() {
                Some(name) if into && !is_directory => self.target.join(name),
                _ => self.target.clone(),
            };
            if target.as_os_str().is_empty() && !is_directory {
                return Err("the target is a directory".to_owned());
            }
            let copied = self.to.copy(&self.from, &source, &target, self.attributes);
            copied.map_err(|e| format!("{}: {e}", source.display()))?;
            let name = source.to_string_lossy();
            let endings = [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"];
            if !is_directory && endings.iter().any(|ending| name.ends_with(ending)) {
                archives.push(target);
            }
        }
        Ok(archives)
    }
}

/// Paths that a source pattern means. `*`, `?` and `[…]` stand for characters within one part of a path.
fn matching(root: &Root, source: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![PathBuf::new()];
    for part in absolute(None, source).split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        if part.contains(['*', '?', '[', '\\']) {
            let pattern = pattern(part)?;
            for base in found {
                let names = root.list(&base).unwrap_or_default();
                next.extend(names.iter().filter(|name| pattern.is_match(name)).map(|name| base.join(name)));
            }
        } else {
            next.extend(found.iter().map(|base| base.join(part)).filter(|path| root.exists(path)));
        }
        found = next;
    }
    Ok(found)
}

/// A pattern for one part of a path, without the alternatives in braces that this syntax does not have.
fn pattern(part: &str) -> Result<GlobMatcher, String> {
    let escaped = part.replace('{', "[{]").replace('}', "[}]");
    let glob = GlobBuilder::new(&escaped).literal_separator(true).backslash_escape(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| format!("not a pattern: {}", error.kind()))
}

/// `user[:group]` of `--chown`, in names or numbers, as the image knows them.
fn owner_of(root: &Root, text: &str) -> Result<(u32, u32), String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let find = |file: &str, name: &str| -> Option<Vec<u32>> {
        let content = root.read(Path::new(file))?;
        let content = String::from_utf8_lossy(&content).into_owned();
        let line = content.lines().find(|line| line.split(':').next() == Some(name))?.to_owned();
        Some(line.split(':').skip(2).take(2).filter_map(|field| field.parse().ok()).collect())
    };
    let unknown = |name: &str| format!("--chown={text}: {name} is unknown in the image");
    let (user, primary) = match user.parse() {
        Ok(id) => (id, id),
        Err(_) => {
            let ids = find("etc/passwd", user).ok_or_else(|| unknown(user))?;
            let id = *ids.first().ok_or_else(|| unknown(user))?;
            (id, ids.get(1).copied().unwrap_or(id))
        }
    };
    let group = match group.map(|group| (group, group.parse())) {
        None => primary,
        Some((_, Ok(id))) => id,
        Some((name, Err(_))) => {
            *find("etc/group", name).as_deref().and_then(<[u32]>::first).ok_or_else(|| unknown(name))?
        }
    };
    Ok((user, group))
}

/// A path against the working directory, without `.` and `..`.
fn absolute(workdir: Option<&str>, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { workdir.unwrap_or("/") };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// What clients add for a standalone Python, which is not there.
fn is_python_preparation(line: &str) -> bool {
    matches!(line.trim(), "COPY /python/. /usr/local" | "RUN ln -s /usr/local/bin/python3 /usr/local/bin/python")
}

/// Images are expected to have a `python`; where the machine calls it `python3` only, a layer with a link helps.
fn python_layer(state: &State) -> std::io::Result<Option<PathBuf>> {
    let on_path = |name: &str| {
        DEFAULT_PATH.split(':').map(|directory| Path::new(directory).join(name)).find(|path| path.exists())
    };
    let (None, Some(python3)) = (on_path("python"), on_path("python3")) else { return Ok(None) };
    let layer = state.layers().join("python");
    if !layer.is_dir() {
        let part = state.layers().join(ids::id("python"));
        std::fs::create_dir(&part)?;
        super::make_directories(&part, Path::new("usr/local/bin"))?;
        symlink(python3, part.join("usr/local/bin/python"))?;
        if std::fs::rename(&part, &layer).is_err() {
            remove(&part)?;
        }
    }
    Ok(Some(layer))
}

async fn blocking<T: Send + 'static>(job: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(job).await.unwrap_or_else(|e| Err(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_against_the_working_directory() {
        assert_eq!(absolute(None, "a/b"), "/a/b");
        assert_eq!(absolute(Some("/w"), "./a/../b/"), "/w/b");
        assert_eq!(absolute(Some("/w"), "/../a"), "/a");
        assert_eq!(absolute(Some("/w"), "."), "/w");
    }

    #[test]
    fn patterns() {
        let fits = |part: &str, name: &str| pattern(part).unwrap().is_match(name);
        for (part, name) in
            [("*.py", "a.py"), ("a?", "ab"), ("[a-c]*", "bx"), ("[^a]", "b"), ("{a}*", "{a}b"), ("\\*", "*")]
        {
            assert!(fits(part, name), "{part} {name}");
        }
        for (part, name) in [("*.py", "a.pyc"), ("a?", "a"), ("[a-c]", "d"), ("{a,b}*", "a"), ("\\*", "a")] {
            assert!(!fits(part, name), "{part} {name}");
        }
        assert!(pattern("[a").unwrap_err().contains("not a pattern"));
        // Takes time in proportion to the name, whatever the pattern.
        assert!(!fits(&"*a".repeat(100), &format!("{}b", "a".repeat(200))));
    }
}
