//! The body of a build request: a tar archive with the Dockerfile and the files of its context, which are read from the store
//! while it is sent.

use std::{cell::RefCell, rc::Rc};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use sandbox_provider_kit::{
    Error,
    api::wit::ContextFile,
    platform::{Body, Frame},
};

use super::content::Contents;
use crate::tar;

/// The name of the Dockerfile in the archive. A context can have a file with the usual name.
pub const DOCKERFILE: &str = ".harness-sandbox.Dockerfile";

/// The size of a block of an archive, in bytes.
const BLOCK: usize = 512;

/// Why an archive could not be sent to its end: the error that its body reports as text only.
pub type Broken = Rc<RefCell<Option<Error>>>;

/// Returns the archive with this text as the Dockerfile. If a content cannot be read, writes the error to `broken`.
#[must_use]
pub fn archive(contents: Rc<Contents>, dockerfile: &str, files: &[ContextFile], broken: &Broken) -> Body {
    let mut head = tar::headers(DOCKERFILE, 0o644, dockerfile.len() as u64);
    head.extend_from_slice(dockerfile.as_bytes());
    head.resize(head.len() + tar::padding(dockerfile.len() as u64), 0);
    let files: Vec<ContextFile> = files.to_vec();
    let broken = broken.clone();
    let files = stream::iter(files).flat_map(move |file| one(contents.clone(), file, broken.clone()));
    let frame = |bytes: Vec<u8>| Ok(Frame::Data(Bytes::from(bytes)));
    Box::pin(stream::iter([frame(head)]).chain(files).chain(stream::iter([frame(tar::END.to_vec())])))
}

/// Returns the part of the archive with one file.
fn one(contents: Rc<Contents>, file: ContextFile, broken: Broken) -> Body {
    let header = tar::headers(&file.path, file.mode, file.content.size);
    let padding = tar::padding(file.content.size);
    let size = file.content.size;
    let body =
        stream::once(async move { contents.open(&file.content.sha256, &file.path).await }).flat_map(move |opened| {
            let pieces: Body = match opened {
                Ok(body) => Box::pin(pieces(body, size)),
                Err(error) => {
                    let text = error.message.clone();
                    *broken.borrow_mut() = Some(error);
                    Box::pin(stream::iter([Err(text)]))
                }
            };
            pieces
        });
    let frame = |bytes: Vec<u8>| Ok(Frame::Data(Bytes::from(bytes)));
    Box::pin(stream::iter([frame(header)]).chain(body).chain(stream::iter([frame(vec![0; padding])])))
}

/// Returns the contents of all regular files of an archive, one after another. Fails if they do not have `size` bytes.
fn pieces(body: Body, size: u64) -> impl futures_util::Stream<Item = Result<Frame, String>> {
    struct State {
        body: Body,
        held: BytesMut,
        /// Bytes of the current file, and zero bytes after it.
        left: u64,
        padding: u64,
        missing: u64,
        over: bool,
    }
    let state = State { body, held: BytesMut::new(), left: 0, padding: 0, missing: size, over: false };
    stream::unfold(state, |mut state| async move {
        loop {
            if state.left > 0 && !state.held.is_empty() {
                let length = usize::try_from(state.left).unwrap_or(usize::MAX).min(state.held.len());
                let piece = state.held.split_to(length).freeze();
                state.left -= length as u64;
                let Some(missing) = state.missing.checked_sub(length as u64) else {
                    state.over = true;
                    return Some((Err("a stored file is longer than announced".to_string()), state));
                };
                state.missing = missing;
                return Some((Ok(Frame::Data(piece)), state));
            }
            if state.left == 0 && state.padding > 0 && !state.held.is_empty() {
                let length = usize::try_from(state.padding).unwrap_or(usize::MAX).min(state.held.len());
                let _ = state.held.split_to(length);
                state.padding -= length as u64;
                continue;
            }
            if state.left == 0 && state.padding == 0 && state.held.len() >= BLOCK {
                let block = state.held.split_to(BLOCK);
                let size = std::str::from_utf8(&block[124..136]).unwrap_or_default();
                let size = u64::from_str_radix(size.trim_matches(['\0', ' ']), 8).unwrap_or(0);
                if matches!(block[156], b'0' | 0) && block[0] != 0 {
                    state.left = size;
                    state.padding = tar::padding(size) as u64;
                } else {
                    // A directory, an extended header or the end: its content is skipped.
                    state.padding = size + tar::padding(size) as u64;
                }
                continue;
            }
            if state.over {
                return None;
            }
            match state.body.next().await {
                Some(Ok(Frame::Data(data))) => state.held.extend_from_slice(&data),
                Some(Ok(Frame::Trailers(_))) => {}
                Some(Err(text)) => {
                    state.over = true;
                    return Some((Err(text), state));
                }
                None => {
                    state.over = true;
                    if state.missing > 0 {
                        return Some((Err("a stored file is shorter than announced".to_string()), state));
                    }
                    return None;
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn read(archive: &[u8], size: u64, step: usize) -> Result<Vec<u8>, String> {
        let frames: Vec<_> = archive.chunks(step).map(|piece| Ok(Frame::Data(Bytes::copy_from_slice(piece)))).collect();
        let found = pieces(Box::pin(stream::iter(frames)), size).collect::<Vec<_>>().now_or_never().expect("ready");
        let mut all = Vec::new();
        for frame in found {
            if let Frame::Data(data) = frame? {
                all.extend_from_slice(&data);
            }
        }
        Ok(all)
    }

    #[test]
    fn the_pieces_of_a_stored_file_are_joined() {
        let mut archive = tar::headers("x/", 0o755, 0);
        for (name, content) in [("x/0", &b"hello "[..]), ("x/6", b"world")] {
            archive.extend_from_slice(&tar::headers(name, 0o644, content.len() as u64));
            archive.extend_from_slice(content);
            archive.resize(archive.len() + tar::padding(content.len() as u64), 0);
        }
        archive.extend_from_slice(&tar::headers("x/done", 0o644, 0));
        archive.extend_from_slice(&tar::END);
        for step in [1, 7, 512, 4096] {
            assert_eq!(read(&archive, 11, step).as_deref(), Ok(&b"hello world"[..]), "{step}");
        }
        assert!(read(&archive, 12, 512).is_err() && read(&archive, 10, 512).is_err());
    }
}
