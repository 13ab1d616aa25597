"""Connections to ports of a sandbox, and events of its files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType

from ._calls import Handle
from ._io import call, finish
from .records import FileEvent

__all__ = ["Forward", "Watch"]


class Forward(Handle):
    """A local address whose connections end at a port of the sandbox. `async with` returns the address."""

    address: str
    """The local address, such as `127.0.0.1:40001`."""

    def __init__(self, number: int, address: str) -> None:
        self._number = number
        self._closed = False
        self.address = address

    async def close(self) -> None:
        """Ends the forwarding and all its connections."""
        if not self._closed:
            self._closed = True
            await finish(call("close", object=self._number))

    async def __aenter__(self) -> str:
        return self.address

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Forward {self.address}>"


class Watch(Handle):
    """A watch of files. Iterating over it returns events as they come; it ends with the sandbox."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._closed = False

    async def next(self) -> list[FileEvent]:
        """Waits for events and returns them. An empty list is the end."""
        return [FileEvent.from_json(each) for each in await call("watch.next", watch=self._number)]

    async def __aiter__(self) -> AsyncIterator[FileEvent]:
        while True:
            events = await self.next()
            if not events:
                return
            for event in events:
                yield event

    async def close(self) -> None:
        """Ends the watch."""
        if not self._closed:
            self._closed = True
            await finish(call("close", object=self._number))

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
