"""Bad use: an error, never a crash or a hang."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest
from conftest import DEADLINE, processes, until
from sandbox_host import (
    ClosedError,
    Image,
    InvalidArgumentError,
    Network,
    Provider,
    Sandbox,
    SandboxError,
    SandboxSpec,
)


def script(code: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Runs a program in an interpreter of its own."""
    command = [sys.executable, "-X", "dev", "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def ended_well(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 0, (ran.returncode, ran.stdout, ran.stderr)
    assert "Fatal" not in ran.stderr and "panicked" not in ran.stderr, ran.stderr
    return ran.stdout


# ---- wrong types and values ---------------------------------------------------------------------------------------------

WRONG: list[tuple[str, Callable[[Any], Any], type[Exception]]] = [
    ("a command that is a number", lambda s: s.run(5), TypeError),
    ("words that are no strings", lambda s: s.run(["echo", 5]), TypeError),
    ("words that are bytes", lambda s: s.run(b"echo"), TypeError),
    ("an empty command", lambda s: s.run([]), InvalidArgumentError),
    ("input that is a list", lambda s: s.run("cat", stdin=[1]), TypeError),
    ("a variable that is a number", lambda s: s.run("x", env={"A": 1}), TypeError),
    ("variables that are a list", lambda s: s.run("x", env=["A=1"]), TypeError),
    ("a directory that is a number", lambda s: s.run("x", cwd=7), InvalidArgumentError),
    ("a negative time", lambda s: s.run("x", timeout=-1), ValueError),
    ("a time that is text", lambda s: s.run("x", timeout="1"), TypeError),
    ("a time without end", lambda s: s.run("x", timeout=float("inf")), ValueError),
    ("a time that is no number", lambda s: s.run("x", timeout=float("nan")), ValueError),
    ("a limit that is negative", lambda s: s.run("x", stdout_max=-1), InvalidArgumentError),
    ("a part to keep that does not exist", lambda s: s.run("x", keep="middle"), InvalidArgumentError),
    ("an argument that does not exist", lambda s: s.run("x", shell=True), TypeError),
    ("a path that is bytes", lambda s: s.read_file(b"/tmp"), TypeError),
    ("a path that is relative", lambda s: s.read_file("tmp"), SandboxError),
    ("a path with NUL", lambda s: s.read_file("/tmp/\0"), SandboxError),
    ("content that is a number", lambda s: s.write_file("/tmp/a", 5), TypeError),
    ("a mode that does not exist", lambda s: s.write_file("/tmp/a", "", mode="w"), InvalidArgumentError),
    ("permissions that are text", lambda s: s.write_file("/tmp/a", "", permissions="644"), InvalidArgumentError),
    ("a port that is too large", lambda s: s.forward(70000), InvalidArgumentError),
    ("a port that is text", lambda s: s.forward("80"), InvalidArgumentError),
    ("a signal that does not exist", lambda s: s.signal("main", "NONE"), InvalidArgumentError),
    ("tags that are no strings", lambda s: s.set_tags({"a": 1}), TypeError),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("what", "use", "error"), WRONG, ids=[each[0] for each in WRONG])
async def test_wrong_arguments(sandbox: Sandbox, what: str, use: Callable[[Any], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        await use(sandbox)
    assert (await sandbox.run("echo still")).text == "still\n"


CREATE: list[tuple[str, dict[str, Any], type[Exception]]] = [
    ("an unknown setting", {"memory": 5}, TypeError),
    ("an image that is a number", {"image": 5}, TypeError),
    ("an image with two sources", {"image": Image(registry="a", id="b")}, ValueError),
    ("cores that are text", {"cpu": "2"}, TypeError),
    ("memory that is text", {"memory_mib": "2"}, InvalidArgumentError),
    ("a lifetime that is text", {"lifetime": "1h"}, TypeError),
    ("a command that is text", {"command": "sleep 5"}, TypeError),
    ("tags that are a list", {"tags": ["a"]}, TypeError),
    ("an option that is no JSON", {"options": {"a": object()}}, TypeError),
    ("an accelerator without a number", {"gpu": "H100:many"}, ValueError),
    ("domains without a policy", {"network": Network(domains=["a"])}, ValueError),
    ("a port out of range", {"ports": [99999]}, InvalidArgumentError),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("what", "settings", "error"), CREATE, ids=[each[0] for each in CREATE])
async def test_wrong_specifications(memory: Provider, what: str, settings: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        await memory.create(**settings)


@pytest.mark.asyncio
async def test_a_number_is_no_specification(memory: Provider) -> None:
    with pytest.raises(TypeError, match="must be a SandboxSpec, not int"):
        await memory.create(5)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_wrong_calls_of_the_native_module(memory: Provider) -> None:
    from sandbox_host import _native

    for method, arguments, text in (
        ("no.method", "{}", "no.method"),
        ("provider.describe", "{}", "provider"),
        ("provider.describe", '"text"', "provider.describe"),
        ("provider.describe", "{", "provider.describe"),
        ("provider.describe", '{"provider": 1e30}', "provider.describe"),
        ("provider.describe", '{"provider": 1, "more": 2}', "more"),
    ):
        with pytest.raises(InvalidArgumentError, match=text):
            await _native.call(method, arguments)
        with pytest.raises(InvalidArgumentError, match=text):
            _native.call_sync(method, arguments)
    wrong: list[Any] = [(), (1, "{}"), ("version", {}), ("version", "{}", "text")]
    for each in wrong:
        with pytest.raises(TypeError):
            _native.call(*each)
        with pytest.raises(TypeError):
            _native.call_sync(*each)
    with pytest.raises(ValueError, match="no call"):
        _native.wait_any([])
    _native.forget(10**9)


def test_without_an_event_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        from sandbox_host import _native

        _native.call("version", "{}")


# ---- closed objects -----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_closed_provider() -> None:
    async with Provider.open("memory") as provider:
        sandbox = await provider.create()
    for use in (provider.describe, provider.check, sandbox.info, provider.list, lambda: sandbox.run(["echo"])):
        with pytest.raises(ClosedError) as error:
            await use()
        assert error.value.happened == "no"
    with pytest.raises(ClosedError):
        await provider.create()
    await provider.close()


@pytest.mark.asyncio
async def test_closing_a_provider_ends_its_calls(sandbox: Sandbox) -> None:
    async with Provider.open("modal") as provider:
        task = asyncio.create_task(provider.sandbox(sandbox.id).run("sleep 601"))

        async def runs() -> bool:
            return await processes(sandbox, "601") > 0

        await until(runs, "the command runs")
    with pytest.raises(SandboxError):
        await asyncio.wait_for(task, DEADLINE)

    async def gone() -> bool:
        return await processes(sandbox, "601") == 0

    await until(gone, "the command is killed")


@pytest.mark.asyncio
async def test_closed_processes_builds_and_forwards(sandbox: Sandbox) -> None:
    async with sandbox.start("sleep 600") as process:
        reading = asyncio.create_task(process.stdout.read())
        await asyncio.sleep(0)
    with pytest.raises(SandboxError):
        await asyncio.wait_for(reading, DEADLINE)
    uses = (process.wait, process.kill, process.close_stdin, process.stdout.read, process.detach)
    for use in uses:
        with pytest.raises(ClosedError):
            await use()
    await process.close()
    build = await sandbox.provider.build(Image())
    await build.close()
    with pytest.raises(ClosedError):
        await build.wait()


@pytest.mark.asyncio
async def test_a_sandbox_that_ended(sandbox: Sandbox) -> None:
    await sandbox.terminate()
    await sandbox.wait(DEADLINE)
    with pytest.raises(SandboxError) as error:
        await sandbox.run("true")
    assert error.value.kind == "sandbox-ended" and error.value.happened == "no"


# ---- event loops --------------------------------------------------------------------------------------------------------


def test_a_loop_that_is_closed_with_calls_under_way() -> None:
    """Calls whose loop is gone are dropped; the next loop works with the same provider."""
    loop = asyncio.new_event_loop()
    # It would print that tasks are destroyed.
    loop.set_exception_handler(lambda loop, context: None)
    provider: Provider = loop.run_until_complete(opened())
    tasks = [loop.create_task(quiet(provider.describe())) for _ in range(20)]
    loop.run_until_complete(asyncio.sleep(0))
    del tasks
    loop.close()
    gc.collect()

    async def again() -> str:
        async with provider:
            return (await provider.describe()).name

    assert asyncio.run(again()) == "memory"


async def quiet(work: Any) -> None:
    try:
        await work
    except BaseException:
        pass


async def opened() -> Provider:
    return await Provider.open("memory")


def test_a_provider_is_used_by_several_loops_at_the_same_time() -> None:
    provider = asyncio.run(opened())
    names: list[str] = []

    async def describe() -> None:
        found = await asyncio.gather(*(provider.describe() for _ in range(50)))
        names.extend(each.name for each in found)

    threads = [threading.Thread(target=lambda: asyncio.run(describe())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert names == ["memory"] * 200

    async def close() -> None:
        await provider.close()

    asyncio.run(close())


def test_a_read_of_one_loop_is_continued_in_another() -> None:
    async def first() -> tuple[Provider, Any]:
        provider = await Provider.open("memory")
        process = await (await provider.create()).start(["cat"])
        try:
            await asyncio.wait_for(process.stdout.read(), 0.2)
        except asyncio.TimeoutError:
            pass
        return provider, process

    async def second(provider: Provider, process: Any) -> bytes:
        async with provider, process:
            await process.write("x")
            await process.close_stdin()
            return bytes(await asyncio.wait_for(process.stdout.read_all(), DEADLINE))

    provider, process = asyncio.run(first())
    assert asyncio.run(second(provider, process)) in (b"x", b"")


# ---- fork ---------------------------------------------------------------------------------------------------------------


def in_child(results: Any) -> None:
    from sandbox_host.sync import Provider as SyncProvider

    async def use() -> str:
        try:
            await Provider.open("memory")
        except SandboxError as error:
            return f"{error.kind}: {error.message}"
        return "opened"

    results.put(asyncio.run(use()))
    try:
        SyncProvider.open("memory")
        results.put("opened")
    except SandboxError as error:
        results.put(f"{error.kind}: {error.message}")


@pytest.mark.asyncio
@pytest.mark.parametrize(("method", "wanted"), [("fork", "closed: "), ("spawn", "opened")])
async def test_a_child_process(memory: Provider, method: str, wanted: str) -> None:
    """A forked child gets an error that says what to do; a spawned one works. The parent works on."""
    context: Any = multiprocessing.get_context(method)
    results = context.Queue()
    child = context.Process(target=in_child, args=(results,))
    child.start()
    for _ in range(2):
        text = await asyncio.to_thread(results.get, True, DEADLINE)
        assert text.startswith(wanted), text
        assert method != "fork" or "spawn" in text
    await asyncio.to_thread(child.join, DEADLINE)
    assert child.exitcode == 0
    assert (await memory.describe()).name == "memory"


FORKED = """
    import asyncio, os, sys
    from sandbox_host import Provider
    async def main():
        provider = await Provider.open("memory")
        sandbox = await provider.create()
        process = await sandbox.start(["sleep", "600"])
        return provider, process
    kept = asyncio.run(main())
    child = os.fork()
    if child == 0:
        del kept
        sys.exit(7)   # runs the hooks of the exit
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_exits() -> None:
    assert ended_well(script(FORKED)).strip() == "7"


# ---- the exit of the interpreter ----------------------------------------------------------------------------------------

EXITS = {
    "tasks that nothing waits for": """
        async def main():
            sandbox = await (await Provider.open("modal")).create()
            print(sandbox.id, flush=True)
            loop = asyncio.get_running_loop()
            kept.extend(loop.create_task(sandbox.run("sleep 600")) for _ in range(20))
            await asyncio.sleep(1)
        asyncio.run(main())
    """,
    "a loop that is still open": """
        async def main():
            sandbox = await (await Provider.open("modal")).create()
            print(sandbox.id, flush=True)
            kept.append(sandbox)
            kept.extend(asyncio.ensure_future(sandbox.run("sleep 600")) for _ in range(20))
            await asyncio.sleep(1)
        loop = asyncio.new_event_loop()
        kept.append(loop)
        loop.run_until_complete(main())
    """,
    "a loop in a daemon thread": """
        import threading, time
        started = threading.Event()
        async def main():
            sandbox = await (await Provider.open("modal")).create()
            print(sandbox.id, flush=True)
            started.set()
            await asyncio.gather(*(sandbox.run("while :; do echo x; sleep 0.01; done") for _ in range(5)))
        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        started.wait(60)
        time.sleep(1)
    """,
    "synchronous calls in daemon threads": """
        import threading, time
        from sandbox_host.sync import Provider
        sandbox = Provider.open("modal").create()
        print(sandbox.id, flush=True)
        for _ in range(10):
            threading.Thread(target=sandbox.run, args=("sleep 600",), daemon=True).start()
        time.sleep(1)
    """,
    "sys.exit in a task": """
        import sys
        async def main():
            async with Provider.open("modal") as provider, provider.create() as sandbox:
                print(sandbox.id, flush=True)
                task = asyncio.ensure_future(sandbox.run("sleep 600"))
                await asyncio.sleep(1)
                sys.exit(0)
        asyncio.run(main())
    """,
    "objects that are never closed": """
        async def main():
            provider = await Provider.open("modal")
            sandbox = await provider.create()
            print(sandbox.id, flush=True)
            kept.extend([provider, sandbox, await sandbox.start("sleep 600")])
        asyncio.run(main())
    """,
}


@pytest.mark.asyncio
@pytest.mark.parametrize("case", EXITS)
async def test_the_interpreter_exits_with_commands_under_way(provider: Provider, case: str) -> None:
    code = "import asyncio\nfrom sandbox_host import Provider\nkept = []\n" + textwrap.dedent(EXITS[case])
    ran = await asyncio.to_thread(script, code)
    sandbox = provider.sandbox(ended_well(ran).split()[0])

    async def quiet_or_ended() -> bool:
        try:
            return await processes(sandbox, "600") == 0
        except SandboxError as error:
            return error.kind == "sandbox-ended"

    await until(quiet_or_ended, "the commands are killed")
    await sandbox.terminate()


@pytest.mark.parametrize("round", range(5))
def test_the_interpreter_exits_during_many_replies(round: int) -> None:
    code = """
        import asyncio, os, sys, threading, time
        from sandbox_host import Provider
        async def main():
            provider = await Provider.open("memory")
            while True:
                await asyncio.gather(*(provider.describe() for _ in range(100)))
        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        time.sleep(0.7 + 0.1 * int(sys.argv[1]))
    """
    ended_well(script(code, str(round)))


def test_nothing_is_loaded_for_an_exit_without_calls() -> None:
    assert ended_well(script("import sandbox_host._native")) == ""


@pytest.mark.asyncio
async def test_a_specification_is_frozen() -> None:
    spec = SandboxSpec()
    with pytest.raises(AttributeError):
        spec.name = "x"  # type: ignore[misc]


def test_the_process_is_not_littered() -> None:
    """No file descriptor is left open for each provider."""
    code = """
        import asyncio, os
        from sandbox_host import Provider
        async def main():
            counts = []
            for _ in range(3):
                for _ in range(5):
                    async with Provider.open("memory") as provider:
                        await provider.describe()
                counts.append(len(os.listdir("/proc/self/fd")))
            print(counts[-1] - counts[0])
        asyncio.run(main())
    """
    assert int(ended_well(script(code))) < 5
    assert os.getpid() > 0
