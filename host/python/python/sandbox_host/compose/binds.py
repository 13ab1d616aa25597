"""Read-only mounts of local files: the files are copied into the image of the service.

An image from a registry becomes a Dockerfile with one `FROM` and the copies. Its context is a temporary directory with copies
of these files, which is deleted when the process ends. An image that is built gets the copies as further lines, so the files
must be in its build context.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from .values import refuse

MAX_BYTES = 16 << 20
"""The total size of the mounts of a service. Larger files belong into an image or a volume."""

MAX_FILES = 2000
"""The number of files and directories in the mounts of a service."""

_staged: dict[str, Path] = {}
"""Temporary directories with copies, by a digest of their content."""


def add_copies(image: dict[str, Any], copies: list[tuple[Path, str]], where: str, directory: Path) -> None:
    """Adds copies of files and directories to the definition of an image. `copies` are pairs of source and target.

    Raises:
        ComposeError: if a source is outside of `directory` or of the build context, does not exist, or is too large.
    """
    if not copies:
        return
    left = [MAX_BYTES, MAX_FILES]
    for source, target in copies:
        _check(source, target, where, directory, left)
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
        # The lines are added to the end of the file, so they need a stage of their own that continues the target.
        lines.append(f"FROM {definition['target']} AS with-mounts")
        definition["target"] = "with-mounts"
    for source, target in copies:
        if not source.is_relative_to(context):
            refuse(where, f": {source} is not in the build context {context}, so it cannot be copied into the image.")
        lines.append(_line(source.relative_to(context).as_posix(), source, target))
    definition["text"] = definition["text"].rstrip("\n") + "\n" + "\n".join(lines) + "\n"
    # The text differs from the file now.
    definition.pop("path", None)


def _line(name: str, source: Path, target: str) -> str:
    """Returns the COPY line. COPY takes the content of a directory, so the target is then a directory too."""
    return f"COPY {json.dumps([name, target + '/' if source.is_dir() else target], ensure_ascii=False)}"


def _check(source: Path, target: str, where: str, directory: Path, left: list[int]) -> None:
    """Refuses a source that cannot be copied. Subtracts its bytes and files from `left`."""
    if not source.resolve().is_relative_to(directory.resolve()):
        refuse(where, f": {source} is not beside the compose file, in {directory}, so it is not copied.")
    if not source.exists():
        refuse(where, f": {source} does not exist.")
    for path in [source, *(source.rglob("*") if source.is_dir() else [])]:
        status = path.lstat() if path != source else path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            refuse(where, f": {path} is neither a file nor a directory, so it cannot be copied to {target}.")
        left[0] -= status.st_size if stat.S_ISREG(status.st_mode) else 0
        left[1] -= 1
        if min(left) < 0:
            refuse(
                where,
                f": {source} is too large to be copied to {target}. The limit is {MAX_BYTES >> 20} MiB in {MAX_FILES} files. "
                "Copy it into the image, or use a volume.",
            )


def _stage(sources: list[Path]) -> Path:
    """Returns a directory with copies of the sources, named by their numbers. Equal content gives the same directory."""
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
        made = Path(tempfile.mkdtemp(prefix="sandbox-host-mounts-"))
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
