"""The exceptions of this package.

Every failed call raises a [`SandboxError`][sandbox_host.errors.SandboxError]. Its fields are for programs, its text is for
people. The subclasses are for `except`:

    >>> from sandbox_host.errors import NotFoundError, SandboxError, from_fault
    >>> error = from_fault('{"kind": "not-found", "message": "cannot find sb-1", "subject": "sb-1"}')
    >>> isinstance(error, NotFoundError), error.subject, str(error)
    (True, 'sb-1', 'cannot find sb-1')
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .records import RunResult

__all__ = [
    "AlreadyExistsError",
    "BuildFailedError",
    "CallCancelledError",
    "ClosedError",
    "CommandError",
    "ConfigError",
    "ConflictError",
    "FileError",
    "FileExistsInSandboxError",
    "FileNotFoundInSandboxError",
    "ForbiddenError",
    "InternalError",
    "InvalidArgumentError",
    "LocalIoError",
    "NotFoundError",
    "PermissionDeniedError",
    "PluginError",
    "ResourceExhaustedError",
    "SandboxEndedError",
    "SandboxError",
    "TimedOutError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
]


class SandboxError(Exception):
    """A call failed. Base class of all exceptions of this package.

    Programs decide by the class, `kind`, `happened` and `retryable`. The wording of `message` and `reason` may change.
    """

    kind: str
    """What went wrong, such as `not-found`. Some kinds have a detail after a colon: `file:not-found`, `trap:memory`."""

    message: str
    """One line for people: what was being done, why it failed and, if known, what to do. The text of the exception."""

    reason: str
    """The cause alone, without what was being done and without advice."""

    happened: str
    """Whether the requested effect took place: `no`, `unknown` or `yes`. After `no`, the call can be repeated safely."""

    retryable: bool
    """Whether the same call may succeed later."""

    retry_after: float | None
    """The seconds after which the service permits another attempt, or `None` if it named no time."""

    subject: str | None
    """What the error is about: an id, a path, the name of an option or of a capability. `None` if it is not known."""

    def __init__(
        self,
        message: str,
        kind: str = "internal",
        reason: str | None = None,
        happened: str = "no",
        retryable: bool = False,
        retry_after: float | None = None,
        subject: str | None = None,
    ) -> None:
        # All fields are in `args`, so that the exception can be pickled and copied.
        super().__init__(message, kind, reason, happened, retryable, retry_after, subject)
        self.message = message
        self.kind = kind
        self.reason = message if reason is None else reason
        self.happened = happened
        self.retryable = retryable
        self.retry_after = retry_after
        self.subject = subject

    @property
    def general_kind(self) -> str:
        """The kind without its detail: `file` for `file:not-found`."""
        return self.kind.partition(":")[0]

    def __str__(self) -> str:
        return self.message


class InvalidArgumentError(SandboxError, ValueError):
    """An argument is wrong: an unknown option, an empty command, a value out of range."""


class UnsupportedError(SandboxError):
    """The provider does not support the operation. `subject` names the missing capability."""


class UnauthenticatedError(SandboxError):
    """Credentials are missing, wrong or expired."""


class PermissionDeniedError(SandboxError):
    """The credentials are valid but do not permit the operation."""


class NotFoundError(SandboxError):
    """The sandbox, image, snapshot, command, secret or volume does not exist, or does not exist any more."""


class AlreadyExistsError(SandboxError):
    """The name is taken."""


class ConflictError(SandboxError):
    """The state of the object does not permit the operation now."""


class ResourceExhaustedError(SandboxError):
    """A rate limit or a quota is exceeded, or there is no capacity. See `retry_after`."""


class BuildFailedError(SandboxError):
    """The build of an image failed. The message contains the failed line and the end of its output."""


class SandboxEndedError(SandboxError):
    """The sandbox ended before or during the call."""


class FileError(SandboxError):
    """An operation on a file of the sandbox failed. `subject` is the path."""

    @property
    def fault(self) -> str:
        """The cause: `not-found`, `is-a-directory`, `not-a-directory`, `already-exists`, `not-empty`,
        `permission-denied`, `too-large`, `no-space`, or another text."""
        return self.kind.partition(":")[2]


class FileNotFoundInSandboxError(FileError):
    """The file or directory does not exist in the sandbox."""


class FileExistsInSandboxError(FileError):
    """The path exists in the sandbox and must not be replaced."""


class TimedOutError(SandboxError):
    """The answer of the service did not arrive in time."""


class UnavailableError(SandboxError):
    """The service could not be reached, or the connection broke."""


class ForbiddenError(SandboxError):
    """The policy of the host forbids the connection that the provider wanted."""


class InternalError(SandboxError):
    """The service sent an invalid answer or had an internal error."""


class ConfigError(SandboxError):
    """The settings of the provider are incomplete or contradict each other."""


class PluginError(SandboxError):
    """The component cannot be loaded, or it failed during a call (`plugin:…` and `trap:…`)."""


class LocalIoError(SandboxError):
    """An operation on a file of this machine failed (`io:…`)."""


class ClosedError(SandboxError):
    """The provider, process or other object was closed, or this process was forked after the library had started."""


class CallCancelledError(SandboxError):
    """The call was cancelled from elsewhere. A cancelled asyncio task gets `asyncio.CancelledError` instead."""


class CommandError(SandboxError):
    """A command did not exit with 0. Raised only by `RunResult.check`."""

    result: RunResult
    """What the command printed, and how it ended."""

    def __init__(self, message: str, result: RunResult) -> None:
        super().__init__(message, "command", happened="yes")
        # `args` must fit this constructor, so that the exception can be pickled.
        self.args = (message, result)
        self.result = result


_CLASSES: dict[str, type[SandboxError]] = {
    "invalid-argument": InvalidArgumentError,
    "unsupported": UnsupportedError,
    "unauthenticated": UnauthenticatedError,
    "permission-denied": PermissionDeniedError,
    "not-found": NotFoundError,
    "already-exists": AlreadyExistsError,
    "conflict": ConflictError,
    "resource-exhausted": ResourceExhaustedError,
    "build-failed": BuildFailedError,
    "sandbox-ended": SandboxEndedError,
    "file:not-found": FileNotFoundInSandboxError,
    "file:already-exists": FileExistsInSandboxError,
    "file": FileError,
    "timed-out": TimedOutError,
    "unavailable": UnavailableError,
    "forbidden": ForbiddenError,
    "internal": InternalError,
    "config": ConfigError,
    "plugin": PluginError,
    "trap": PluginError,
    "io": LocalIoError,
    "closed": ClosedError,
    "cancelled": CallCancelledError,
}


def class_of(kind: str) -> type[SandboxError]:
    """Returns the exception class of a kind.

    >>> class_of("file:not-found").__name__, class_of("file:no-space").__name__, class_of("new-kind").__name__
    ('FileNotFoundInSandboxError', 'FileError', 'SandboxError')
    """
    return _CLASSES.get(kind) or _CLASSES.get(kind.partition(":")[0], SandboxError)


def from_fault(text: str) -> SandboxError:
    """Returns the exception for the error object of a failed call, which is JSON text. The native module calls this."""
    fault: dict[str, Any] = json.loads(text)
    kind = str(fault.get("kind", "internal"))
    after = fault.get("retry_after_ms")
    return class_of(kind)(
        str(fault.get("message", kind)),
        kind,
        fault.get("reason"),
        str(fault.get("happened", "no")),
        bool(fault.get("retryable", False)),
        None if after is None else after / 1000,
        fault.get("subject"),
    )
