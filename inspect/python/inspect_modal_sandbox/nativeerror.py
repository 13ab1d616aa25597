"""The exception that calls of the native module raise.

It is defined here and raised from Rust (`native/src/error.rs`). A class defined in Rust could not extend `Exception` and have
fields: the stable ABI of Python 3.10, which the native module is built for, does not allow that.
"""

from __future__ import annotations

from typing import Literal

Happened = Literal["no", "unknown", "yes"]
"""Whether the requested action took place."""


class NativeError(Exception):
    """A call to the native module failed.

    Programs decide by `kind`, `subject`, `happened` and `retryable`. The wording of `message` and `reason` may change.
    """

    kind: str
    """What went wrong, such as `not-found` or `timed-out`.

    The names are those of `error-kind` in `wit/types.wit`. Errors of the host itself are `plugin`, `trap`, `config` and `io`.
    Some kinds have a detail after a colon, such as `file:not-found` for a file operation.
    """

    message: str
    """One line for people: what was being done, why it failed and, if known, what to do. It is the text of the exception."""

    happened: Happened
    """Whether the requested action took place. After `no`, the call can be repeated safely."""

    retryable: bool
    """Whether the same call may succeed later."""

    reason: str
    """Why the call failed: the text of the provider or of the host, without what was being done and without the hint."""

    subject: str | None
    """What the error is about: an id, a path, the name of an option or of a capability. `None` if the provider gave none."""

    def __init__(
        self,
        kind: str,
        message: str,
        happened: Happened = "no",
        retryable: bool = False,
        reason: str = "",
        subject: str | None = None,
    ) -> None:
        # All fields are in `args`, so that the exception can be pickled.
        super().__init__(kind, message, happened, retryable, reason, subject)
        self.kind = kind
        self.message = message
        self.happened = happened
        self.retryable = retryable
        self.reason = reason
        self.subject = subject

    @property
    def general_kind(self) -> str:
        """The kind without its detail: `file` for `file:not-found`."""
        return self.kind.partition(":")[0]

    def __str__(self) -> str:
        return self.message
