"""The SDK's asynchronous forms: the same features, awaited."""

from collections.abc import Awaitable, Callable
from typing import Any
import asyncio

import modal
from harness import app, equal
from modal import exception


def awaited(function: Callable[[Any], Awaitable[None]]) -> Callable[[], None]:
    """Runs a check in an event loop of its own, with a sandbox of its own."""

    def run() -> None:
        of = app()

        async def whole() -> None:
            made = await modal.Sandbox.create.aio(app=of, timeout=120)
            try:
                await function(made)
            finally:
                await made.terminate.aio()

        asyncio.run(whole())

    # Not functools.wraps: pytest would take the sandbox for a fixture.
    run.__doc__ = function.__doc__
    return run


@awaited
async def test_async_a_command_its_streams_read_at_the_same_time_line_by_line(own: Any) -> None:
    """async: a command, its streams read at the same time, line by line"""
    process = await own.exec.aio("sh", "-c", "echo a; echo b; echo e >&2; exit 3", bufsize=1)

    async def lines(stream: Any) -> list[str]:
        return [line async for line in stream]

    out, err, code = await asyncio.gather(lines(process.stdout), lines(process.stderr), process.wait.aio())
    equal((out, err, code), (["a\n", "b\n"], ["e\n"], 3))
    equal(process.returncode, 3)


@awaited
async def test_async_input_while_output_is_read(own: Any) -> None:
    """async: input while output is read"""
    process = await own.exec.aio("cat", bufsize=1)
    lines = process.stdout.__aiter__()
    for word in ("one\n", "two\n"):
        process.stdin.write(word)
        await process.stdin.drain.aio()
        equal(await lines.__anext__(), word)
    process.stdin.write_eof()
    await process.stdin.drain.aio()
    equal(await process.wait.aio(), 0)


@awaited
async def test_async_100_commands_at_the_same_time(own: Any) -> None:
    """async: 100 commands at the same time"""

    async def one(number: int) -> tuple[str, int]:
        process = await own.exec.aio("sh", "-c", f"echo {number}; exit {number}")
        return await process.stdout.read.aio(), await process.wait.aio()

    equal(await asyncio.gather(*map(one, range(100))), [(f"{n}\n", n) for n in range(100)])


@awaited
async def test_async_a_wait_that_is_given_up_leaves_the_command_alone(own: Any) -> None:
    """async: a wait that is given up leaves the command alone"""
    process = await own.exec.aio("sh", "-c", "read x; echo got $x")
    try:
        await asyncio.wait_for(process.wait.aio(), 0.2)
    except (asyncio.TimeoutError, TimeoutError):
        pass
    else:
        raise AssertionError("it waited for nothing")
    process.stdin.write("y\n")
    await process.stdin.drain.aio()
    equal(await process.stdout.read.aio(), "got y\n")


@awaited
async def test_async_files(own: Any) -> None:
    """async: files"""
    fs = own.filesystem
    await fs.write_bytes.aio(b"\x00\xff", "/tmp/a/b")
    equal(await fs.read_bytes.aio("/tmp/a/b"), b"\x00\xff")
    equal([entry.name for entry in await fs.list_files.aio("/tmp/a")], ["b"])
    await fs.remove.aio("/tmp/a", recursive=True)
    try:
        await fs.stat.aio("/tmp/a")
    except exception.SandboxFilesystemNotFoundError:
        return
    raise AssertionError("still there")


@awaited
async def test_async_tags_and_lists_by_them(own: Any) -> None:
    """async: tags, and lists by them"""
    await own.set_tags.aio({"who": own.object_id})
    equal(await own.get_tags.aio(), {"who": own.object_id})
    of = await modal.App.lookup.aio("sdk-checks")
    tags = {"who": own.object_id}
    equal([one.object_id async for one in modal.Sandbox.list.aio(app_id=of.app_id, tags=tags)], [own.object_id])


@awaited
async def test_async_a_snapshot_an_end_a_result(own: Any) -> None:
    """async: a snapshot, an end, a result"""
    process = await own.exec.aio("sh", "-c", "echo kept > /kept")
    await process.wait.aio()
    image = await own.snapshot_filesystem.aio()
    equal(await own.poll.aio(), None)
    equal(await own.terminate.aio(wait=True), 137)
    of = await modal.App.lookup.aio("sdk-checks")
    other = await modal.Sandbox.create.aio("cat", "/kept", app=of, image=image)
    equal(await other.stdout.read.aio(), "kept\n")
    await other.wait.aio()
    equal(other.returncode, 0)
