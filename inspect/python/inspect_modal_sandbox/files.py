"""Files of a sandbox whose default user is not the container's.

The component's file calls act as the container's own user. Where a configuration names another one, files are read and
written by commands of that user instead, so that they mean what the same path means in `exec`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from inspect_ai.util import OutputLimitExceededError, SandboxEnvironmentLimits

from .errors import NOT_REGULAR, FileError, os_error, unavailable

if TYPE_CHECKING:
    from ._native import RunResult
    from .environment import ModalSandboxEnvironment

PINNED = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    **dict.fromkeys(("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "BASH_ENV", "ENV", "SHELLOPTS", "CDPATH"), ""),
}
"""Programs of the system, with the complaints of POSIX in words: never what the image's environment leads to."""

READ = """
[ -d "$1" ] && exit 21
[ -e "$1" ] && [ ! -f "$1" ] && exit 22
[ -f "$1" ] && [ -r "$1" ] && [ "$(wc -c <"$1")" -ge "$2" ] && exit 27
exec head -c "$2" -- "$1"
"""
"""Prints the file `$1`, at most `$2` bytes. It may grow while it is read: so the size is looked at twice."""

WRITE = """
[ -d "$1" ] && exit 21
[ -p "$1" ] || [ -S "$1" ] && exit 22
case $1 in */*) mkdir -p -- "${1%/*}/" || exit 1;; esac
exec cat >"$1"
"""
"""Replaces the file `$1` by standard input; parents are made."""

COMPLAINTS = {
    "No such file or directory": errno.ENOENT,
    "Permission denied": errno.EACCES,
    "Is a directory": errno.EISDIR,
    "Not a directory": errno.ENOENT,
    "File exists": errno.EEXIST,
    "No space left on device": errno.ENOSPC,
    "Read-only file system": errno.EROFS,
    "File name too long": errno.ENAMETOOLONG,
    "nonexistent directory": errno.ENOENT,
}

TIME_SECS = 600.0
"""How long a transfer may take; as with Inspect's Docker provider."""


async def read(sandbox: ModalSandboxEnvironment, path: str, name: str) -> bytes:
    """Reads a file as the default user; `name` is what the caller called it."""
    limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
    argv = ["/bin/sh", "-c", READ, "sh", path, str(limit + 1)]
    result = await sandbox.run(argv, env=PINNED, timeout=TIME_SECS, stdout_max=limit + 1)
    if (result.verdict == "exited" and result.code == 27) or result.stdout_total > limit:
        raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
    _check(result, name)
    return result.stdout


async def write(sandbox: ModalSandboxEnvironment, path: str, name: str, contents: bytes) -> None:
    """Writes a file as the default user."""
    argv = ["/bin/sh", "-c", WRITE, "sh", path]
    _check(await sandbox.run(argv, stdin=contents, env=PINNED, timeout=TIME_SECS), name)


def _check(result: RunResult, name: str) -> None:
    if result.verdict == "deadline":
        raise TimeoutError(f"{name}: not transferred in {TIME_SECS:.0f} seconds")
    if result.verdict in ("sandbox-ended", "lost"):
        raise unavailable(result.detail)
    if result.verdict == "exited" and result.code == 0:
        return
    if result.code == 21:
        raise os_error(errno.EISDIR, name)
    if result.code == 22:
        raise FileError(errno.EINVAL, NOT_REGULAR, name)
    complaint = result.stderr.decode(errors="replace").strip()
    for words, number in COMPLAINTS.items():
        if words in complaint:
            raise os_error(number, name)
    raise FileError(errno.EIO, complaint or f"The transfer ended with code {result.code}", name)
