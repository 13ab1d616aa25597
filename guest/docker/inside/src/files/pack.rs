//! The verb `read-tree`: a directory as a tar archive.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, BufWriter, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, major, minor, open},
    io::Errno,
};

use crate::{
    answer::Answer,
    args::Args,
    context::Context,
    files::{
        access::{Access, file_failure, path_of},
        read::{Wanted, answer_spooled, begin},
        tar::{Entry, padding, write_end, write_header},
        transfer::Transfer,
    },
    user::Names,
};

/// Sends a piece of the archive of a directory.
///
/// # Errors
///
/// Fails if the path is no directory, or the user must not read something in it.
pub fn read_tree(args: &Args, context: &mut Context) -> Answer {
    let path = path_of(args, "path")?;
    let access = Access::of(args)?;
    let wanted = Wanted::of(args)?;
    let transfer = Transfer::of(args, context)?;
    if let Some(spool) = transfer.spooled()? {
        return answer_spooled(&transfer, &spool, &wanted);
    }
    begin(&wanted, args)?;
    // Checked before anything is spooled.
    access.with(&path, || if fs::metadata(&path)?.is_dir() { Ok(()) } else { Err(Errno::NOTDIR.into()) })?;
    let own = fs::metadata(context.base.file("")).ok().map(|own| (own.dev(), own.ino()));
    let names = Names::read();
    let spool = transfer.spool(|spool| {
        let mut pack = Pack { output: BufWriter::with_capacity(64 * 1024, spool), names, own, links: HashMap::new() };
        access.perform(|| pack.tree(&path))?
    })?;
    answer_spooled(&transfer, &spool, &wanted)
}

struct Pack<'a> {
    output: BufWriter<&'a mut File>,
    names: Names,
    /// The directory of the helper, which is left out: the archive grows in it.
    own: Option<(u64, u64)>,
    /// The first names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Pack<'_> {
    fn tree(&mut self, root: &Path) -> Answer {
        // What is still to be archived; the next entry is at the end.
        let mut rest = vec![(root.to_path_buf(), b".".to_vec())];
        while let Some((path, mut name)) = rest.pop() {
            let failed = |error: io::Error| file_failure(&path, &error);
            let top = name == b".";
            let metadata = match if top { fs::metadata(&path) } else { fs::symlink_metadata(&path) } {
                Ok(metadata) => metadata,
                // It was removed meanwhile.
                Err(error) if !top && error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            if self.own == Some((metadata.dev(), metadata.ino())) {
                continue;
            }
            if metadata.is_dir() {
                name.push(b'/');
                rest.extend(children(&path, &name).map_err(failed)?);
            }
            self.entry(&path, name, &metadata).map_err(failed)?;
        }
        write_end(&mut self.output).and_then(|()| self.output.flush()).map_err(|error| file_failure(root, &error))
    }

    fn entry(&mut self, path: &Path, name: Vec<u8>, metadata: &Metadata) -> io::Result<()> {
        let kind = metadata.file_type();
        let mut entry = Entry {
            name,
            kind: match kind {
                _ if kind.is_dir() => b'5',
                _ if kind.is_symlink() => b'2',
                _ if kind.is_file() => b'0',
                _ if kind.is_fifo() => b'6',
                _ if kind.is_char_device() => b'3',
                _ if kind.is_block_device() => b'4',
                // Sockets cannot be archived.
                _ => return Ok(()),
            },
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            modified: metadata.mtime(),
            owner: self.names.user(metadata.uid()),
            group: self.names.group(metadata.gid()),
            ..Entry::default()
        };
        if matches!(entry.kind, b'3' | b'4') {
            entry.device = (major(metadata.rdev()), minor(metadata.rdev()));
        }
        if entry.kind == b'2' {
            entry.link = fs::read_link(path)?.into_os_string().into_vec();
        }
        if entry.kind != b'0' {
            return write_header(&mut self.output, &entry);
        }
        if metadata.nlink() > 1 {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&key) {
                (entry.kind, entry.link) = (b'1', first.clone());
                return write_header(&mut self.output, &entry);
            }
            self.links.insert(key, entry.name.clone());
        }
        self.file(path, entry)
    }

    fn file(&mut self, path: &Path, mut entry: Entry) -> io::Result<()> {
        // What lies there may have changed since it was looked at. A pipe must not stop the helper.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(());
        }
        entry.size = metadata.len();
        write_header(&mut self.output, &entry)?;
        // A file that shrinks meanwhile is filled up, and one that grows is cut.
        let copied = io::copy(&mut file.take(entry.size), &mut self.output)?;
        let missing = (entry.size - copied) + padding(entry.size) as u64;
        io::copy(&mut io::repeat(0).take(missing), &mut self.output)?;
        Ok(())
    }
}

/// The entries of a directory with their names in the archive, in reverse order.
fn children(path: &Path, name: &[u8]) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut children = Vec::new();
    for child in fs::read_dir(path)? {
        let child = child?;
        children.push((child.path(), [name, child.file_name().as_bytes()].concat()));
    }
    children.sort_unstable_by(|left, right| right.cmp(left));
    Ok(children)
}
