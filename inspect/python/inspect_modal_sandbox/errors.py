"""What an error of the component becomes for Inspect.

Inspect turns a short list of exception types into something a model sees; all others end the sample in error. So each
kind is decided here, once, for commands and for files.

A model must not learn from an error where it runs: the texts of exceptions that it sees name no service, address or id. What
they leave out goes to the log.
"""

from __future__ import annotations

import errno
import os
from logging import getLogger

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.tool import ToolError
from inspect_ai.util import SandboxUnavailableError, SandboxUserUnsupportedError

from .nativeerror import NativeError

logger = getLogger(__name__)

FILE_ERRORS = {
    "file:not-found": errno.ENOENT,
    "file:is-a-directory": errno.EISDIR,
    "file:not-a-directory": errno.ENOTDIR,
    "file:already-exists": errno.EEXIST,
    "file:not-empty": errno.ENOTEMPTY,
    "file:permission-denied": errno.EACCES,
    "file:no-space": errno.ENOSPC,
    "file:special": errno.EINVAL,
}

SPECIAL = "It is not a regular file"
"""A pipe, a socket or a device."""

NUL = "embedded null byte"
"""The words by which Inspect knows a `ValueError` for a mistake in what the model wrote."""


class FileError(OSError, ToolError):
    """A failed file operation for which Python has no class of its own: an `OSError` that a model sees as a tool error."""

    def __init__(self, number: int, text: str, path: str) -> None:
        OSError.__init__(self, number, text, path)
        self.message = f"{text}: '{path}'"


GONE = frozenset({"sandbox-ended", "not-found"})
"""Kinds that mean that there is no such sandbox any more, where the call names nothing else."""

SETTINGS = frozenset({"unauthenticated", "permission-denied", "config", "forbidden", "plugin"})
"""Kinds that whoever started the evaluation has to put right."""


SEEN = (FileNotFoundError, IsADirectoryError, PermissionError)
"""Subclasses of `OSError` that Inspect makes a tool error of."""


def os_error(number: int, path: str) -> OSError:
    """The exception for a POSIX error on a file, in the three-part form of which Inspect prints text and name."""
    known = OSError(number, os.strerror(number), path)
    return known if isinstance(known, SEEN) else FileError(number, os.strerror(number), path)


def file_error(error: NativeError, path: str) -> Exception:
    """What a failed file operation raises. `path` is as the caller wrote it."""
    kind, message = error.kind, error.message
    number = FILE_ERRORS.get(kind)
    # A path through something that is no directory leads to no file, and Inspect knows no error of its own for it.
    if number == errno.ENOTDIR:
        number = errno.ENOENT
    if kind == "file:special":
        return FileError(errno.EINVAL, SPECIAL, path)
    if number is not None:
        return os_error(number, path)
    if kind == "invalid-argument":
        return os_error(errno.ENAMETOOLONG, path)
    if kind.startswith("file:"):
        return FileError(errno.EIO, "It could not be read or written", path)
    return _neutral(call_error(error)) or OSError(errno.EIO, message, path)


def call_error(error: NativeError) -> Exception | None:
    """What a call that is not about one file raises; none where there is no better exception than the error itself."""
    kind, message = error.kind, error.message
    if kind in GONE:
        return SandboxUnavailableError(message)
    if kind == "timed-out":
        return TimeoutError(message)
    if kind.partition(":")[0] in SETTINGS:
        return PrerequisiteError(message)
    return None


def exec_error(error: NativeError, user: str | None) -> Exception | None:
    """What a command that could not be run, or not be followed, raises."""
    kind, message, happened, reason = error.kind, error.message, error.happened, error.reason
    if user is not None and kind == "unsupported" and "cannot run commands as" in reason:
        return SandboxUserUnsupportedError(message)
    # Also where nobody knows whether it was started: as with a command that was lost later, the way to it is gone.
    if kind == "unavailable" or (kind in {"internal", "resource-exhausted", "conflict"} and happened == "no"):
        return unavailable(message)
    return _neutral(call_error(error))


def unavailable(why: str) -> SandboxUnavailableError:
    """The sandbox cannot be used any more, or not now."""
    logger.warning("A sandbox is not available: %s", why)
    return SandboxUnavailableError("The sandbox is not available.")


def _neutral(error: Exception | None) -> Exception | None:
    if isinstance(error, SandboxUnavailableError):
        return unavailable(str(error))
    if isinstance(error, TimeoutError):
        logger.warning("%s", error)
        return TimeoutError("The operation did not end in time.")
    return error


def is_unknown_user(error: NativeError) -> bool:
    """Whether the sandbox has no user or group of the name that was asked for."""
    return error.kind == "not-found" and error.reason.startswith("The image has no ")
