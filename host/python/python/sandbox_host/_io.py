"""Calls for asyncio. `sync/_io.py` has the same names without it."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from ._calls import Parts, encode, native, span
from .records import OutputChunk

T = TypeVar("T")
E_co = TypeVar("E_co", covariant=True)


async def call(method: str, data: bytes = b"", /, **arguments: Any) -> Any:
    """Does a call and returns the value of its reply."""
    return (await call_parts(method, data, **arguments))[0]


async def call_parts(method: str, data: bytes = b"", /, **arguments: Any) -> tuple[Any, Parts]:
    """Does a call and returns the value and the byte strings of its reply."""
    text = encode(method, arguments)
    with span(method, arguments) as recorded:
        reply, parts = await native().call(method, text, data)
        value = _decode(reply)
        recorded.note(value)
    return value, parts


async def call_within(timeout: float | None, method: str, /, **arguments: Any) -> Any:
    """Does a call with a time limit. Raises the built-in `TimeoutError` if it passes."""
    try:
        return await asyncio.wait_for(call(method, **arguments), timeout)
    except asyncio.TimeoutError:
        raise TimeoutError(f"`{method}` did not end within {timeout} s") from None


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Waits for work that must be completed even if the waiting task is cancelled, such as a termination."""
    return await asyncio.shield(asyncio.ensure_future(work))


def _decode(reply: str) -> Any:
    import json

    return json.loads(reply)


class _Entered(Protocol[E_co]):
    async def __aenter__(self) -> E_co: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


R = TypeVar("R", bound="_Entered[Any]")
V = TypeVar("V")


class Pending(Coroutine[Any, Any, R], Generic[R, V]):
    """An object that is being opened.

    `await` returns it, and it stays until it is closed. `async with` closes it at the end of the block. It is a coroutine,
    so it can be a task too.
    """

    def __init__(self, work: Coroutine[Any, Any, R]) -> None:
        self._work = work
        self._opened: R | None = None

    def __await__(self) -> Generator[Any, None, R]:
        return self._work.__await__()

    def send(self, value: Any) -> Any:
        """Continues the work, as for any coroutine."""
        return self._work.send(value)

    def throw(self, kind: Any, value: Any = None, trace: Any = None) -> Any:
        """Raises an exception in the work, as for any coroutine."""
        if value is None and trace is None:
            return self._work.throw(kind)
        return self._work.throw(kind, value, trace)

    def close(self) -> None:
        """Ends the work, as for any coroutine."""
        self._work.close()

    async def __aenter__(self) -> V:
        self._opened = await self._work
        entered: V = await self._opened.__aenter__()
        return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.__aexit__(kind, error, trace)


class Reader:
    """An output stream of a process. Iterating over it returns pieces as they come.

    No byte is lost if a waiting task is cancelled: the next read returns it.
    """

    def __init__(self, process: int, stream: str) -> None:
        self._process = process
        self._stream = stream
        self._waiting: asyncio.Future[tuple[str, Parts]] | None = None
        self._rest = b""
        self._ended = False

    def _request(self, max_bytes: int = 65536) -> asyncio.Future[tuple[str, Parts]]:
        """Returns the read that is under way, or starts one."""
        waiting = self._waiting
        if waiting is None or waiting.cancelled() or waiting.get_loop() is not asyncio.get_running_loop():
            text = encode("process.read", {"process": self._process, "stream": self._stream, "max": max_bytes})
            waiting = native().call("process.read", text)
            # Nothing may wait for it any more when it fails.
            waiting.add_done_callback(_retrieve)
            self._waiting = waiting
        return waiting

    def _take(self) -> bytes:
        """Returns what the read under way has found."""
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        reply, parts = waiting.result()
        if _decode(reply)["end"]:
            self._ended = True
        return parts[0] if parts else b""

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Waits for output and returns at most `max_bytes` of it, or `b""` at the end of the stream."""
        if max_bytes < 1:
            raise ValueError(f"`max_bytes` must be at least 1: {max_bytes}")
        while not self._rest and not self._ended:
            waiting = self._request(max_bytes)
            await asyncio.wait({waiting})
            # Another task may have taken it.
            if self._waiting is waiting:
                self._rest = self._take()
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    async def read_all(self) -> bytes:
        """Returns everything until the end of the stream."""
        pieces = [piece async for piece in self]
        return b"".join(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            data = await self.read()
            if not data:
                return
            yield data

    async def lines(self) -> AsyncIterator[str]:
        """Iterates over the lines as text, without their line ends. Wrong bytes are shown as U+FFFD."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        async for data in self:
            *complete, rest = (rest + decoder.decode(data)).split("\n")
            for line in complete:
                yield line
        rest += decoder.decode(b"", True)
        if rest:
            yield rest


async def merged(stdout: Reader, stderr: Reader) -> AsyncIterator[OutputChunk]:
    """Iterates over both streams as output comes, until both have ended."""
    while True:
        for name, reader in (("stdout", stdout), ("stderr", stderr)):
            if reader._rest:
                data, reader._rest = reader._rest, b""
                yield OutputChunk(name, data)
        open_readers = [(name, reader) for name, reader in (("stdout", stdout), ("stderr", stderr)) if not reader._ended]
        if not open_readers:
            return
        requests = {reader._request(): (name, reader) for name, reader in open_readers}
        await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
        for request, (_, reader) in requests.items():
            if request.done() and reader._waiting is request:
                reader._rest += reader._take()


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


__all__ = ["Pending", "Reader", "call", "call_parts", "call_within", "finish", "merged"]
