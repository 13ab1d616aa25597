"""Reads and writes files of a container.

The file functions of the component act as the container's own user. If a configuration names another user, commands of that
user read and write the files instead, so that a path means the same as in `exec`.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

import anyio
from inspect_ai.util import OutputLimitExceededError, SandboxEnvironmentLimits
from sandbox_host import SandboxError
from sandbox_host.compose.outcomes import lost_text

from .errors import NOT_REGULAR, FileError, os_error, unavailable

if TYPE_CHECKING:
    from sandbox_host import RunResult

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
        SandboxError: if a request failed.
    """
    if container.user is None:
        return await _read_directly(container, path, name)
    limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
    argv = ["/bin/sh", "-c", READ, "sh", path, str(limit + 1)]
    result = await container.run(argv, env=PINNED, timeout=TRANSFER_SECS, stdout_max=limit + 1)
    if result.exit_code == IS_TOO_LARGE or result.stdout_total > limit:
        raise _too_large()
    _check(result, name)
    return result.stdout


async def _read_directly(container: Container, path: str, name: str) -> bytes:
    """Reads a file by a request. The container's own user reads it."""
    limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
    with anyio.fail_after(TRANSFER_SECS):
        # Both requests are sent at the same time. What `stat` finds counts first: it describes special files and files that are
        # too large, for which reading fails in various ways or never ends.
        reading = asyncio.ensure_future(container.sandbox.read_file(path, limit))
        reading.add_done_callback(_retrieve)
        try:
            info = await container.sandbox.stat(path)
            if info.kind == "other":
                raise FileError(errno.EINVAL, NOT_REGULAR, name)
            if info.is_file and info.size > limit:
                raise _too_large()
            data = await reading
        except SandboxError as error:
            if error.kind == "file:too-large":
                raise _too_large() from None
            raise
        finally:
            reading.cancel()
    # Root can read every file. A file that its owner may not read was made unreadable on purpose.
    if not info.mode & 0o400:
        raise os_error(errno.EACCES, name)
    container.created.metrics.transferred(0, len(data))
    return data


async def write(container: Container, path: str, name: str, contents: bytes) -> None:
    """Writes a file as the container's default user. `name` is the path as the caller wrote it.

    Raises:
        OSError: if it cannot be written.
        SandboxError: if a request failed.
    """
    if container.user is None:
        with anyio.fail_after(TRANSFER_SECS):
            await container.sandbox.write_file(path, contents)
        container.created.metrics.transferred(len(contents), 0)
        return
    argv = ["/bin/sh", "-c", WRITE, "sh", path]
    _check(await container.run(argv, stdin=contents, env=PINNED, timeout=TRANSFER_SECS), name)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Marks the exception of a future as seen, so that asyncio does not print it."""
    if not future.cancelled():
        future.exception()


def _too_large() -> OutputLimitExceededError:
    return OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)


def _check(result: RunResult, name: str) -> None:
    """Raises the exception for a transfer that failed."""
    if result.verdict.kind == "deadline":
        raise TimeoutError(f"{name}: the transfer took longer than {TRANSFER_SECS:.0f} seconds")
    if (lost := lost_text(result.verdict)) is not None:
        raise unavailable(lost)
    if result.ok:
        return
    if result.exit_code == IS_DIRECTORY:
        raise os_error(errno.EISDIR, name)
    if result.exit_code == IS_SPECIAL:
        raise FileError(errno.EINVAL, NOT_REGULAR, name)
    message = result.error_text.strip()
    for words, number in MESSAGE_ERRNO.items():
        if words in message:
            raise os_error(number, name)
    raise FileError(errno.EIO, message or f"The transfer ended with {result.verdict}", name)
