//! Files, which the helper program reads and changes with the rights of the sandbox's user.

use std::time::Duration;

use sandbox_provider_kit::{
    Error, Result,
    api::{
        check, needs,
        time::bounded_wait,
        wit::{
            FileChunk, FileEvent, FileEventKind, FileInfo, FileKind, FilePage, Location, WatchPage, WriteMode,
            WriteOptions,
        },
    },
    call::json::Value,
};

use crate::{
    describe::describe,
    engine::{items, strings},
    helper::{Helper, LONGEST_WAIT, Verb, data_of, json_of},
    inspect,
};

/// Most bytes of one piece of a write. The interface has the same bound.
const MAX_PIECE_BYTES: usize = 16 * 1024 * 1024;

/// Most bytes that one call reads. Larger requests get this much: the caller asks for the next piece.
const MAX_READ_BYTES: usize = 16 * 1024 * 1024;

/// The files of all sandboxes.
pub struct Files {
    helper: Helper,
}

impl Files {
    /// Makes files that this helper reads and changes.
    #[must_use]
    pub fn new(helper: Helper) -> Files {
        Files { helper }
    }

    /// Checks a location and begins a call of the helper about it.
    fn at(&self, name: &str, at: &Location) -> Result<Verb> {
        needs::check_location(&describe(), at)?;
        inspect::check_id(&at.sandbox)?;
        Ok(Verb::new(name).with("path", &at.path).maybe("user", at.user.as_ref()))
    }

    async fn done(&self, at: &Location, verb: Verb) -> Result<()> {
        self.helper.call(&at.sandbox, &verb).await.map(drop)
    }

    /// Implements `read-file` and `read-tree`.
    ///
    /// # Errors
    ///
    /// `invalid-argument`, the kinds of file errors, or the error of the helper.
    pub async fn read(
        &self,
        verb: &str,
        at: &Location,
        transfer: &str,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk> {
        check::transfer(transfer)?;
        let max = check::max_bytes(max_bytes)?.min(MAX_READ_BYTES);
        let verb = self.at(verb, at)?.with("transfer", transfer).with("offset", offset).with("max", max);
        let frames = self.helper.call(&at.sandbox, &verb).await?;
        let end = json_of(&frames)?.get("end").flag().unwrap_or(false);
        Ok(FileChunk { data: data_of(frames), end })
    }

    /// Implements `write-file`.
    ///
    /// # Errors
    ///
    /// `invalid-argument`, the kinds of file errors, or the error of the helper.
    pub async fn write(
        &self,
        at: &Location,
        transfer: &str,
        options: &WriteOptions,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> Result<u64> {
        needs::check_write(&describe(), at, options)?;
        if let Some(permissions) = options.permissions {
            check::permissions(permissions)?;
        }
        let mode = match options.mode {
            WriteMode::Replace => "replace",
            WriteMode::Append => "append",
            WriteMode::CreateNew => "create-new",
        };
        let permissions = options.permissions.map(|bits| format!("{bits:o}"));
        let verb = self.at("write-file", at)?.with("mode", mode).maybe("permissions", permissions);
        self.send(at, verb, transfer, offset, data, eof).await
    }

    /// Implements `write-tree`.
    ///
    /// # Errors
    ///
    /// `invalid-argument`, the kinds of file errors, or the error of the helper.
    pub async fn write_tree(
        &self,
        at: &Location,
        transfer: &str,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> Result<u64> {
        let verb = self.at("write-tree", at)?;
        self.send(at, verb, transfer, offset, data, eof).await
    }

    async fn send(
        &self,
        at: &Location,
        verb: Verb,
        transfer: &str,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> Result<u64> {
        check::transfer(transfer)?;
        if data.len() > MAX_PIECE_BYTES {
            return Err(Error::invalid(format!(
                "{} bytes are too many for one piece: send at most {MAX_PIECE_BYTES}.",
                data.len()
            )));
        }
        let end = offset + data.len() as u64;
        let verb = verb.with("transfer", transfer).with("offset", offset).flag("eof", eof).data(data);
        Ok(self.helper.json(&at.sandbox, &verb).await?.get("offset").whole().unwrap_or(end))
    }

    /// Implements `stat`.
    ///
    /// # Errors
    ///
    /// The kinds of file errors, or the error of the helper.
    pub async fn stat(&self, at: &Location, follow: bool) -> Result<FileInfo> {
        let verb = self.at("stat", at)?.flag("follow", follow);
        Ok(info(&self.helper.json(&at.sandbox, &verb).await?))
    }

    /// Implements `list-directory`. The cursor is the name of the last entry of a page.
    ///
    /// # Errors
    ///
    /// `invalid-argument`, the kinds of file errors, or the error of the helper.
    pub async fn list(&self, at: &Location, cursor: Option<&str>, max: u32) -> Result<FilePage> {
        if max == 0 {
            return Err(Error::invalid("max is 0: ask for at least one entry.").about("max"));
        }
        let verb = self.at("list", at)?.maybe("after", cursor).with("max", max.min(10_000));
        let page = self.helper.json(&at.sandbox, &verb).await?;
        let items: Vec<_> = items(page.get("items")).iter().map(info).collect();
        let more = page.get("more").flag().unwrap_or(false);
        let next = items.last().filter(|_| more).map(|last| last.name.clone());
        Ok(FilePage { items, skipped: page.get("skipped").whole().unwrap_or_default(), next })
    }

    /// Implements `make-directory`.
    ///
    /// # Errors
    ///
    /// The kinds of file errors, or the error of the helper.
    pub async fn make_directory(&self, at: &Location, parents: bool) -> Result<()> {
        let verb = self.at("mkdir", at)?.flag("parents", parents);
        self.done(at, verb).await
    }

    /// Implements `remove`.
    ///
    /// # Errors
    ///
    /// The kinds of file errors, or the error of the helper.
    pub async fn remove(&self, at: &Location, recursive: bool) -> Result<()> {
        let verb = self.at("remove", at)?.flag("recursive", recursive);
        self.done(at, verb).await
    }

    /// Implements `rename`.
    ///
    /// # Errors
    ///
    /// The kinds of file errors, or the error of the helper.
    pub async fn rename(&self, at: &Location, to: &str, replace: bool) -> Result<()> {
        check::path(to)?;
        let verb = self.at("rename", at)?.with("to", to).flag("replace", replace);
        self.done(at, verb).await
    }

    /// Implements `make-symlink`.
    ///
    /// # Errors
    ///
    /// `invalid-argument`, the kinds of file errors, or the error of the helper.
    pub async fn make_symlink(&self, at: &Location, target: &str) -> Result<()> {
        if target.is_empty() || target.contains('\0') {
            return Err(Error::invalid("The target of the link is empty or contains a NUL character: give a path."));
        }
        let verb = self.at("symlink", at)?.with("target", target);
        self.done(at, verb).await
    }

    /// Implements `set-permissions`.
    ///
    /// # Errors
    ///
    /// `invalid-argument`, the kinds of file errors, or the error of the helper.
    pub async fn set_permissions(&self, at: &Location, permissions: u32) -> Result<()> {
        check::permissions(permissions)?;
        let verb = self.at("chmod", at)?.with("mode", format_args!("{permissions:o}"));
        self.done(at, verb).await
    }

    /// Implements `watch`.
    ///
    /// # Errors
    ///
    /// `invalid-argument`, the kinds of file errors, or the error of the helper.
    pub async fn watch(
        &self,
        at: &Location,
        watch: &str,
        recursive: bool,
        position: u64,
        max_events: u32,
        wait: u64,
    ) -> Result<WatchPage> {
        check::transfer(watch)?;
        if max_events == 0 {
            return Err(Error::invalid("max-events is 0: ask for at least one event.").about("max-events"));
        }
        let engine = self.helper.engine();
        let until = engine.now() + bounded_wait(wait);
        loop {
            let left = until.saturating_sub(engine.now()).min(LONGEST_WAIT);
            let verb = self
                .at("watch", at)?
                .with("id", watch)
                .with("recursive", u8::from(recursive))
                .with("position", position)
                .with("max", max_events)
                .waits(left);
            let page = self.helper.json(&at.sandbox, &verb).await?;
            let events: Vec<_> = items(page.get("events")).iter().map(event).collect();
            let end = page.get("end").flag().unwrap_or(false);
            if !events.is_empty() || end || engine.now() + Duration::from_millis(1) >= until {
                return Ok(WatchPage { events, next: page.get("next").whole().unwrap_or(position), end });
            }
        }
    }
}

fn info(value: &Value) -> FileInfo {
    let text = |name: &str| value.get(name).text().unwrap_or_default().to_string();
    FileInfo {
        name: text("name"),
        path: text("path"),
        kind: match value.get("kind").text() {
            Some("file") => FileKind::File,
            Some("directory") => FileKind::Directory,
            Some("symlink") => FileKind::Symlink(text("target")),
            _ => FileKind::Other(text("other")),
        },
        size: value.get("size").whole().unwrap_or_default(),
        mode: value.get("mode").whole().unwrap_or_default(),
        owner: text("owner"),
        group: text("group"),
        modified: value.get("modified").whole().unwrap_or_default(),
    }
}

fn event(value: &Value) -> FileEvent {
    let kind = match value.get("kind").text().unwrap_or_default() {
        "created" => FileEventKind::Created,
        "modified" => FileEventKind::Modified,
        "removed" => FileEventKind::Removed,
        "accessed" => FileEventKind::Accessed,
        other => FileEventKind::Other(other.to_string()),
    };
    FileEvent { kind, paths: strings(value.get("paths")) }
}
