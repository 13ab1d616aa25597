"""The asynchronous methods of the SDK."""

from collections.abc import Awaitable, Callable
from typing import Any
import asyncio

import modal
from harness import app, equal
from modal import exception


def awaited(function: Callable[[Any], Awaitable[None]]) -> Callable[[], None]:
    """Runs a check in a new event loop with a new sandbox."""

    def run() -> None:
        of = app()

        async def whole() -> None:
            made = await modal.Sandbox.create.aio(app=of, timeout=120)
            try:
                await function(made)
            finally:
                await made.terminate.aio()

        asyncio.run(whole())

    # Not functools.wraps: pytest would take the parameter for a fixture.
    run.__doc__ = function.__doc__
    return run


@awaited
async def test_async_a_commands_streams_are_read_line_by_line_at_the_same_time(own: Any) -> None:
    """async: a command's streams are read line by line at the same time"""
    process = await own.exec.aio("sh", "-c", "echo a; echo b; echo e >&2; exit 3", bufsize=1)

    async def lines(stream: Any) -> list[str]:
        return [line async for line in stream]

    out, err, code = await asyncio.gather(lines(process.stdout), lines(process.stderr), process.wait.aio())
    equal((out, err, code), (["a\n", "b\n"], ["e\n"], 3))
    equal(process.returncode, 3)


@awaited
async def test_async_input_is_written_while_output_is_read(own: Any) -> None:
    """async: input is written while output is read"""
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
async def test_async_a_cancelled_wait_does_not_affect_the_command(own: Any) -> None:
    """async: a cancelled wait does not affect the command"""
    process = await own.exec.aio("sh", "-c", "read x; echo got $x")
    try:
        await asyncio.wait_for(process.wait.aio(), 0.2)
    except (asyncio.TimeoutError, TimeoutError):
        pass
    else:
        raise AssertionError("the cancelled wait returned")
    process.stdin.write("y\n")
    await process.stdin.drain.aio()
    equal(await process.stdout.read.aio(), "got y\n")


@awaited
async def test_async_files_are_written_read_and_removed(own: Any) -> None:
    """async: files are written, read and removed"""
    fs = own.filesystem
    await fs.write_bytes.aio(b"\x00\xff", "/tmp/a/b")
    equal(await fs.read_bytes.aio("/tmp/a/b"), b"\x00\xff")
    equal([entry.name for entry in await fs.list_files.aio("/tmp/a")], ["b"])
    await fs.remove.aio("/tmp/a", recursive=True)
    try:
        await fs.stat.aio("/tmp/a")
    except exception.SandboxFilesystemNotFoundError:
        return
    raise AssertionError("the removed file still exists")


@awaited
async def test_async_tags_are_set_and_sandboxes_are_listed_by_them(own: Any) -> None:
    """async: tags are set and sandboxes are listed by them"""
    await own.set_tags.aio({"who": own.object_id})
    equal(await own.get_tags.aio(), {"who": own.object_id})
    of = await modal.App.lookup.aio("sdk-checks")
    tags = {"who": own.object_id}
    equal([one.object_id async for one in modal.Sandbox.list.aio(app_id=of.app_id, tags=tags)], [own.object_id])


@awaited
async def test_async_a_snapshot_a_termination_and_a_result_are_awaited(own: Any) -> None:
    """async: a snapshot, a termination and a result are awaited"""
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
