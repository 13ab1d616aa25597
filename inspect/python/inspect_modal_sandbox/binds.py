"""Files of this machine that a service mounts read-only: they are copied into its image.

An image from a registry becomes a Dockerfile of one `FROM` and the copies, whose context is a directory of copies of just
these files, kept as long as this process lives. An image that is built gets the copies as further lines, so they have to be
in its context.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

MOST_BYTES = 16 << 20
"""What the mounts of a service may come to: more belongs into an image, or into a volume."""

MOST_FILES = 2000

_staged: dict[str, Path] = {}
"""Directories of copies, by a digest of what is in them."""


def copied(
    image: dict[str, Any], copies: list[tuple[Path, str]], where: str, directory: Path, refuse: Callable[[str, str], NoReturn]
) -> None:
    """Lets an image have copies of files and directories, each with its path there."""
    if not copies:
        return
    left = [MOST_BYTES, MOST_FILES]
    for source, target in copies:
        _checked(source, target, where, directory, left, refuse)
    kind, definition = next(iter(image["source"].items()))
    if kind == "registry":
        context = _stage([source for source, _ in copies])
        lines = [f"FROM {definition['reference']}"]
        lines += [_line(str(number), source, target) for number, (source, target) in enumerate(copies)]
        image["source"] = {
            "dockerfile": {
                "text": "\n".join(lines) + "\n",
                "context": str(context),
                "build_args": [],
                "target": None,
                "login_secret": definition.get("login_secret"),
            }
        }
        return
    context = Path(definition["context"])
    lines = []
    if definition.get("target") is not None:
        # What follows the last stage would not be in this one.
        lines.append(f"FROM {definition['target']} AS with-mounts")
        definition["target"] = "with-mounts"
    for source, target in copies:
        if not source.is_relative_to(context):
            refuse(where, f": {source} is not in the context of the build, {context}, and cannot be copied into its image.")
        lines.append(_line(source.relative_to(context).as_posix(), source, target))
    definition["text"] = definition["text"].rstrip("\n") + "\n" + "\n".join(lines) + "\n"
    # The text is no longer that of the file.
    definition.pop("path", None)


def _line(name: str, source: Path, target: str) -> str:
    # Of a directory, COPY takes what is in it.
    return f"COPY {json.dumps([name, target + '/' if source.is_dir() else target], ensure_ascii=False)}"


def _checked(
    source: Path, target: str, where: str, directory: Path, left: list[int], refuse: Callable[[str, str], NoReturn]
) -> None:
    if not source.resolve().is_relative_to(directory.resolve()):
        refuse(where, f": {source} is not beside the compose file, in {directory}, and is not copied from there.")
    if not source.exists():
        refuse(where, f": {source} is not there.")
    for path in [source, *(source.rglob("*") if source.is_dir() else [])]:
        status = path.lstat() if path != source else path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            refuse(where, f": {path} is neither a file nor a directory, and cannot be copied to {target}.")
        left[0] -= status.st_size if stat.S_ISREG(status.st_mode) else 0
        left[1] -= 1
        if min(left) < 0:
            refuse(
                where,
                f": {source} is too large to be copied to {target}: at most {MOST_BYTES >> 20} MiB in {MOST_FILES} files are. "
                "Copy it into the image, or use a volume.",
            )


def _stage(sources: list[Path]) -> Path:
    """A directory with copies of these, named by their number. The same content is the same directory."""
    digest = hashlib.sha256()
    for source in sources:
        for path in sorted([source, *(source.rglob("*") if source.is_dir() else [])]):
            digest.update(f"{path.relative_to(source.parent)}\0{path.lstat().st_mode:o}\0".encode())
            if path.is_symlink():
                digest.update(os.readlink(path).encode())
            elif path.is_file():
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        digest.update(b"\1")
    key = digest.hexdigest()
    if key not in _staged:
        if not _staged:
            atexit.register(_remove)
        made = Path(tempfile.mkdtemp(prefix="inspect-modal-sandbox-mounts-"))
        for number, source in enumerate(sources):
            if source.is_dir():
                shutil.copytree(source, made / str(number), symlinks=True)
            else:
                shutil.copy2(source, made / str(number))
        _staged[key] = made
    return _staged[key]


def _remove() -> None:
    for directory in _staged.values():
        shutil.rmtree(directory, ignore_errors=True)
