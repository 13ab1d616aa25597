"""Calls that wait. `../_io.py` has the same names for asyncio."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, TypeVar

from .._calls import Parts, encode, native, span
from ..records import OutputChunk

T = TypeVar("T")


def call(method: str, data: bytes = b"", /, **arguments: Any) -> Any:
    """Does a call and returns the value of its reply."""
    return call_parts(method, data, **arguments)[0]


def call_parts(method: str, data: bytes = b"", /, **arguments: Any) -> tuple[Any, Parts]:
    """Does a call and returns the value and the byte strings of its reply."""
    text = encode(method, arguments)
    with span(method, arguments) as recorded:
        reply, parts = native().call_sync(method, text, data)
        value = json.loads(reply)
        recorded.note(value)
    return value, parts


def call_within(timeout: float | None, method: str, /, **arguments: Any) -> Any:
    """Does a call with a time limit. Raises the built-in `TimeoutError` if it passes."""
    if timeout is None:
        return call(method, **arguments)
    with span(method, arguments):
        started = native().start(method, encode(method, arguments))
        try:
            if started.wait(timeout):
                return json.loads(started.result()[0])
        finally:
            started.cancel()
    raise TimeoutError(f"`{method}` did not end within {timeout} s")


def done(opened: T) -> T:
    """Returns an object that was opened. It closes itself at the end of a `with` block."""
    return opened


class Reader:
    """An output stream of a process. Iterating over it returns pieces as they come.

    No byte is lost if the waiting is interrupted: the next read returns it.
    """

    def __init__(self, process: int, stream: str) -> None:
        self._process = process
        self._stream = stream
        self._waiting: Any = None
        self._rest = b""
        self._ended = False

    def _request(self, max_bytes: int = 65536) -> Any:
        """Returns the read that is under way, or starts one."""
        if self._waiting is None:
            text = encode("process.read", {"process": self._process, "stream": self._stream, "max": max_bytes})
            self._waiting = native().start("process.read", text)
        return self._waiting

    def _take(self) -> bytes:
        """Returns what the read under way has found."""
        waiting, self._waiting = self._waiting, None
        reply, parts = waiting.result()
        if json.loads(reply)["end"]:
            self._ended = True
        return bytes(parts[0]) if parts else b""

    def read(self, max_bytes: int = 65536) -> bytes:
        """Waits for output and returns at most `max_bytes` of it, or `b""` at the end of the stream."""
        if max_bytes < 1:
            raise ValueError(f"`max_bytes` must be at least 1: {max_bytes}")
        while not self._rest and not self._ended:
            self._request(max_bytes).wait()
            self._rest = self._take()
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    def read_all(self) -> bytes:
        """Returns everything until the end of the stream."""
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            data = self.read()
            if not data:
                return
            yield data

    def lines(self) -> Iterator[str]:
        """Iterates over the lines as text, without their line ends. Wrong bytes are shown as U+FFFD."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        for data in self:
            *complete, rest = (rest + decoder.decode(data)).split("\n")
            yield from complete
        rest += decoder.decode(b"", True)
        if rest:
            yield rest


def merged(stdout: Reader, stderr: Reader) -> Iterator[OutputChunk]:
    """Iterates over both streams as output comes, until both have ended."""
    while True:
        for name, reader in (("stdout", stdout), ("stderr", stderr)):
            if reader._rest:
                data, reader._rest = reader._rest, b""
                yield OutputChunk(name, data)
        readers = [reader for reader in (stdout, stderr) if not reader._ended]
        if not readers:
            return
        requests = [reader._request() for reader in readers]
        native().wait_any(requests)
        for request, reader in zip(requests, readers, strict=True):
            if request.done():
                reader._rest += reader._take()
