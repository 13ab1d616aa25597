# Made by make_sync.py from ../forward.py.
"""Connections to ports of a sandbox, and events of its files."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from .._calls import Handle
from ..records import FileEvent
from ._io import call

__all__ = ["Forward", "Watch"]


class Forward(Handle):
    """A local address whose connections end at a port of the sandbox. `with` returns the address."""

    address: str
    """The local address, such as `127.0.0.1:40001`."""

    def __init__(self, number: int, address: str) -> None:
        self._number = number
        self._closed = False
        self.address = address

    def close(self) -> None:
        """Ends the forwarding and all its connections."""
        if not self._closed:
            self._closed = True
            call("close", object=self._number)

    def __enter__(self) -> str:
        return self.address

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Forward {self.address}>"


class Watch(Handle):
    """A watch of files. Iterating over it returns events as they come; it ends with the sandbox."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._closed = False

    def next(self) -> list[FileEvent]:
        """Waits for events and returns them. An empty list is the end."""
        return [FileEvent.from_json(each) for each in call("watch.next", watch=self._number)]

    def __iter__(self) -> Iterator[FileEvent]:
        while True:
            events = self.next()
            if not events:
                return
            for event in events:
                yield event

    def close(self) -> None:
        """Ends the watch."""
        if not self._closed:
            self._closed = True
            call("close", object=self._number)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
