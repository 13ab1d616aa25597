"""What the checks share: registration, one line per check, and a sandbox that most of them use."""

from collections.abc import Iterator
from typing import Any
import contextlib
import sys
import time
import traceback
import uuid

import modal

CHECKS = []


def check(function: Any) -> Any:
    """Registers a function as a check; its docstring is what is printed."""
    CHECKS.append(function)
    return function


def app() -> Any:
    return modal.App.lookup("sdk-checks", create_if_missing=True)


_shared = None


def shared() -> Any:
    """One sandbox for all checks that leave nothing behind for others to trip over."""
    global _shared
    if _shared is None:
        _shared = modal.Sandbox.create(app=app(), timeout=600)
    return _shared


@contextlib.contextmanager
def sandbox(*args: Any, **options: Any) -> Iterator[Any]:
    """A sandbox of one's own."""
    options.setdefault("timeout", 120)
    made = modal.Sandbox.create(*args, app=options.pop("app", None) or app(), **options)
    try:
        yield made
    finally:
        made.terminate()


def sh(where: Any, script: Any, **options: Any) -> Any:
    """Runs a script and gives (stdout, stderr, code)."""
    process = where.exec("sh", "-c", script, **options)
    out, err = process.stdout.read(), process.stderr.read()
    return out, err, process.wait()


def fresh(prefix: str = "n") -> str:
    """A name that nobody else has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def equal(got: Any, wanted: Any) -> None:
    assert got == wanted, f"got {got!r}, wanted {wanted!r}"


def raises(kind: Any, function: Any, *args: Any, containing: Any = "", **options: Any) -> Any:
    try:
        result = function(*args, **options)
    except kind as error:
        assert containing.lower() in str(error).lower(), f"{containing!r} is not in {error!s}"
        return error
    raise AssertionError(f"no {kind.__name__}, but {result!r}")


def eventually(condition: Any, seconds: Any = 20) -> Any:
    """Polls: for what the service itself only offers by polling."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("it did not come to pass")


def main(wanted: Any) -> Any:
    passed = failed = 0
    for function in CHECKS:
        name = function.__doc__.strip()
        if wanted and not any(word in f"{function.__module__} {function.__name__} {name}" for word in wanted):
            continue
        began = time.monotonic()
        try:
            function()
        except Exception:
            failed += 1
            print(f"FAIL {name}", flush=True)
            traceback.print_exc()
            sys.stderr.flush()
        else:
            passed += 1
            print(f"ok   {name} ({(time.monotonic() - began) * 1000:.0f} ms)", flush=True)
    if _shared is not None:
        _shared.terminate()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0
