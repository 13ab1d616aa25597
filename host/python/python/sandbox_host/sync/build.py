# Made by make_sync.py from ../build.py.
"""The build of an image, with its log."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from .._calls import Handle
from ..records import BuiltImage, LogChunk
from ._io import call

__all__ = ["Build"]


class Build(Handle):
    """A running build. Iterating over it returns the log as it comes; it ends when the image is ready.

        >>> with provider.build(Image(commands=["RUN echo hello"])) as build:
        ...     for chunk in build:
        ...         pass  # print(chunk.text, end="")
        ...     image = build.wait()
        >>> with provider.create(image=Image(id=image.id)) as other:
        ...     print((other.run("echo ok")).text)
        ok
        <BLANKLINE>

    The iteration, or `wait`, raises `BuildFailedError` if the build failed. Closing this object does not end the build.
    """

    skipped: list[str]
    """Files of the build context that cannot be sent, with the reason."""

    def __init__(self, number: int, skipped: list[str]) -> None:
        self._number = number
        self._closed = False
        self.skipped = skipped

    def __iter__(self) -> Iterator[LogChunk]:
        while True:
            chunk = call("build.next", build=self._number)
            if chunk is None:
                return
            yield LogChunk.from_json(chunk)

    def wait(self) -> BuiltImage:
        """Reads the rest of the log and returns the image."""
        while call("build.next", build=self._number) is not None:
            pass
        return BuiltImage.from_json(call("build.image", build=self._number))

    def close(self) -> None:
        """Closes this object. The build continues at the provider."""
        if not self._closed:
            self._closed = True
            call("close", object=self._number)

    def __enter__(self) -> Build:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
