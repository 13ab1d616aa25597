//! Executes a build: the instructions of a Dockerfile, stage by stage.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;

use container_isolation::rootfs::{Attributes, Chmod, Root};
use modal_proto::client as proto;

use crate::build::copy::Job;
use crate::build::directories::{make_directories, remove, remove_in_background};
use crate::build::dockerfile::{Command, Copy, Instruction, Line, Run, parse, parse_trigger};
use crate::build::expand::{expand, expand_document};
use crate::build::glob::Rules;
use crate::build::run_mounts::Mounted;
use crate::build::stage::Stage;
use crate::build::{context, offline_stand_ins};
use crate::model::build_log::Log;
use crate::model::image::{Built, Image};
use crate::model::state::State;
use crate::model::values::{DEFAULT_PATH, overlay};
use crate::model::{ids, storage};

/// Build arguments that RUN gets without an ARG line, in upper or lower case.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Builds an image.
///
/// # Errors
///
/// Returns the text that clients show for the failure.
pub async fn build(state: Arc<State>, image: Arc<Image>, definition: proto::Image) -> Result<Built, String> {
    let mut build = Build::new(state, image, definition).map_err(|e| format!("Dockerfile {e}"))?;
    let done = build.run().await;
    for stage in build.stages.drain(..) {
        stage.discard().await;
    }
    if let Some(directory) = build.context.take() {
        remove_in_background(directory);
    }
    if let Err(error) = &done {
        build.image.log.info(format!("Build failed: {error}"));
    }
    done
}

pub(super) struct Build {
    pub(super) state: Arc<State>,
    pub(super) image: Arc<Image>,
    pub(super) definition: proto::Image,
    lines: Vec<Line>,
    escape: char,
    /// The stages so far; the last one is being built.
    pub(super) stages: Vec<Stage>,
    /// Values of ARG lines before the first FROM, and the arguments that describe the platform.
    global_args: Vec<(String, String)>,
    /// Environment variables of RUN that come from secrets.
    pub(super) secrets: Vec<(String, String)>,
    context: Option<PathBuf>,
    /// Whether the context is one of the service's Python distributions, for which the machine's Python is used.
    stand_in_python: bool,
}

impl Build {
    fn new(state: Arc<State>, image: Arc<Image>, definition: proto::Image) -> Result<Build, String> {
        let file = parse(&definition.dockerfile_commands.join("\n"))?;
        let mut secrets = Vec::new();
        for id in &definition.secret_ids {
            secrets.extend(state.secret_values(id).map_err(|status| status.message().to_owned())?);
        }
        let mount = state.mount(&definition.context_mount_id).ok();
        let stand_in_python = mount.is_some_and(|mount| mount.files.is_empty());
        let mut global_args = platform();
        for (name, value) in &mut global_args {
            if let Some(given) = definition.build_args.get(name) {
                value.clone_from(given);
            }
        }
        Ok(Build {
            state,
            image,
            definition,
            lines: file.lines,
            escape: file.escape,
            stages: Vec::new(),
            global_args,
            secrets,
            context: None,
            stand_in_python,
        })
    }

    async fn run(&mut self) -> Result<Built, String> {
        let default_image = offline_stand_ins::is_default_image(&self.definition.dockerfile_commands);
        if default_image {
            self.image.log.info(format!("The default image: {}", offline_stand_ins::STAND_IN));
        }
        let requirements = self.definition.context_files.iter().any(|f| f.filename.ends_with("modal_requirements.txt"));
        for line in std::mem::take(&mut self.lines) {
            let shown = &line.text[..line.text.floor_char_boundary(500)];
            self.image.log.info(format!("=> {shown}"));
            let skipped = default_image && !matches!(line.instruction, Instruction::From { .. } | Instruction::Cmd(_))
                || requirements && offline_stand_ins::is_client_preparation(&line.text)
                || self.stand_in_python && is_python_preparation(&line.text);
            if skipped {
                self.image.log.info("   (skipped: the image contains the programs of this machine)");
                continue;
            }
            let done = self.step(&line.instruction).await;
            done.map_err(|error| format!("Dockerfile line {} ({shown}): {error}", line.number))?;
        }
        let last = self.stages.pop().ok_or("Dockerfile has no FROM")?;
        let layer = self.state.layers().join(&self.image.id);
        last.finish(&layer).await
    }

    /// Returns the stage that is being built.
    pub(super) fn stage(&mut self) -> Result<&mut Stage, String> {
        self.stages.last_mut().ok_or_else(|| "there is no FROM before this line".to_owned())
    }

    /// Returns the value of a variable for instructions. ENV overrides ARG.
    fn variable(&self, name: &str) -> Option<String> {
        let find = |list: &[(String, String)]| list.iter().rev().find(|(key, _)| key == name).map(|(_, v)| v.clone());
        match self.stages.last() {
            Some(stage) => find(&stage.image.config.env).or_else(|| find(&stage.args)),
            None => find(&self.global_args),
        }
    }

    /// Expands the variables of a text with their current values.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        expand(text, self.escape, &|name| self.variable(name))
    }

    async fn step(&mut self, instruction: &Instruction) -> Result<(), String> {
        match instruction {
            Instruction::From { image, alias, platform } => self.from(image, alias.clone(), platform.as_deref()).await,
            Instruction::Arg(args) => self.args(args),
            Instruction::Run(run) => self.run_command(run).await,
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
                let config = &self.stage()?.image.config;
                let (path, user) = (absolute(config.workdir.as_deref(), &path), config.user.clone());
                let root = self.stage()?.root().await?;
                let inside = PathBuf::from(&path[1..]);
                blocking(move || {
                    // A new directory belongs to the USER. Without root privileges, only root can own files.
                    let user = user.filter(|user| !user.is_empty() && nix::unistd::geteuid().is_root());
                    let owner = user.map(|user| owner_of(&root, "USER ", &user)).transpose()?;
                    let attributes = Attributes { owner, ..Attributes::default() };
                    root.make_directories(&inside, &attributes).map_err(|e| e.to_string())
                })
                .await?;
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
                let stage = self.stage()?;
                // A new ENTRYPOINT resets the CMD of the base image, but not one of the same stage.
                if !stage.has_cmd {
                    stage.image.config.cmd = None;
                }
                stage.image.config.entrypoint = Some(argv);
                Ok(())
            }
            Instruction::Cmd(command) => {
                let argv = self.argv(command)?;
                let stage = self.stage()?;
                stage.has_cmd = true;
                stage.image.config.cmd = Some(argv);
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
            Instruction::Expose(ports) => {
                self.stage()?;
                for port in ports {
                    // A variable may expand to several ports.
                    let ports = self.expand(port)?;
                    if let Some(bad) = ports.split_whitespace().find(|port| !is_port(port)) {
                        return Err(format!("{bad} is not a port"));
                    }
                }
                Ok(())
            }
            Instruction::StopSignal(signal) => {
                self.stage()?;
                let signal = self.expand(signal)?;
                if is_signal(&signal) { Ok(()) } else { Err(format!("{signal} is not a signal")) }
            }
            Instruction::Ignored => self.stage().map(drop),
        }
    }

    async fn from(&mut self, image: &str, alias: Option<String>, platform: Option<&str>) -> Result<(), String> {
        let find = |name: &str| self.global_args.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.clone());
        let expanded = expand(image, self.escape, &find)?;
        if expanded.is_empty() {
            return Err(format!("{image} expands to an empty name"));
        }
        if let Some(platform) = platform {
            let platform = expand(platform, self.escape, &find)?;
            let mut parts = platform.split('/');
            let (os, wanted) = (parts.next().unwrap_or_default(), parts.next());
            if os != "linux" {
                return Err(format!("the emulator builds images for linux only, not for '{platform}'"));
            }
            if let Some(wanted) =
                wanted.map(architecture).filter(|wanted| *wanted != architecture(std::env::consts::ARCH))
            {
                self.image.log.info(format!(
                    "{expanded}: the image contains the programs of this machine, not those for {wanted}"
                ));
            }
        }
        // If the base is an earlier stage, that stage is finished first.
        let earlier =
            self.stages.iter().position(|stage| stage.name.as_deref() == Some(&expanded.to_ascii_lowercase()));
        let (mut base, args) = match earlier {
            Some(at) => (self.finish_stage(at).await?, self.stages[at].args.clone()),
            None => (self.base(&expanded)?, Vec::new()),
        };
        let triggers = std::mem::take(&mut base.config.onbuild);
        let binds = storage::binds(&self.state, &self.definition.volume_mounts, &[])
            .map_err(|error| format!("cannot mount a volume: {error}"))?;
        let mut stage = Stage::new(&self.state, alias, base, binds);
        stage.args = args;
        self.stages.push(stage);
        for line in triggers {
            let shown = line.lines().next().unwrap_or_default();
            self.image.log.info(format!("=> ONBUILD {shown}"));
            let instruction = parse_trigger(&line)?;
            Box::pin(self.step(&instruction)).await.map_err(|e| format!("ONBUILD {shown}: {e}"))?;
        }
        Ok(())
    }

    /// Moves a stage's files to a layer and returns the image. The stage continues on top of it.
    pub(super) async fn finish_stage(&mut self, at: usize) -> Result<Built, String> {
        let stage = &mut self.stages[at];
        let mut again = Stage::new(&self.state, stage.name.clone(), Built::default(), Vec::new());
        again.args.clone_from(&stage.args);
        let layer = self.state.layers().join(format!("{}-{at}-{}", self.image.id, ids::id("stage")));
        let built = std::mem::replace(stage, again).finish(&layer).await?;
        self.stages[at].image = built.clone();
        Ok(built)
    }

    /// Returns the image, other than a stage, that a name in FROM or `--from` stands for.
    pub(super) fn base(&self, name: &str) -> Result<Built, String> {
        if let Some(base) = self.definition.base_images.iter().find(|base| base.docker_tag == name) {
            let built = self.state.image(&base.image_id).and_then(|image| image.built());
            return built.map(|built| (*built).clone()).map_err(|status| status.message().to_owned());
        }
        if name == "scratch" {
            return Ok(Built { from_scratch: true, ..Built::default() });
        }
        offline_stand_ins::check_reference(name)?;
        self.image.log.info(format!("{name}: {}", offline_stand_ins::STAND_IN));
        let mut built = Built::default();
        built.layers.extend(python_layer(&self.state).map_err(|e| e.to_string())?);
        Ok(built)
    }

    fn args(&mut self, args: &[(String, Option<String>)]) -> Result<(), String> {
        let mut values = Vec::new();
        for (name, default) in args {
            let name = self.expand(name)?;
            let value = match (self.definition.build_args.get(&name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(default)?),
                (None, None) => self.global_args.iter().rev().find(|(key, _)| *key == name).map(|(_, v)| v.clone()),
            };
            values.extend(value.map(|value| (name, value)));
            if self.stages.is_empty() {
                // ARG lines before the first FROM see the previous ones, also on the same line.
                overlay(&mut self.global_args, values.drain(..));
            }
        }
        if let Some(stage) = self.stages.last_mut() {
            overlay(&mut stage.args, values);
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

    async fn run_command(&mut self, run: &Run) -> Result<(), String> {
        let mut script = None;
        let argv = match &run.command {
            Command::Script(text) if text.starts_with("#!") => {
                let path = format!("/tmp/.{}", ids::id("script"));
                let attributes = Attributes { mode: Some(Chmod::parse("755")?), ..Attributes::default() };
                let root = self.stage()?.root().await?;
                let (inside, text) = (PathBuf::from(&path[1..]), text.clone());
                blocking(move || root.write(&inside, text.as_bytes(), &attributes).map_err(|e| e.to_string())).await?;
                script = Some(path.clone());
                vec![path]
            }
            // A shell does nothing for an empty script, and succeeds.
            Command::Script(text) if text.trim().is_empty() => vec!["true".to_owned()],
            command => self.argv(command)?,
        };
        if argv.is_empty() {
            return Err("RUN needs a command".to_owned());
        }
        let mut env = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())];
        let given = self.definition.build_args.iter();
        let proxies = given.filter(|(name, _)| PROXIES.iter().any(|known| known.eq_ignore_ascii_case(name)));
        overlay(&mut env, proxies.map(|(name, value)| (name.clone(), value.clone())));
        let (secrets, image) = (self.secrets.clone(), self.image.clone());
        let stage = self.stage()?;
        overlay(&mut env, stage.args.clone());
        overlay(&mut env, stage.image.config.env.clone());
        overlay(&mut env, secrets);
        let mut mounted = Mounted::default();
        let code = match self.mount(&run.mounts, &mut mounted).await {
            Ok(()) => {
                overlay(&mut env, mounted.env.clone());
                self.stage()?.run(argv, env, &image.log).await
            }
            Err(error) => Err(error),
        };
        let unmounted = self.unmount(mounted).await;
        if let Some(path) = script {
            let root = self.stage()?.root().await?;
            let _ = blocking(move || root.remove(Path::new(&path[1..])).map_err(|e| e.to_string())).await;
        }
        match code? {
            0 => unmounted,
            code => Err(format!("the command exited with code {code}")),
        }
    }

    async fn copy(&mut self, copy: &Copy) -> Result<(), String> {
        let to = Arc::new(self.stage()?.root().await?);
        // Owners in the context have no meaning here; owners in a stage are kept.
        let mut attributes = Attributes { keep_owner: copy.from.is_some(), ..Attributes::default() };
        if let Some(mode) = &copy.chmod {
            attributes.mode = Some(Chmod::parse(&self.expand(mode)?).map_err(|e| format!("--chmod: {e}"))?);
        }
        if let Some(owner) = &copy.chown {
            let (root, owner) = (to.clone(), self.expand(owner)?);
            attributes.owner = Some(blocking(move || owner_of(&root, "--chown=", &owner)).await?);
        }
        let expanded = |texts: &[String]| texts.iter().map(|text| self.expand(text)).collect::<Result<Vec<_>, _>>();
        let (sources, exclude) = (expanded(&copy.sources)?, Rules::new(&expanded(&copy.exclude)?)?);
        let mut inline = Vec::new();
        for document in &copy.inline {
            let lookup = |name: &str| self.variable(name);
            let text = if document.expand { expand_document(&document.text, &lookup)? } else { document.text.clone() };
            inline.push((document.name.clone(), text));
        }
        let target = self.expand(&copy.target)?;
        let into = target.ends_with('/')
            || target == "."
            || target.ends_with("/.")
            || sources.len() + inline.len() > 1
            || copy.parents;
        let target = absolute(self.stage()?.image.config.workdir.as_deref(), &target);
        let target = PathBuf::from(&target[1..]);
        let (root, directory) = (to.clone(), target.clone());
        let into = into || blocking(move || Ok(root.is_dir(&directory))).await?;
        let remote = |source: &&String| {
            let source = source.as_str();
            copy.add
                && (["http://", "https://", "git://", "ssh://", "git@"].iter().any(|start| source.starts_with(start)))
        };
        if let Some(url) = sources.iter().find(remote) {
            return Err(format!("the emulator does not download files: {url}"));
        }
        if copy.checksum.is_some() {
            return Err("--checksum needs a source that is downloaded".to_owned());
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
            let from = Arc::new(from);
            let job = Job {
                from: from.clone(),
                to: to.clone(),
                sources,
                target: target.clone(),
                into,
                attributes: attributes.clone(),
                exclude,
                parents: copy.parents,
                unpack: copy.unpack.unwrap_or(copy.add),
            };
            for archive in blocking(move || job.run()).await? {
                self.unpack(&from, archive, &to, target.clone(), into, &attributes).await?;
            }
        }
        for (name, content) in inline {
            let path = if into { target.join(name) } else { target.clone() };
            let (root, attributes) = (to.clone(), attributes.clone());
            blocking(move || root.write(&path, content.as_bytes(), &attributes).map_err(|e| e.to_string())).await?;
        }
        Ok(())
    }

    /// Unpacks a local archive into the target directory, or copies the file if it is not an archive. Runs the machine's `tar`
    /// in a separate container, because the image may have none.
    async fn unpack(
        &mut self,
        from: &Arc<Root>,
        source: PathBuf,
        to: &Arc<Root>,
        target: PathBuf,
        into: bool,
        attributes: &Attributes,
    ) -> Result<(), String> {
        let mut helper = Stage::new(&self.state, None, Built::default(), Vec::new());
        let done = unpack(&mut helper, from, source, to, target, into, attributes).await;
        helper.discard().await;
        done
    }

    /// Returns the index of the earlier stage that `--from` names; `None` if it names an image.
    pub(super) fn earlier_stage(&self, name: &str) -> Option<usize> {
        let last = self.stages.len().saturating_sub(1);
        let named = &self.stages[..last];
        let named = named.iter().position(|stage| stage.name.as_deref() == Some(&name.to_ascii_lowercase()));
        named.or_else(|| name.parse().ok().filter(|at| *at < last))
    }

    /// Returns the files of the stage or image that `--from` names.
    pub(super) async fn source_root(&mut self, name: &str) -> Result<Root, String> {
        let at = match self.earlier_stage(name) {
            Some(at) => at,
            None => {
                // Inserted before the stage that is being built, which must stay the last.
                let last = self.stages.len().saturating_sub(1);
                let stage = Stage::new(&self.state, Some(name.to_ascii_lowercase()), self.base(name)?, Vec::new());
                self.stages.insert(last, stage);
                last
            }
        };
        self.stages[at].root().await
    }

    /// Returns the directory of the build context. Creates it on first use.
    pub(super) async fn context(&mut self) -> Result<PathBuf, String> {
        if let Some(path) = &self.context {
            return Ok(path.clone());
        }
        let path = self.state.layers().join(format!("{}-context", self.image.id));
        let mount = self.state.mount(&self.definition.context_mount_id).ok();
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

/// Does the work of [`Build::unpack`] in the stage `helper`.
async fn unpack(
    helper: &mut Stage,
    from: &Arc<Root>,
    source: PathBuf,
    to: &Arc<Root>,
    target: PathBuf,
    into: bool,
    attributes: &Attributes,
) -> Result<(), String> {
    let place = Arc::new(helper.root().await?);
    let (from, inside, copied) = (from.clone(), place.clone(), source.clone());
    blocking(move || {
        let attributes = Attributes::default();
        inside.make_directories(Path::new("out"), &attributes).map_err(|e| e.to_string())?;
        inside.copy(&from, &copied, Path::new("archive"), &attributes, None).map_err(|e| e.to_string())
    })
    .await?;
    let mut tar = async |arguments: &[&str], log: &Log| {
        let argv = std::iter::once("tar").chain(arguments.iter().copied()).map(str::to_owned).collect();
        helper.run(argv, vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())], log).await
    };
    // A compressed file is not necessarily an archive.
    let names = Log::default();
    let unpacks = tar(&["-tf", "/archive"], &names).await? == 0 && !names.is_empty();
    if unpacks {
        let owner = if nix::unistd::geteuid().is_root() { "--same-owner" } else { "--no-same-owner" };
        let log = Log::default();
        let arguments = ["-xpf", "/archive", "-C", "/out", "--numeric-owner", owner];
        if tar(&arguments, &log).await? != 0 {
            let said: String =
                log.follow(0, usize::from(!log.is_empty())).await.into_iter().map(|line| line.data).collect();
            return Err(format!("cannot unpack {}: {}", source.display(), said.trim()));
        }
    }
    let (to, attributes) = (to.clone(), attributes.clone());
    blocking(move || {
        let copied = if unpacks {
            // Owners in the archive are kept, unless `--chown` sets one.
            let attributes = Attributes { keep_owner: attributes.owner.is_none(), ..attributes };
            to.copy(&place, Path::new("out"), &target, &attributes, None)
        } else {
            let name = source.file_name().unwrap_or_default();
            let target = if into { target.join(name) } else { target };
            to.copy(&place, Path::new("archive"), &target, &attributes, None)
        };
        copied.map_err(|e| format!("{}: {e}", source.display()))
    })
    .await
}

/// Returns the arguments that describe the platform. FROM lines see them, and stages that declare them.
fn platform() -> Vec<(String, String)> {
    let arch = architecture(std::env::consts::ARCH);
    let variant = if arch == "arm" { "v7" } else { "" };
    let whole = format!("linux/{arch}{}{variant}", if variant.is_empty() { "" } else { "/" });
    let of = |start: &str| {
        [("PLATFORM", whole.as_str()), ("OS", "linux"), ("OSVERSION", ""), ("ARCH", arch), ("VARIANT", variant)]
            .map(|(end, value)| (format!("{start}{end}"), value.to_owned()))
    };
    let stage = ("TARGETSTAGE".to_owned(), "default".to_owned());
    of("BUILD").into_iter().chain(of("TARGET")).chain([stage]).collect()
}

/// Converts a processor's name to the form that images use.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i386" | "i686" => "386",
        "armhf" | "armel" => "arm",
        "powerpc64le" | "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Returns whether a text is a port or a range such as `80`, `80/tcp` or `8000-8010/udp`.
fn is_port(text: &str) -> bool {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let known = ["tcp", "udp", "sctp"].iter().any(|known| known.eq_ignore_ascii_case(protocol));
    matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if first <= last) && known
}

/// Returns whether a text is a signal such as `9`, `KILL`, `SIGKILL` or `RTMIN+3`.
fn is_signal(text: &str) -> bool {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    text.parse::<i32>().is_ok_and(|number| (1..=64).contains(&number))
        || nix::sys::signal::Signal::from_str(&format!("SIG{name}")).is_ok()
        || ["RTMIN", "RTMAX"].iter().filter_map(|start| name.strip_prefix(start)).any(|rest| {
            rest.is_empty()
                || rest.strip_prefix(['+', '-']).is_some_and(|number| number.parse::<u8>().is_ok_and(|n| n <= 30))
        })
}

/// Parses `user[:group]`, in names of the image's accounts or numbers. `what` precedes the text in error messages.
pub(super) fn owner_of(root: &Root, what: &str, text: &str) -> Result<(u32, u32), String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let find = |file: &str, name: &str| -> Option<Vec<u32>> {
        let content = root.read(Path::new(file))?;
        let content = String::from_utf8_lossy(&content).into_owned();
        let line = content.lines().find(|line| line.split(':').next() == Some(name))?.to_owned();
        Some(line.split(':').skip(2).take(2).filter_map(|field| field.parse().ok()).collect())
    };
    let unknown = |name: &str| format!("{what}{text}: {name} is unknown in the image");
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

/// Resolves a path against the working directory, and removes `.` and `..`.
pub(super) fn absolute(workdir: Option<&str>, path: &str) -> String {
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

/// Returns whether clients added this line for a standalone Python, which the emulator does not have.
fn is_python_preparation(line: &str) -> bool {
    matches!(line.trim(), "COPY /python/. /usr/local" | "RUN ln -s /usr/local/bin/python3 /usr/local/bin/python")
}

/// Returns a layer with a link `python` if the machine has only `python3`, because programs expect `python` in images.
fn python_layer(state: &State) -> std::io::Result<Option<PathBuf>> {
    let on_path = |name: &str| {
        DEFAULT_PATH.split(':').map(|directory| Path::new(directory).join(name)).find(|path| path.exists())
    };
    let (None, Some(python3)) = (on_path("python"), on_path("python3")) else { return Ok(None) };
    let layer = state.layers().join("python");
    if !layer.is_dir() {
        let part = state.layers().join(ids::id("python"));
        std::fs::create_dir(&part)?;
        make_directories(&part, Path::new("usr/local/bin"))?;
        symlink(python3, part.join("usr/local/bin/python"))?;
        if std::fs::rename(&part, &layer).is_err() {
            remove(&part)?;
        }
    }
    Ok(Some(layer))
}

/// Runs `job` in a thread for blocking work.
pub(super) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
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
}
