//! Contents of build contexts, by their digest. An engine has no store for them, so they are files of a container in which
//! only the helper program runs: `/content/DIGEST/OFFSET` for each piece, and `/content/DIGEST/done` once all pieces are there.
//!
//! There is a container for each day. Contents are looked for in that of the day and in the one before. Older containers are
//! removed.

use std::{cell::RefCell, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use sandbox_provider_kit::{
    Error, Result,
    api::wit::Content,
    image::context::{Received, check_contents, check_piece},
    memo::Memo,
};

use crate::{
    engine::{Call, Engine, failed, map},
    inspect,
    program::Program,
    tar,
};

/// The label of the containers. Its value is the number of the day.
const CONTENT_LABEL: &str = "harness-sandbox-content";

/// How many requests are made together.
const BATCH: usize = 16;

/// How often a container that another caller creates is looked for.
const STARTS: u32 = 50;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The store.
pub struct Contents {
    engine: Engine,
    program: Program,
    /// Uploads of more than one piece.
    open: RefCell<Memo<String, Received>>,
}

impl Contents {
    /// Makes a store in this engine.
    #[must_use]
    pub fn new(engine: Engine, program: Program) -> Contents {
        Contents { engine, program, open: RefCell::default() }
    }

    fn day(&self) -> u64 {
        self.engine.now().as_secs() / DAY.as_secs()
    }

    /// Returns the digests of those contents that are not there.
    ///
    /// # Errors
    ///
    /// `invalid-argument`, or the error of the failed request.
    pub async fn missing(&self, contents: &[Content]) -> Result<Vec<String>> {
        check_contents(contents)?;
        self.remove_old().await;
        let mut missing = Vec::new();
        for batch in contents.chunks(BATCH) {
            let found = join_all(batch.iter().map(|content| self.find(&content.sha256))).await;
            for (content, found) in batch.iter().zip(found) {
                if found?.is_none() && !missing.contains(&content.sha256) {
                    missing.push(content.sha256.clone());
                }
            }
        }
        Ok(missing)
    }

    /// Returns the name of the container that has a content, or `None`.
    ///
    /// # Errors
    ///
    /// The error of the failed request.
    pub async fn find(&self, digest: &str) -> Result<Option<String>> {
        for day in [self.day(), self.day().saturating_sub(1)] {
            let name = container(day);
            let call =
                Call::head(format!("/containers/{name}/archive")).with("path", format!("/content/{digest}/done"));
            match self.engine.ask(call).await? {
                Ok(_) => return Ok(Some(name)),
                Err(refusal) if refusal.status() == Some(404) => {}
                Err(refusal) => return Err(failed(&refusal, "look for the files of the build context")),
            }
        }
        Ok(None)
    }

    /// Implements `upload-content`.
    ///
    /// # Errors
    ///
    /// `invalid-argument` if the digest does not match, or the error of the failed request.
    pub async fn upload(&self, content: &Content, offset: u64, data: Vec<u8>) -> Result<u64> {
        check_piece(content, offset, &data)?;
        let key = &content.sha256;
        let mut received = match offset {
            0 => Received::default(),
            _ => self.open.borrow_mut().remove(key).unwrap_or_default(),
        };
        // A piece that does not follow: the caller continues where the upload is.
        if !received.take(offset, &data) {
            let accepted = received.accepted();
            if accepted > 0 {
                self.open.borrow_mut().insert(key.clone(), received);
            }
            return Ok(accepted);
        }
        let accepted = received.accepted();
        let complete = accepted == content.size;
        let mut archive = Vec::with_capacity(data.len() + 8 * 512);
        for folder in ["content/".to_string(), format!("content/{key}/")] {
            archive.extend_from_slice(&tar::headers(&folder, 0o755, 0));
        }
        archive.extend_from_slice(&tar::headers(&format!("content/{key}/{offset:020}"), 0o644, data.len() as u64));
        archive.extend_from_slice(&data);
        archive.resize(archive.len() + tar::padding(data.len() as u64), 0);
        if complete {
            received.verify(content)?;
            archive.extend_from_slice(&tar::headers(&format!("content/{key}/done"), 0o644, 0));
        } else {
            self.open.borrow_mut().insert(key.clone(), received);
        }
        archive.extend_from_slice(&tar::END);
        self.put(archive.into()).await?;
        Ok(accepted)
    }

    async fn put(&self, archive: Bytes) -> Result<()> {
        let name = container(self.day());
        let call = || Call::put(format!("/containers/{name}/archive")).with("path", "/").tar(archive.clone());
        let refusal = match self.engine.ask(call()).await? {
            Ok(_) => return Ok(()),
            Err(refusal) => refusal,
        };
        if !matches!(refusal.status(), Some(404 | 409 | 500)) {
            return Err(failed(&refusal, "store a file of the build context"));
        }
        self.make(&name).await?;
        match self.engine.ask(call()).await? {
            Ok(_) => Ok(()),
            Err(refusal) => Err(failed(&refusal, "store a file of the build context")),
        }
    }

    /// Starts the container of the day.
    async fn make(&self, name: &str) -> Result<()> {
        let labels = map([(CONTENT_LABEL, self.day().to_string().as_str().into())]);
        let body = self.program.idle_container(labels, 2 * DAY.as_millis()).await?;
        let what = "make a place for the build context";
        match self.engine.ask(Call::post("/containers/create").with("name", name).json(&body)).await? {
            Ok(_) => {}
            // Another caller was faster.
            Err(refusal) if refusal.status() == Some(409) => {}
            Err(refusal) => return Err(failed(&refusal, what)),
        }
        let mut left = STARTS;
        loop {
            match self.engine.ask(Call::post(format!("/containers/{name}/start"))).await? {
                Ok(_) => return Ok(()),
                // An engine reserves a name before the container with it is there.
                Err(refusal) if refusal.status() == Some(404) && left > 0 => {
                    left -= 1;
                    self.engine.transport().sleep(Duration::from_millis(200)).await;
                }
                Err(refusal) => return Err(failed(&refusal, what)),
            }
        }
    }

    /// Removes the containers of former days. Errors are left to the next call.
    async fn remove_old(&self) {
        let Ok(found) = inspect::containers(&self.engine, CONTENT_LABEL, &[]).await else { return };
        for container in found {
            let day = container.get("Labels").get(CONTENT_LABEL).text().and_then(|day| day.parse::<u64>().ok());
            if day.is_some_and(|day| day + 1 < self.day())
                && let Some(id) = container.get("Id").text()
            {
                let _ = inspect::remove(&self.engine, id).await;
            }
        }
    }

    /// Opens a content as a tar archive with its pieces in order.
    ///
    /// # Errors
    ///
    /// `invalid-argument` if the content was not uploaded, or the error of the failed request.
    pub async fn open(&self, digest: &str, path: &str) -> Result<sandbox_provider_kit::platform::Body> {
        let Some(name) = self.find(digest).await? else {
            return Err(Error::invalid(format!(
                "The content of the file `{}` has not been uploaded.",
                sandbox_provider_kit::api::error::shown(path)
            ))
            .about(path));
        };
        let call = Call::get(format!("/containers/{name}/archive")).with("path", format!("/content/{digest}"));
        let response = self.engine.open(call).await?;
        Ok(response.map_err(|refusal| failed(&refusal, "read a file of the build context"))?.body)
    }
}

fn container(day: u64) -> String {
    format!("harness-sandbox-content-{day}")
}
