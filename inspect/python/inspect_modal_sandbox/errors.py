"""What an error of the component becomes for Inspect.

Inspect turns a short list of exception types into something a model sees; all others end the sample in error. So each
kind is decided here, once, for commands and for files.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.util import SandboxUnavailableError, SandboxUserUnsupportedError

if TYPE_CHECKING:
    from ._native import NativeError

FILE_ERRORS = {
    "file:not-found": errno.ENOENT,
    "file:is-a-directory": errno.EISDIR,
    "file:not-a-directory": errno.ENOTDIR,
    "file:already-exists": errno.EEXIST,
    "file:not-empty": errno.ENOTEMPTY,
    "file:permission-denied": errno.EACCES,
    "file:no-space": errno.ENOSPC,
}

GONE = frozenset({"sandbox-ended", "not-found"})
"""Kinds that mean that there is no such sandbox any more, where the call names nothing else."""

SETTINGS = frozenset({"unauthenticated", "permission-denied", "config", "forbidden", "plugin"})
"""Kinds that whoever started the evaluation has to put right."""


def os_error(number: int, path: str) -> OSError:
    """The exception for a POSIX error on a file, in the three-part form of which Inspect prints text and name."""
    return OSError(number, os.strerror(number), path)


def file_error(error: NativeError, path: str) -> Exception:
    """What a failed file operation raises. `path` is as the caller wrote it."""
    kind, message = error.args[0], error.args[1]
    number = FILE_ERRORS.get(kind)
    # A path through something that is no directory leads to no file, and Inspect knows no error of its own for it.
    if number == errno.ENOTDIR:
        number = errno.ENOENT
    if number is not None:
        return os_error(number, path)
    return call_error(error) or OSError(errno.EIO, message, path)


def call_error(error: NativeError) -> Exception | None:
    """What a call that is not about one file raises; none where there is no better exception than the error itself."""
    kind, message = error.args[0], error.args[1]
    if kind in GONE:
        return SandboxUnavailableError(message)
    if kind == "timed-out":
        return TimeoutError(message)
    if kind in SETTINGS:
        return PrerequisiteError(message)
    return None


def exec_error(error: NativeError, user: str | None) -> Exception | None:
    """What a command that could not be run, or not be followed, raises."""
    kind, message, happened, _, why = error.args
    if user is not None and kind == "unsupported" and "cannot run commands as" in why:
        return SandboxUserUnsupportedError(message)
    # Also where nobody knows whether it was started: as with a command that was lost later, the way to it is gone.
    if kind == "unavailable" or (kind in {"internal", "resource-exhausted", "conflict"} and happened == "no"):
        return SandboxUnavailableError(message)
    return call_error(error)


def is_unknown_user(error: NativeError) -> bool:
    """Whether the sandbox has no user or group of the name that was asked for."""
    return error.args[0] == "not-found" and error.args[4].startswith("The image has no ")
