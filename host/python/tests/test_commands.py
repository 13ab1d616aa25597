"""Commands: run to the end, or with input and output as it comes."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
import uuid
from pathlib import Path

import pytest
from conftest import DEADLINE, processes, until
from sandbox_host import CommandError, OutputChunk, Provider, Pty, Sandbox, SandboxError, Verdict

pytestmark = pytest.mark.asyncio


async def test_a_command_returns_output_and_code(sandbox: Sandbox) -> None:
    result = await sandbox.run("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code, result.ok) == (b"out\n", b"err\n", 3, False)
    assert (result.text, result.error_text, result.truncated) == ("out\n", "err\n", False)
    assert result.duration >= 0 and result.retries == 0
    with pytest.raises(CommandError, match="exit code 3: err") as error:
        result.check()
    assert error.value.result is result and error.value.kind == "command"


async def test_a_list_is_run_without_a_shell(sandbox: Sandbox) -> None:
    assert (await sandbox.run(["echo", "$HOME", "a b"])).check().text == "$HOME a b\n"


async def test_a_missing_program_is_a_verdict(sandbox: Sandbox) -> None:
    assert (await sandbox.run(["/no/such/program"])).exit_code == 127


async def test_input_environment_directory_and_user(sandbox: Sandbox) -> None:
    result = await sandbox.run('cat; echo "$A"; pwd; id -un', stdin=b"in\x00\n", env={"A": "ü"}, cwd="/tmp", user="nobody")
    assert result.check().stdout == "in\x00\nü\n/tmp\nnobody\n".encode()


async def test_a_time_limit_is_the_verdict_deadline(sandbox: Sandbox) -> None:
    result = await sandbox.run("echo before; sleep 600", timeout=1)
    assert result.verdict.kind == "deadline" and result.stdout == b"before\n"


async def test_a_signal_is_a_verdict(sandbox: Sandbox) -> None:
    assert (await sandbox.run("kill -9 $$")).verdict == Verdict("signaled", signal=9)


@pytest.mark.parametrize(("keep", "kept"), [("head", b"0123"), ("tail", b"6789")])
async def test_long_output_is_cut(sandbox: Sandbox, keep: str, kept: bytes) -> None:
    result = await sandbox.run("printf 0123456789", stdout_max=4, keep=keep)
    assert (result.stdout, result.stdout_total, result.truncated) == (kept, 10, True)


async def test_merged_output_is_in_the_order_of_printing(sandbox: Sandbox) -> None:
    result = await sandbox.run("echo 1; echo 2 >&2; echo 3", merge_stderr=True)
    assert (result.stdout, result.stderr) == (b"1\n2\n3\n", b"")


async def test_megabytes_of_output_are_complete(sandbox: Sandbox) -> None:
    result = await sandbox.run("head -c 5000000 /dev/zero")
    assert result.stdout == bytes(5_000_000)


async def test_megabytes_of_input_are_complete(sandbox: Sandbox) -> None:
    assert (await sandbox.run("wc -c", stdin=bytes(3_000_000))).text.strip() == "3000000"


async def test_output_comes_while_the_command_runs(sandbox: Sandbox) -> None:
    async with sandbox.start("echo one; read line; echo $line >&2; read line; echo $line") as process:
        output = process.__aiter__()
        assert await asyncio.wait_for(output.__anext__(), DEADLINE) == OutputChunk("stdout", b"one\n")
        await process.write("two\n")
        assert await asyncio.wait_for(output.__anext__(), DEADLINE) == OutputChunk("stderr", b"two\n")
        await process.write(b"three\n")
        assert [chunk.text async for chunk in output] == ["three\n"]
        assert (await process.wait()).ok


async def test_lines_are_put_together(sandbox: Sandbox) -> None:
    async with sandbox.start("printf 'a\\303'; sleep 0.2; printf '\\274b\\nsecond\\n\\nlast'") as process:
        assert [line async for line in process.stdout.lines()] == ["aüb", "second", "", "last"]
        assert await process.stderr.read_all() == b""


async def test_input_ends_by_close_stdin(sandbox: Sandbox) -> None:
    async with sandbox.start(["cat"]) as process:
        await process.write("some")
        await process.close_stdin()
        assert await process.stdout.read_all() == b"some"
        assert (await process.wait()).ok
        with pytest.raises(SandboxError):
            await process.write("more")


async def test_a_read_that_is_cancelled_loses_nothing(sandbox: Sandbox) -> None:
    async with sandbox.start("while read line; do echo got $line; done") as process:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.stdout.read(), 0.3)
        await process.write("1\n")
        assert await asyncio.wait_for(process.stdout.read(), DEADLINE) == b"got 1\n"


async def test_small_reads_return_all_bytes(sandbox: Sandbox) -> None:
    async with sandbox.start("printf 0123456789") as process:
        pieces = []
        while piece := await process.stdout.read(3):
            pieces.append(piece)
        assert b"".join(pieces) == b"0123456789" and all(len(piece) <= 3 for piece in pieces)
        with pytest.raises(ValueError, match="at least 1"):
            await process.stdout.read(0)


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", 15, signal.SIGTERM])
async def test_signals_have_names_and_numbers(sandbox: Sandbox, name: str | int) -> None:
    async with sandbox.start("trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.1; done") as process:
        assert await process.stdout.read() == b"ready\n"
        await process.signal(name)
        assert await process.wait(DEADLINE) == Verdict("exited", code=5)
        assert await process.stdout.read_all() == b"caught\n"


async def test_kill_and_two_waiters(sandbox: Sandbox) -> None:
    async with sandbox.start("sleep 600") as process:
        waiting = [asyncio.create_task(process.wait()) for _ in range(2)]
        await process.kill()
        assert [(await each).signal for each in waiting] == [9, 9]
        assert (await process.wait()).signal == 9


async def test_a_wait_with_a_limit_leaves_the_command(sandbox: Sandbox) -> None:
    async with sandbox.start("read line; exit 4") as process:
        with pytest.raises(TimeoutError):
            await process.wait(0.2)
        await process.write("\n")
        assert (await process.wait(DEADLINE)).code == 4


async def test_a_terminal_has_a_size_that_changes(sandbox: Sandbox) -> None:
    async with sandbox.start("stty size; read line; stty size", pty=Pty(30, 100)) as process:
        assert (await process.stdout.read()).decode().strip() == "30 100"
        await process.resize(40, 120)
        await process.write("\n")
        assert "40 120" in (await process.stdout.read_all()).decode()


async def test_a_detached_command_continues_and_is_attached_again(sandbox: Sandbox) -> None:
    async with sandbox.start("echo one; read line; echo $line") as process:
        assert await process.stdout.read() == b"one\n"
        identity = await process.detach()
    async with sandbox.attach(identity) as again:
        assert again.exec_id == identity
        await again.write("two\n")
        assert await again.stdout.read_all() == b"one\ntwo\n"
        assert (await again.wait(DEADLINE)).ok


async def test_execs_lists_and_signals_by_id(sandbox: Sandbox) -> None:
    async with sandbox.start(["sleep", "600"]) as process:
        if (await sandbox.provider.describe()).supports("exec.list"):
            found = {each.id: each for each in await sandbox.execs()}
            assert found[process.exec_id].verdict is None
        await sandbox.signal(process.exec_id, "KILL")
        assert (await process.wait(DEADLINE)).signal == 9


# ---- cancellation -------------------------------------------------------------------------------------------------------


async def running(sandbox: Sandbox, mark: str, count: int = 1) -> None:
    async def there() -> bool:
        return await processes(sandbox, mark) == count

    await until(there, f"{count} processes with {mark}")


async def test_cancelling_a_run_kills_the_command(sandbox: Sandbox) -> None:
    mark = f"60{uuid.uuid4().int % 10**6}"
    task = asyncio.create_task(sandbox.run(["sleep", mark]))
    await running(sandbox, mark)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await running(sandbox, mark, 0)


async def test_an_exception_in_the_block_kills_the_command(sandbox: Sandbox) -> None:
    mark = f"61{uuid.uuid4().int % 10**6}"
    with pytest.raises(KeyError):
        async with sandbox.start(["sleep", mark]):
            await running(sandbox, mark)
            raise KeyError(mark)
    await running(sandbox, mark, 0)


async def test_a_command_without_a_reference_is_killed(sandbox: Sandbox) -> None:
    mark = f"62{uuid.uuid4().int % 10**6}"
    process = await sandbox.start(["sleep", mark])
    await running(sandbox, mark)
    del process
    await running(sandbox, mark, 0)


async def test_an_exception_inside_the_iteration_is_the_one_that_is_raised(sandbox: Sandbox) -> None:
    async with sandbox.start("while :; do echo line; sleep 0.05; done") as process:
        with pytest.raises(ZeroDivisionError):
            async for _ in process:
                raise ZeroDivisionError
        # The iteration can go on, and the provider works as before.
        assert await process.stdout.read() != b""
    assert (await sandbox.run("echo still")).text == "still\n"


async def test_cancelling_a_start_kills_what_it_started(sandbox: Sandbox) -> None:
    mark = f"63{uuid.uuid4().int % 10**6}"
    for delay in (0, 0.001, 0.005, 0.02):
        task: asyncio.Future[object] = asyncio.ensure_future(wait_for_start(sandbox, mark))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await running(sandbox, mark, 0)


async def wait_for_start(sandbox: Sandbox, mark: str) -> None:
    async with sandbox.start(["sleep", mark]) as process:
        await process.wait()


async def test_what_is_opened_can_be_a_task(provider: Provider) -> None:
    first, second = asyncio.create_task(provider.create()), asyncio.ensure_future(provider.create())
    async with await first as one, await second as two:
        assert one.id != two.id
        assert [each.ok for each in await asyncio.gather(one.run("true"), two.run("true"))] == [True, True]
        with pytest.raises(SandboxError):
            await asyncio.create_task(two.start([]))


async def test_cancelling_a_creation_leaves_no_sandbox(provider: Provider) -> None:
    mark = uuid.uuid4().hex

    async def create() -> None:
        await provider.create(tags={"test": mark})

    for delay in (0, 0.002, 0.01, 0.05):
        task = asyncio.create_task(create())
        await asyncio.sleep(delay)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            continue
        # It was created before the cancellation.
        for info in await provider.list(tags={"test": mark}):
            await provider.sandbox(info.id).terminate()

    async def gone() -> bool:
        return not await provider.list(tags={"test": mark})

    # Creations that are under way end first.
    await asyncio.sleep(0.5)
    await until(gone, "no sandbox is left")


async def test_a_thousand_commands_with_few_threads(sandbox: Sandbox) -> None:
    """A thousand commands are under way at the same time, and the number of threads does not grow with them."""
    count, started, opened = 1000, 0, asyncio.Event()

    async def one(number: int) -> bytes:
        async with sandbox.start(["cat"]) as process:
            nonlocal started
            started += 1
            await opened.wait()
            await process.write(f"{number}")
            await process.close_stdin()
            data = await process.stdout.read_all()
            assert (await process.wait()).ok
            return data

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    await sandbox.run("true")
    before = threads()
    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    end = time.monotonic() + 300
    while started < count:
        assert time.monotonic() < end, f"only {started} of {count} commands run"
        failed = [task for task in tasks if task.done()]
        assert not failed, failed[0].exception()
        await asyncio.sleep(0.1)
    after = threads()
    opened.set()
    assert await asyncio.gather(*tasks) == [str(number).encode() for number in range(count)]
    # Threads for blocking work of the runtime come and go, but there is none for each command.
    assert after < before + 30, (before, after, threading.active_count())
