"""Functions that the checks share: comparisons, polling, and a sandbox that most of them use."""

from collections.abc import Iterator
from typing import Any
import contextlib
import time
import uuid

import modal

def app() -> Any:
    return modal.App.lookup("sdk-checks", create_if_missing=True)


_shared = None


def shared() -> Any:
    """Returns the shared sandbox, for checks whose files and processes do not disturb other checks."""
    global _shared
    if _shared is None:
        _shared = modal.Sandbox.create(app=app(), timeout=1800)
    return _shared


def end_shared() -> None:
    """Terminates the shared sandbox, if there is one."""
    if _shared is not None:
        _shared.terminate()


@contextlib.contextmanager
def sandbox(*args: Any, **options: Any) -> Iterator[Any]:
    """Creates a sandbox and terminates it at the end of the block."""
    options.setdefault("timeout", 120)
    made = modal.Sandbox.create(*args, app=options.pop("app", None) or app(), **options)
    try:
        yield made
    finally:
        made.terminate()


def sh(where: Any, script: Any, **options: Any) -> Any:
    """Runs a script and returns (stdout, stderr, code)."""
    process = where.exec("sh", "-c", script, **options)
    out, err = process.stdout.read(), process.stderr.read()
    return out, err, process.wait()


def fresh(prefix: str = "n") -> str:
    """Returns a name that no other check uses."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def equal(got: Any, wanted: Any) -> None:
    assert got == wanted, f"got {got!r}, expected {wanted!r}"


def raises(kind: Any, function: Any, *args: Any, containing: Any = "", **options: Any) -> Any:
    try:
        result = function(*args, **options)
    except kind as error:
        assert containing.lower() in str(error).lower(), f"{containing!r} is not in {error!s}"
        return error
    raise AssertionError(f"expected {kind.__name__}, but the call returned {result!r}")


def eventually(condition: Any, seconds: Any = 60) -> Any:
    """Polls until the condition returns a true value, and returns it. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"still {value!r} after {seconds} s")
