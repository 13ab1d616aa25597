"""The exception that each kind of error of the host library becomes. Nothing is sent."""

from __future__ import annotations

import errno

import pytest
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.tool import ToolError
from inspect_ai.util import SandboxUnavailableError, SandboxUserUnsupportedError
from inspect_modal_sandbox.errors import exec_error, file_error, is_unknown_user
from sandbox_host.errors import SandboxError, class_of

DETAILS = "cannot run a command: https://worker-7.example/sb-123 did not answer"
"""A message with details that a model must not see."""


def failure(kind: str, subject: str | None = None, happened: str = "no") -> SandboxError:
    return class_of(kind)(DETAILS, kind, happened=happened, subject=subject)


@pytest.mark.parametrize(
    ("kind", "subject", "happened", "expected"),
    [
        ("unsupported", "exec.user", "no", SandboxUserUnsupportedError),
        ("unsupported", "exec.pty", "no", None),
        ("unsupported", None, "no", None),
        ("not-found", None, "no", SandboxUnavailableError),
        ("sandbox-ended", None, "no", SandboxUnavailableError),
        ("sandbox-ended", None, "yes", SandboxUnavailableError),
        ("unavailable", None, "no", SandboxUnavailableError),
        ("unavailable", None, "unknown", SandboxUnavailableError),
        ("internal", None, "no", SandboxUnavailableError),
        ("internal", None, "unknown", None),
        ("resource-exhausted", None, "no", SandboxUnavailableError),
        ("resource-exhausted", None, "yes", None),
        ("conflict", None, "no", SandboxUnavailableError),
        ("conflict", None, "unknown", None),
        ("timed-out", None, "unknown", TimeoutError),
        ("unauthenticated", None, "no", PrerequisiteError),
        ("permission-denied", None, "no", PrerequisiteError),
        ("config", None, "no", PrerequisiteError),
        ("forbidden", None, "no", PrerequisiteError),
        ("plugin:imports", None, "no", PrerequisiteError),
        ("trap:memory", None, "unknown", None),
        ("io:broken-pipe", None, "no", None),
        ("other:strange", None, "no", None),
    ],
)
def test_errors_of_commands(kind: str, subject: str | None, happened: str, expected: type[Exception] | None) -> None:
    raised = exec_error(failure(kind, subject, happened), "agent")
    assert (type(raised) if raised is not None else None) is expected
    if expected in (SandboxUnavailableError, TimeoutError):
        assert "example" not in str(raised) and "sb-123" not in str(raised), "a model sees this text"


@pytest.mark.parametrize("kind", ["sandbox-ended", "timed-out"])
def test_the_log_has_the_details_that_a_model_does_not_see(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    for mapped in (exec_error, file_error):
        assert DETAILS not in str(mapped(failure(kind), "notes.txt")) and DETAILS in caplog.text
        caplog.clear()


def test_only_a_user_that_was_asked_for_is_reported_as_unsupported() -> None:
    assert exec_error(failure("unsupported", "exec.user"), None) is None


@pytest.mark.parametrize(
    ("kind", "subject", "expected"),
    [
        ("not-found", "user", True),
        ("not-found", "sb-123", False),
        ("not-found", None, False),
        ("invalid-argument", "user", False),
    ],
)
def test_unknown_users(kind: str, subject: str | None, expected: bool) -> None:
    assert is_unknown_user(failure(kind, subject)) is expected


@pytest.mark.parametrize(
    ("kind", "expected", "number"),
    [
        ("file:not-found", FileNotFoundError, errno.ENOENT),
        ("file:not-a-directory", FileNotFoundError, errno.ENOENT),
        ("file:is-a-directory", IsADirectoryError, errno.EISDIR),
        ("file:permission-denied", PermissionError, errno.EACCES),
        ("file:already-exists", ToolError, errno.EEXIST),
        ("file:not-empty", ToolError, errno.ENOTEMPTY),
        ("file:no-space", ToolError, errno.ENOSPC),
        ("file:other", ToolError, errno.EIO),
        ("invalid-argument", ToolError, errno.ENAMETOOLONG),
        ("internal", OSError, errno.EIO),
    ],
)
def test_errors_of_files(kind: str, expected: type[Exception], number: int) -> None:
    raised = file_error(failure(kind), "notes.txt")
    assert isinstance(raised, expected)
    assert isinstance(raised, OSError)
    assert (raised.errno, raised.filename) == (number, "notes.txt")
    assert isinstance(raised, ToolError) is (expected is ToolError)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sandbox-ended", SandboxUnavailableError),
        ("not-found", SandboxUnavailableError),
        ("timed-out", TimeoutError),
        ("unauthenticated", PrerequisiteError),
    ],
)
def test_errors_of_files_that_are_about_the_sandbox(kind: str, expected: type[Exception]) -> None:
    assert type(file_error(failure(kind), "notes.txt")) is expected
