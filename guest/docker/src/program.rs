//! Puts the helper program on the engine: into a volume that all containers share. The name of the volume contains the
//! digest of the program, so versions do not mix.

use std::{cell::Cell, rc::Rc};

use sandbox_provider_kit::{Error, Result, api::ids::format_uuid, call::json::Value};
use sha2::{Digest as _, Sha256};

use crate::{
    engine::{Call, Engine, failed, flavor::Flavor, map, texts},
    helper::{PROGRAM, PROGRAM_FOLDER},
    tar,
};

/// The archives with the helper program: one for each architecture.
const ARCHIVES: [(&str, &[u8]); 2] = [
    ("x86_64", include_bytes!(concat!(env!("OUT_DIR"), "/x86_64.tar.gz"))),
    ("aarch64", include_bytes!(concat!(env!("OUT_DIR"), "/aarch64.tar.gz"))),
];

/// An image without files, for the containers of this provider's own.
const EMPTY_IMAGE: &str = "harness-sandbox-empty";

/// How often the program is put on the engine before that is given up.
const ATTEMPTS: u32 = 3;

/// The helper program on an engine.
#[derive(Clone)]
pub struct Program {
    engine: Engine,
    /// It was found there.
    there: Rc<Cell<bool>>,
}

impl Program {
    /// Makes the program of this engine. Sends nothing.
    #[must_use]
    pub fn new(engine: Engine) -> Program {
        Program { engine, there: Rc::default() }
    }

    /// Returns the mount of the volume with the program. Puts the program there if it is missing.
    ///
    /// # Errors
    ///
    /// `unsupported` if there is no program for the architecture of the engine's machine, or the error of the failed
    /// request.
    pub async fn mount(&self) -> Result<Value> {
        let (volume, archive) = archive(&self.engine.flavor().await?)?;
        if !self.there.get() {
            match self.engine.ask(Call::get(format!("/volumes/{volume}"))).await? {
                Ok(_) => {}
                Err(refusal) if refusal.status() == Some(404) => self.put(&volume, archive).await?,
                Err(refusal) => return Err(failed(&refusal, "look for the helper program")),
            }
            self.there.set(true);
        }
        Ok(mount(&volume, true))
    }

    /// Puts the program there again, because a container did not find it: the former attempt was interrupted, or the volume
    /// was removed.
    ///
    /// # Errors
    ///
    /// As for [`Program::mount`].
    pub async fn repair(&self) -> Result<()> {
        let (volume, archive) = archive(&self.engine.flavor().await?)?;
        self.put(&volume, archive).await
    }

    async fn put(&self, volume: &str, archive: &'static [u8]) -> Result<()> {
        let image = self.empty_image().await?;
        let mut attempt = 1;
        loop {
            let name = format!("harness-sandbox-setup-{}", format_uuid(self.engine.transport().random()));
            let body = map([
                ("Image", image.as_str().into()),
                ("Cmd", texts(["none"])),
                ("HostConfig", map([("Mounts", Value::List(vec![mount(volume, false)]))])),
            ]);
            let created = self.engine.ask(Call::post("/containers/create").with("name", &name).json(&body)).await?;
            created.map_err(|refusal| failed(&refusal, "make a place for the helper program"))?;
            let call = Call::put(format!("/containers/{name}/archive")).with("path", PROGRAM_FOLDER);
            let sent = self.engine.ask(call.tar(archive)).await;
            let remove = Call::delete(format!("/containers/{name}")).with("force", "1");
            let removed = self.engine.ask(remove).await;
            match sent? {
                Ok(_) => {
                    removed?.map_err(|refusal| failed(&refusal, "remove the place of the helper program"))?;
                    return Ok(());
                }
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                Err(refusal) => return Err(failed(&refusal, "put the helper program on the engine")),
            }
        }
    }

    /// Returns the id of the image for this provider's own containers. Makes it if it is missing.
    async fn empty_image(&self) -> Result<String> {
        // Podman ignores other tags of an import.
        let found = self.engine.json(Call::get(format!("/images/{EMPTY_IMAGE}:latest/json"))).await?;
        if let Ok(found) = &found
            && let Some(id) = found.get("Id").text()
        {
            return Ok(id.to_string());
        }
        let call = Call::post("/images/create").with("fromSrc", "-").with("repo", EMPTY_IMAGE).with("tag", "latest");
        let archive = tar::file("README", 0o644, b"The containers of this image belong to a provider of sandboxes.\n");
        let what = "make an image for the helper program";
        let made = self.engine.ask(call.tar(archive)).await?.map_err(|refusal| failed(&refusal, what))?;
        let lines = String::from_utf8_lossy(&made.body).into_owned();
        let id = lines.lines().filter_map(Value::parse).find_map(|line| Some(line.get("status").text()?.to_string()));
        id.ok_or_else(|| Error::internal("The engine made an image and returned no id."))
    }

    /// Returns the body of the create request of a container of this provider's own, which only keeps its files.
    ///
    /// # Errors
    ///
    /// As for [`Program::mount`].
    pub async fn idle_container(&self, labels: Value, lifetime_ms: u128) -> Result<Value> {
        let mount = self.mount().await?;
        let image = self.empty_image().await?;
        let anonymous = map([("Type", "volume".into()), ("Target", crate::helper::FOLDER.into())]);
        let host = map([("NetworkMode", "none".into()), ("Mounts", Value::List(vec![anonymous, mount]))]);
        Ok(map([
            ("Image", image.as_str().into()),
            ("User", "0:0".into()),
            ("Entrypoint", texts([PROGRAM])),
            ("Cmd", texts(["init".to_string(), format!("lifetime={lifetime_ms}")])),
            ("Labels", labels),
            ("HostConfig", host),
        ]))
    }
}

fn mount(volume: &str, read_only: bool) -> Value {
    map([
        ("Type", "volume".into()),
        ("Source", volume.into()),
        ("Target", PROGRAM_FOLDER.into()),
        ("ReadOnly", read_only.into()),
    ])
}

/// Returns the name of the volume, and the archive with the program.
fn archive(flavor: &Flavor) -> Result<(String, &'static [u8])> {
    let found = flavor.helper_arch().and_then(|arch| ARCHIVES.iter().find(|(name, _)| *name == arch));
    let Some((arch, archive)) = found.filter(|(_, archive)| !archive.is_empty()) else {
        let built: Vec<_> = ARCHIVES.iter().filter(|(_, archive)| !archive.is_empty()).map(|(arch, _)| *arch).collect();
        return Err(Error::unsupported(
            "create.platform",
            format!(
                "The engine's machine has the architecture {}, but this component was built for {}: build it with \
                 `cargo xtask build --all-architectures`.",
                flavor.arch,
                built.join(" and ")
            ),
        ));
    };
    let digest = Sha256::digest(archive);
    let digest: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok((format!("harness-sandbox-{arch}-{digest}"), archive))
}
