"""What asynchronous and synchronous calls share: JSON, the native module, and spans of OpenTelemetry."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

Parts = tuple[bytes, ...]

_QUIET = frozenset(
    {
        "process.read",
        "process.write",
        "build.next",
        "build.image",
        "watch.next",
        "transfer.start",
        "transfer.next",
        "transfer.result",
        "close",
        "provider.metrics",
    }
)
"""Calls without a span: they are parts of an operation, and there can be thousands of them."""


def native() -> ModuleType:
    """Returns the native module. It is loaded by the first call and not by the import of the package."""
    from . import _native

    return _native  # type: ignore[return-value,unused-ignore]


def encode(method: str, arguments: Mapping[str, Any]) -> str:
    """Returns arguments as JSON text, without those that are `None`. Raises `TypeError` for what JSON does not have."""
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return json.dumps(given, allow_nan=False)
    except TypeError as error:
        raise TypeError(f"an argument of `{method}` has a wrong type: {error}") from None


_tracer: Any = None
_searched = False


def _find_tracer() -> Any:
    """Returns the tracer of OpenTelemetry, or `None` if that is not installed."""
    global _tracer, _searched
    if not _searched:
        _searched = True
        try:
            from opentelemetry import trace
        except ImportError:
            return None
        _tracer = trace.get_tracer("sandbox_host")
    return _tracer


class Span:
    """A call as a span below the current one. It is not made current: a call that its loop drops could not undo that."""

    def __init__(self, tracer: Any, method: str, arguments: Mapping[str, Any]) -> None:
        attributes = {"sandbox.method": method}
        for name, key in (("sandbox", "sandbox.id"), ("exec", "sandbox.exec"), ("container", "sandbox.container")):
            if arguments.get(name) is not None:
                attributes[key] = str(arguments[name])
        self._span = tracer.start_span(method, attributes=attributes)

    def __enter__(self) -> Span:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_attribute("error.type", getattr(error, "kind", type(error).__name__))
            if hasattr(error, "happened"):
                self._span.set_attribute("sandbox.happened", error.happened)
            self._span.set_status(StatusCode.ERROR, str(error))
        self._span.end()

    def note(self, reply: Any) -> None:
        """Adds what a reply names: the id of a new sandbox or command."""
        if not isinstance(reply, dict):
            return
        info = reply.get("info")
        if isinstance(info, dict) and "id" in info:
            self._span.set_attribute("sandbox.id", str(info["id"]))
        if isinstance(reply.get("exec"), str):
            self._span.set_attribute("sandbox.exec", reply["exec"])


class _NoSpan:
    def __enter__(self) -> _NoSpan:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def note(self, reply: Any) -> None:
        return None


_NO_SPAN = _NoSpan()


def span(method: str, arguments: Mapping[str, Any]) -> Span | _NoSpan:
    """Returns a context manager that records a call, if OpenTelemetry is installed."""
    if method in _QUIET:
        return _NO_SPAN
    tracer = _tracer if _searched else _find_tracer()
    return _NO_SPAN if tracer is None else Span(tracer, method, arguments)


def forget(number: int) -> None:
    """Closes an object whose Python object is collected. Never fails."""
    try:
        native().forget(number)
    except Exception:  # The interpreter may be shutting down, or this process may have been forked.
        pass


class Handle:
    """An object of the bridge, by its number. It is closed when Python collects it."""

    _number: int
    _closed: bool

    # At the end of the interpreter the names of modules may be gone, so the function is bound here.
    def __del__(self, forget: Callable[[int], None] = forget) -> None:
        if not getattr(self, "_closed", True):
            self._closed = True
            forget(self._number)
