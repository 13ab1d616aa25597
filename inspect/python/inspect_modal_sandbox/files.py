"""Reads and writes files as a user other than the container's own.

The file functions of the component act as the container's own user. If a configuration names another user, commands of that
user read and write the files instead, so that a path means the same as in `exec`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from inspect_ai.util import OutputLimitExceededError, SandboxEnvironmentLimits

from .errors import NOT_REGULAR, FileError, os_error, unavailable

if TYPE_CHECKING:
    from ._native import RunResult
    from .lifecycle.container import Container

PINNED = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    **dict.fromkeys(("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "BASH_ENV", "ENV", "SHELLOPTS", "CDPATH"), ""),
}
"""The environment of the commands: the system's programs, English messages, and nothing that the image may set to change
them."""

IS_DIRECTORY, IS_SPECIAL, IS_TOO_LARGE = 21, 22, 27
"""Exit codes of the scripts: errno's EISDIR, EINVAL and EFBIG."""

READ = f"""
[ -d "$1" ] && exit {IS_DIRECTORY}
[ -e "$1" ] && [ ! -f "$1" ] && exit {IS_SPECIAL}
[ -f "$1" ] && [ -r "$1" ] && [ "$(wc -c <"$1")" -ge "$2" ] && exit {IS_TOO_LARGE}
exec head -c "$2" -- "$1"
"""
"""Prints the file `$1`. Its size must be below `$2` bytes, before and while it is read."""

WRITE = f"""
[ -d "$1" ] && exit {IS_DIRECTORY}
[ -p "$1" ] || [ -S "$1" ] && exit {IS_SPECIAL}
case $1 in */*) mkdir -p -- "${{1%/*}}/" || exit 1;; esac
exec cat >"$1"
"""
"""Replaces the file `$1` by standard input, and creates its parents."""

MESSAGE_ERRNO = {
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
"""POSIX error numbers by the system's message for them.

The exit code of a shell or of `head` is 1 for every error, so the message is all there is. `LC_ALL=C` fixes its wording.
"""

TRANSFER_SECS = 600.0
"""The time limit of a transfer, which is also that of Inspect's Docker provider."""


async def read(container: Container, path: str, name: str) -> bytes:
    """Reads a file as the container's default user. `name` is the path as the caller wrote it.

    Raises:
        OutputLimitExceededError: if it is larger than Inspect permits.
        OSError: if it cannot be read.
    """
    limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
    argv = ["/bin/sh", "-c", READ, "sh", path, str(limit + 1)]
    result = await container.run(argv, env=PINNED, timeout=TRANSFER_SECS, stdout_max=limit + 1)
    if (result.verdict == "exited" and result.code == IS_TOO_LARGE) or result.stdout_total > limit:
        raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
    _check(result, name)
    return result.stdout


async def write(container: Container, path: str, name: str, contents: bytes) -> None:
    """Writes a file as the container's default user. `name` is the path as the caller wrote it.

    Raises:
        OSError: if it cannot be written.
    """
    argv = ["/bin/sh", "-c", WRITE, "sh", path]
    _check(await container.run(argv, stdin=contents, env=PINNED, timeout=TRANSFER_SECS), name)


def _check(result: RunResult, name: str) -> None:
    """Raises the exception for a transfer that failed."""
    if result.verdict == "deadline":
        raise TimeoutError(f"{name}: the transfer took longer than {TRANSFER_SECS:.0f} seconds")
    if result.verdict in ("sandbox-ended", "lost"):
        raise unavailable(result.detail)
    if result.verdict == "exited" and result.code == 0:
        return
    if result.code == IS_DIRECTORY:
        raise os_error(errno.EISDIR, name)
    if result.code == IS_SPECIAL:
        raise FileError(errno.EINVAL, NOT_REGULAR, name)
    message = result.stderr.decode(errors="replace").strip()
    for words, number in MESSAGE_ERRNO.items():
        if words in message:
            raise os_error(number, name)
    raise FileError(errno.EIO, message or f"The transfer ended with code {result.code}", name)
