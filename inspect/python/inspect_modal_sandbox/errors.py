"""Maps errors of the host library to the exceptions that Inspect knows.

Inspect shows a short list of exception types to the model as the failure of a tool; every other exception ends the sample in
error. This module chooses the type for commands and for files, by the kind and the subject of the error.

A model must not learn from an error where it runs. The texts of the exceptions that a model sees therefore name no service,
address or id; the full text goes to the log.
"""

from __future__ import annotations

import errno
import os
from logging import getLogger

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.tool import ToolError
from inspect_ai.util import SandboxUnavailableError, SandboxUserUnsupportedError
from sandbox_host import SandboxError

logger = getLogger(__name__)

FILE_ERRNO = {
    "file:not-found": errno.ENOENT,
    "file:is-a-directory": errno.EISDIR,
    # Python's class for ENOTDIR is not one that Inspect shows to a model. A path that leads through a file does not exist.
    "file:not-a-directory": errno.ENOENT,
    "file:already-exists": errno.EEXIST,
    "file:not-empty": errno.ENOTEMPTY,
    "file:permission-denied": errno.EACCES,
    "file:no-space": errno.ENOSPC,
    # The argument of a file operation that the provider refuses before sending it is a path that is too long.
    "invalid-argument": errno.ENAMETOOLONG,
}
"""The POSIX error number for each kind that has one."""

NOT_REGULAR = "It is not a regular file"
"""The text for a pipe, a socket or a device."""

NUL = "embedded null byte"
"""Inspect takes a `ValueError` with these words for a mistake of the model."""

USER_CAPABILITY = "exec.user"
"""The subject of `unsupported` if the sandbox cannot run commands as another user; see `subject` in `wit/types.wit`."""

USER_OPTION = "user"
"""The subject of `not-found` if the image has no such user or group; see `subject` in `wit/types.wit`."""

SANDBOX_GONE = frozenset({"sandbox-ended", "not-found"})
"""Kinds which say that the sandbox does not exist any more, for calls that name nothing else."""

SETTINGS = frozenset({"unauthenticated", "permission-denied", "config", "forbidden", "plugin"})
"""General kinds that only the user who started the evaluation can fix, by credentials, policy or installation."""

SHOWN_TO_MODEL = (FileNotFoundError, IsADirectoryError, PermissionError)
"""Subclasses of `OSError` that Inspect shows to the model as a tool error."""


class FileError(OSError, ToolError):
    """A failed file operation that the model is to see, for error numbers whose own Python class Inspect does not show."""

    def __init__(self, number: int, text: str, path: str) -> None:
        OSError.__init__(self, number, text, path)
        self.message = f"{text}: '{path}'"


def os_error(number: int, path: str) -> OSError:
    """Returns the exception for a POSIX error number. It has number, text and path, since Inspect prints the last two."""
    known = OSError(number, os.strerror(number), path)
    return known if isinstance(known, SHOWN_TO_MODEL) else FileError(number, os.strerror(number), path)


def file_error(error: SandboxError, path: str) -> Exception:
    """Returns the exception for a failed file operation. `path` is the path as the caller wrote it."""
    number = FILE_ERRNO.get(error.kind)
    if number is not None:
        return os_error(number, path)
    if error.general_kind == "file":
        return FileError(errno.EIO, "The file could not be read or written", path)
    return _without_details(call_error(error)) or OSError(errno.EIO, error.message, path)


def call_error(error: SandboxError) -> Exception | None:
    """Returns the exception for a failed call that is not about a file, or `None` if there is no better one than `error`."""
    if error.kind in SANDBOX_GONE:
        return SandboxUnavailableError(error.message)
    if error.kind == "timed-out":
        return TimeoutError(error.message)
    if error.general_kind in SETTINGS:
        return PrerequisiteError(error.message)
    return None


def exec_error(error: SandboxError, user: str | None) -> Exception | None:
    """Returns the exception for a command that could not be started or followed, or `None` if there is no better one.

    `user` is the user that the caller asked for.
    """
    if user is not None and is_unsupported_user(error):
        return SandboxUserUnsupportedError(error.message)
    # For `unavailable`, also if the command may have been started: its output cannot be read any more.
    if error.kind == "unavailable":
        return unavailable(error.message)
    if error.kind in {"internal", "resource-exhausted", "conflict"} and error.happened == "no":
        return unavailable(error.message)
    return _without_details(call_error(error))


def unavailable(reason: str) -> SandboxUnavailableError:
    """Logs the reason and returns the exception for a sandbox that cannot be used."""
    logger.warning("A sandbox is not available: %s", reason)
    return SandboxUnavailableError("The sandbox is not available.")


def is_unsupported_user(error: SandboxError) -> bool:
    """Returns whether the sandbox cannot run commands as another user."""
    return error.kind == "unsupported" and error.subject == USER_CAPABILITY


def is_unknown_user(error: SandboxError) -> bool:
    """Returns whether the image has no user or group of the requested name."""
    return error.kind == "not-found" and error.subject == USER_OPTION


def _without_details(error: Exception | None) -> Exception | None:
    """Replaces the text of an exception that a model sees, and logs the original one."""
    if isinstance(error, SandboxUnavailableError):
        return unavailable(str(error))
    if isinstance(error, TimeoutError):
        logger.warning("%s", error)
        return TimeoutError("The operation did not finish in time.")
    return error
