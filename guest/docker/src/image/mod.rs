//! Images: from registries, from Dockerfiles, and those that the engine has.

mod bases;
mod build;
mod buildkit;
mod content;
mod context;
mod trace;
mod work;

use std::{rc::Rc, time::Duration};

use sandbox_provider_kit::{
    Error, Result,
    api::{
        check as arguments,
        error::shown,
        needs,
        wit::{
            BuildProgress, BuiltImage, Content, Dockerfile, ErrorKind, ImagePage, ImageSource, ImageSpec, Pair,
            RegistryImage, RegistryLogin,
        },
    },
    call::{http::Refusal, json::Value},
    image::spec,
};

use crate::{
    describe::{DEFAULT_IMAGE, describe},
    engine::{Call, Engine, cursor_of, failed, items, map, newest_first, position, strings, texts},
    inspect::LABEL,
    program::Program,
};

pub use content::Contents;
use work::Works;

/// How often a list is asked for again that the engine could not make.
const LIST_REPEATS: u32 = 10;

/// The repository of the images that are built.
const BUILT: &str = "harness-sandbox-build";

/// An image that can be used, with the parts of its configuration that a sandbox needs.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Its id.
    pub id: String,
    /// The user of its processes; may be empty.
    pub user: String,
    /// Its environment.
    pub env: Vec<Pair>,
    /// Its entry point.
    pub entry_point: Vec<String>,
    /// Its command.
    pub command: Vec<String>,
    /// Its working directory.
    pub workdir: Option<String>,
    /// Its platform, such as `linux/amd64`.
    pub platform: String,
}

impl Ready {
    fn built(self) -> BuiltImage {
        BuiltImage { id: self.id, workdir: self.workdir, extra: Vec::new() }
    }
}

/// Returns the part of an image's configuration that a sandbox needs.
#[must_use]
fn ready(id: String, image: &Value) -> Ready {
    let config = image.get("Config");
    let text = |name: &str| image.get(name).text().unwrap_or_default();
    let env = strings(config.get("Env"));
    let env = env.iter().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into()));
    Ready {
        id,
        user: config.get("User").text().unwrap_or_default().to_string(),
        env: env.collect(),
        entry_point: strings(config.get("Entrypoint")),
        command: strings(config.get("Cmd")),
        workdir: config.get("WorkingDir").text().filter(|dir| !dir.is_empty()).map(str::to_string),
        platform: format!("{}/{}", text("Os"), text("Architecture")),
    }
}

/// Returns the id of an image: the digest of the engine without its algorithm, because an id contains no colon.
#[must_use]
pub fn image_id(digest: &str) -> String {
    digest.strip_prefix("sha256:").unwrap_or(digest).to_string()
}

/// Where an image comes from: what is pulled first, and what is built on top of it.
#[derive(Debug, Clone)]
struct Plan {
    /// The reference or the id that has to be there. `None` if only a Dockerfile says what is needed.
    base: Option<Base>,
    /// The Dockerfile to build, with its context.
    build: Option<Dockerfile>,
    force: bool,
    platform: Option<String>,
}

#[derive(Debug, Clone)]
struct Base {
    reference: String,
    /// Whether it is pulled if the engine does not have it.
    pull: bool,
    /// Whether the host adds its registry credential to the request.
    login: Option<String>,
}

/// Checks the specification of an image. Sends nothing.
///
/// # Errors
///
/// `unsupported` or `invalid-argument` for what this provider does not accept.
pub fn check(image: &ImageSpec) -> Result<()> {
    needs::check(&describe(), &needs::of_image(image))?;
    spec::check(image, check_id)?;
    if let ImageSource::Registry(RegistryImage { login: Some(login), .. }) = &image.source {
        credential(login)?;
    }
    if let ImageSource::Dockerfile(Dockerfile { login: Some(login), .. }) = &image.source {
        credential(login)?;
    }
    if let Some(platform) = &image.platform
        && platform.split('/').next() != Some("linux")
    {
        return Err(Error::invalid(format!(
            "`{}` is not a platform of sandboxes: give one such as linux/amd64.",
            shown(platform)
        ))
        .about("platform"));
    }
    arguments::absent(image.builder_version.is_some(), "image.builder-version")
}

/// Returns the name of the credential of the host that a login names.
fn credential(login: &RegistryLogin) -> Result<&str> {
    match login {
        RegistryLogin::Credential(name) if name == REGISTRY_CREDENTIAL => Ok(name),
        RegistryLogin::Credential(name) => Err(Error::invalid(format!(
            "There is no credential `{}`: the manifest of this provider has `{REGISTRY_CREDENTIAL}`, from DOCKER_REGISTRY_USER and \
             DOCKER_REGISTRY_PASSWORD.",
            shown(name)
        ))
        .about(name)),
        _ => Err(Error::invalid(format!(
            "An engine has no store for secrets: name the credential `{REGISTRY_CREDENTIAL}` of the host."
        ))
        .about("login")),
    }
}

/// The credential for registries, by its name in the manifest.
const REGISTRY_CREDENTIAL: &str = "registry";

/// Checks the form of an image id.
fn check_id(id: &str) -> Result<()> {
    let good = (12..=64).contains(&id.len()) && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if good { Ok(()) } else { Err(Error::not_found("image", id)) }
}

/// The images of the engine.
pub struct Images {
    engine: Engine,
    contents: Rc<Contents>,
    works: Works,
}

impl Images {
    /// Makes images of this engine.
    #[must_use]
    pub fn new(engine: Engine, program: Program) -> Images {
        let contents = Rc::new(Contents::new(engine.clone(), program));
        Images { works: Works::new(engine.clone(), contents.clone()), engine, contents }
    }

    /// Makes the image of a sandbox available: pulls and builds as needed.
    ///
    /// # Errors
    ///
    /// `not-found` if there is no such image, `build-failed`, or the error of the failed request.
    pub async fn prepare(&self, spec: &ImageSpec) -> Result<Ready> {
        self.works.finish(self.plan(spec)?).await
    }

    /// Implements `start-build`.
    ///
    /// # Errors
    ///
    /// As for [`Images::prepare`], as far as it is known at once.
    pub async fn start(&self, spec: &ImageSpec) -> Result<BuildProgress> {
        check(spec)?;
        self.works.start(self.plan(spec)?).await
    }

    /// Implements `read-build`.
    ///
    /// # Errors
    ///
    /// As for [`Images::prepare`]; `unavailable` if the build was lost with another instance: start it again.
    pub async fn read(&self, cursor: &str, max_bytes: u32, wait: u64) -> Result<BuildProgress> {
        self.works.read(cursor, max_bytes, wait).await
    }

    /// Implements `missing-content`.
    ///
    /// # Errors
    ///
    /// `invalid-argument`, or the error of the failed request.
    pub async fn missing(&self, contents: &[Content]) -> Result<Vec<String>> {
        self.contents.missing(contents).await
    }

    /// Implements `upload-content`.
    ///
    /// # Errors
    ///
    /// `invalid-argument`, or the error of the failed request.
    pub async fn upload(&self, content: &Content, offset: u64, data: Vec<u8>) -> Result<u64> {
        self.contents.upload(content, offset, data).await
    }

    /// Implements `get-image`.
    ///
    /// # Errors
    ///
    /// `not-found`, or the error of the failed request.
    pub async fn get(&self, id: &str) -> Result<BuiltImage> {
        check_id(id)?;
        let found = inspect(&self.engine, id).await?;
        found.map(Ready::built).ok_or_else(|| Error::not_found("image", id))
    }

    /// Implements `delete-image`.
    ///
    /// # Errors
    ///
    /// `not-found` for an id of another form, `conflict` if a sandbox uses the image, or the error of the failed request.
    pub async fn delete(&self, id: &str) -> Result<()> {
        check_id(id)?;
        match self.engine.ask(Call::delete(format!("/images/{id}")).with("force", "1")).await? {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.status() == Some(404) || is_unknown_id(&refusal, id) => Ok(()),
            Err(refusal) => Err(failed(&refusal, "delete the image").about(id)),
        }
    }

    /// Implements `list-images`: the images that this provider built or saved. The cursor is the position of the last image
    /// of a page, which may have been deleted since.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for a wrong cursor, or the error of the failed request.
    pub async fn list(&self, cursor: Option<&str>, max: u32) -> Result<ImagePage> {
        if max == 0 {
            return Err(Error::invalid("max is 0: ask for at least one image.").about("max"));
        }
        let after = cursor.map(position).transpose()?;
        let filters = map([("label", texts([LABEL]))]).to_string();
        let mut left = LIST_REPEATS;
        let found = loop {
            match self.engine.json(Call::get("/images/json").with("filters", filters.as_str())).await? {
                Ok(found) => break found,
                // Podman fails if an image is deleted while it makes the list.
                Err(refusal) if refusal.status() == Some(500) && left > 0 => {
                    left -= 1;
                    self.engine.transport().sleep(Duration::from_millis(100)).await;
                }
                Err(refusal) => return Err(failed(&refusal, "list the images")),
            }
        };
        let mut all: Vec<(u64, String)> = items(&found)
            .iter()
            .filter_map(|image| Some((image.get("Created").whole()?, image_id(image.get("Id").text()?))))
            .collect();
        newest_first(&mut all);
        all.dedup();
        if let Some(after) = after {
            all.retain(|position| *position < after);
        }
        let mut all = all.into_iter();
        let page: Vec<_> = all.by_ref().take(max.min(1000) as usize).collect();
        let next = page.last().filter(|_| all.next().is_some()).map(cursor_of);
        let items = page.into_iter().map(|(_, id)| BuiltImage { id, workdir: None, extra: Vec::new() }).collect();
        Ok(ImagePage { items, next })
    }

    fn plan(&self, image: &ImageSpec) -> Result<Plan> {
        let base = |reference: &str, pull| Base { reference: reference.to_string(), pull, login: None };
        let (base, mut dockerfile) = match &image.source {
            ImageSource::ProviderDefault => {
                let name = self.engine.transport().env("DOCKER_DEFAULT_IMAGE");
                (Some(base(name.as_deref().unwrap_or(DEFAULT_IMAGE), true)), None)
            }
            ImageSource::Id(id) => (Some(base(id, false)), None),
            ImageSource::Named(name) => (Some(base(name, false)), None),
            ImageSource::Registry(image) => {
                let login = image.login.as_ref().map(credential).transpose()?.map(str::to_string);
                (Some(Base { login, ..base(&image.reference, true) }), None)
            }
            ImageSource::Dockerfile(dockerfile) => (None, Some(dockerfile.clone())),
            ImageSource::Other((name, _)) => return Err(arguments::unknown_case("image source", name)),
        };
        if !image.commands.is_empty() {
            let below = dockerfile.get_or_insert_with(|| Dockerfile {
                text: format!("FROM {}\n", base.as_ref().map_or("scratch", |base| base.reference.as_str())),
                context: Vec::new(),
                build_args: Vec::new(),
                target: None,
                login: None,
            });
            below.text = spec::stage(below)?.to_string();
            below.target = None;
            for command in &image.commands {
                below.text.push('\n');
                below.text.push_str(command);
            }
            below.text.push('\n');
        }
        Ok(Plan { base, build: dockerfile, force: image.force, platform: image.platform.clone() })
    }
}

/// Looks up an image by its id or reference. Returns `None` if the engine does not have it.
///
/// # Errors
///
/// The error of the failed request.
async fn inspect(engine: &Engine, reference: &str) -> Result<Option<Ready>> {
    if !is_plain(reference) {
        return Err(Error::invalid(format!(
            "`{}` is not an image name: give one such as `debian:12` or `ghcr.io/org/image:tag`.",
            shown(reference)
        ))
        .about("image"));
    }
    match engine.json(Call::get(format!("/images/{reference}/json"))).await? {
        Ok(image) => {
            let id = image.get("Id").text().map(image_id).unwrap_or_default();
            Ok(Some(ready(id, &image)))
        }
        Err(refusal) if refusal.status() == Some(404) || is_unknown_id(&refusal, reference) => Ok(None),
        Err(refusal) => Err(failed(&refusal, "look at the image").about(reference)),
    }
}

/// Returns whether a reference can be a part of a path: the engine takes it with its slashes.
fn is_plain(reference: &str) -> bool {
    let plain = reference.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:/@".contains(&byte));
    plain && !reference.contains("..")
}

/// Returns whether Podman refused a whole id that it does not know: it takes it for a name then, and such names are not
/// permitted.
fn is_unknown_id(refusal: &Refusal, reference: &str) -> bool {
    refusal.status() == Some(500) && reference.len() == 64 && check_id(reference).is_ok()
}

/// Returns whether an image is for this platform. Variants such as `v8` are not compared.
fn is_for(image: &Ready, platform: Option<&str>) -> bool {
    let parts = |text: &str| text.split('/').take(2).map(str::to_ascii_lowercase).collect::<Vec<_>>();
    platform.is_none_or(|platform| parts(platform) == parts(&image.platform))
}

/// Returns the error for an image that is not there.
fn missing(reference: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("There is no image `{}`.", shown(reference))).about(reference)
}

#[cfg(test)]
mod tests {
    use sandbox_provider_kit::platform::scripted::{self, Answer, Script};

    use super::*;

    #[test]
    fn a_list_goes_on_after_an_image_that_was_deleted() {
        let script = Script::new();
        let image = |id: char, created: u64| format!(r#"{{"Id":"{}","Created":{created}}}"#, id.to_string().repeat(64));
        let all = format!("[{},{},{}]", image('a', 3), image('b', 2), image('c', 1));
        let left = format!("[{},{}]", image('a', 3), image('c', 1));
        script.will("json", Answer::Http(200, "", all.leak()));
        script.will("json", Answer::Http(200, "", left.leak()));
        let engine = Engine::new(Rc::new(script));
        let images = Images::new(engine.clone(), Program::new(engine));
        let ids = |page: &ImagePage| page.items.iter().map(|image| image.id.clone()).collect::<Vec<_>>();
        let first = scripted::run(images.list(None, 2)).expect("a page");
        assert_eq!(ids(&first), ['a', 'b'].map(|id| image_id(&id.to_string().repeat(64))));
        let second = scripted::run(images.list(first.next.as_deref(), 2)).expect("a page");
        assert_eq!((ids(&second), second.next), (vec![image_id(&"c".repeat(64))], None));
        let error = scripted::run(images.list(Some("no cursor"), 2)).expect_err("a wrong cursor");
        assert_eq!(error.subject.as_deref(), Some("cursor"));
    }
}
