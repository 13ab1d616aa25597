"""The build of an image, with its log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType

from ._calls import Handle
from ._io import call, finish
from .records import BuiltImage, LogChunk

__all__ = ["Build"]


class Build(Handle):
    """A running build. Iterating over it returns the log as it comes; it ends when the image is ready.

        >>> async with provider.build(Image(commands=["RUN echo hello"])) as build:
        ...     async for chunk in build:
        ...         pass  # print(chunk.text, end="")
        ...     image = await build.wait()
        >>> async with provider.create(image=Image(id=image.id)) as other:
        ...     print((await other.run("echo ok")).text)
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

    async def __aiter__(self) -> AsyncIterator[LogChunk]:
        while True:
            chunk = await call("build.next", build=self._number)
            if chunk is None:
                return
            yield LogChunk.from_json(chunk)

    async def wait(self) -> BuiltImage:
        """Reads the rest of the log and returns the image."""
        while await call("build.next", build=self._number) is not None:
            pass
        return BuiltImage.from_json(await call("build.image", build=self._number))

    async def close(self) -> None:
        """Closes this object. The build continues at the provider."""
        if not self._closed:
            self._closed = True
            await finish(call("close", object=self._number))

    async def __aenter__(self) -> Build:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
