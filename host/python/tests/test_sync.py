"""The synchronous facade."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sandbox_host
import sandbox_host.sync
from conftest import DEADLINE
from sandbox_host import Image, Progress, SandboxError
from sandbox_host.sync import Provider, Sandbox


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider.open("modal") as opened:
        yield opened


@pytest.fixture
def sandbox(provider: Provider) -> Iterator[Sandbox]:
    with provider.create() as created:
        yield created


def count(sandbox: Sandbox, mark: str) -> int:
    found = sandbox.run(
        'n=0; for f in /proc/[0-9]*/cmdline; do [ "$f" != /proc/$$/cmdline ] && '
        'tr "\\0" "\\n" <$f 2>/dev/null | grep -qx -- "$MARK" && n=$((n+1)); done; echo $n',
        env={"MARK": mark},
    )
    return int(found.check().stdout)


def until_count(sandbox: Sandbox, mark: str, wanted: int) -> None:
    end = time.monotonic() + DEADLINE
    while count(sandbox, mark) != wanted:
        assert time.monotonic() < end, f"not {wanted} processes within {DEADLINE} s"
        time.sleep(0.05)


@pytest.mark.parametrize("name", sandbox_host.sync.__all__)
def test_the_names_are_the_same(name: str) -> None:
    def public(kind: type) -> dict[str, list[str]]:
        methods = {key: value for key, value in vars(kind).items() if not key.startswith("_") and callable(value)}
        return {key: list(inspect.signature(value).parameters) for key, value in methods.items()}

    assert public(getattr(sandbox_host.sync, name)) == public(getattr(sandbox_host, name))
    assert not any(inspect.iscoroutinefunction(value) for value in vars(getattr(sandbox_host.sync, name)).values())


def test_commands_and_files(sandbox: Sandbox, tmp_path: Path) -> None:
    assert sandbox.run("echo $A", env={"A": "x"}).check().text == "x\n"
    sandbox.write_file("/tmp/a/file", b"content")
    assert sandbox.read_file("/tmp/a/file") == b"content"
    assert [each.name for each in sandbox.list_directory("/tmp/a")] == ["file"]
    sandbox.download_directory("/tmp/a", tmp_path / "a")
    assert (tmp_path / "a" / "file").read_text() == "content"
    with pytest.raises(SandboxError):
        sandbox.read_file("/tmp/none")


def test_transfers_report_their_progress(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    seen: list[Progress] = []
    assert sandbox.upload(tmp_path / "file", "/tmp/much", on_progress=seen.append) == 1_000_000
    assert seen[-1] == Progress(1_000_000, 1_000_000)
    transfer = sandbox.download_directory("/tmp", tmp_path / "back", on_progress=seen.append)
    assert seen[-1] == Progress(transfer.bytes)


def test_output_comes_while_the_command_runs(sandbox: Sandbox) -> None:
    with sandbox.start("echo one; read line; echo $line >&2; read line; echo $line") as process:
        output = iter(process)
        assert next(output).text == "one\n"
        process.write("two\n")
        chunk = next(output)
        assert (chunk.stream, chunk.text) == ("stderr", "two\n")
        process.write("three\n")
        assert [chunk.text for chunk in output] == ["three\n"]
        assert process.wait(DEADLINE).ok


def test_lines(sandbox: Sandbox) -> None:
    with sandbox.start("printf 'a\\nb\\nc'") as process:
        assert list(process.stdout.lines()) == ["a", "b", "c"]


def test_a_wait_with_a_limit(sandbox: Sandbox) -> None:
    with sandbox.start("read line") as process:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            process.wait(0.2)
        assert time.monotonic() - begun < 20
        process.write("\n")
        assert process.wait(DEADLINE).ok


def test_an_exception_in_the_iteration_kills_the_command(sandbox: Sandbox) -> None:
    mark = f"70{uuid.uuid4().int % 10**6}"
    with pytest.raises(ZeroDivisionError), sandbox.start(f"echo x; exec sleep {mark}") as process:
        for _ in process:
            raise ZeroDivisionError
    until_count(sandbox, mark, 0)


def test_a_build(provider: Provider) -> None:
    with provider.build(Image(commands=["RUN echo in-the-log"])) as build:
        assert "in-the-log" in "".join(chunk.text for chunk in build)
        assert provider.image(build.wait().id).id


def test_threads_wait_at_the_same_time(sandbox: Sandbox) -> None:
    barrier = "until [ $(ls /tmp/wait | wc -l) -ge 20 ]; do sleep 0.05; done"
    sandbox.make_directory("/tmp/wait")
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda number: sandbox.run(f": >/tmp/wait/{number}; {barrier}; echo {number}"), range(20)))
    assert [int(result.check().text) for result in results] == list(range(20))


def test_an_exception_of_a_signal_handler_kills_the_command(sandbox: Sandbox) -> None:
    """Ctrl-C is an exception of a signal handler."""
    mark = f"71{uuid.uuid4().int % 10**6}"
    main = threading.get_ident()

    def interrupt() -> None:
        until_count(sandbox, mark, 1)
        signal.pthread_kill(main, signal.SIGINT)

    # A program that a shell starts in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            sandbox.run(["sleep", mark])
        thread.join(DEADLINE)
    finally:
        signal.signal(signal.SIGINT, before)
    until_count(sandbox, mark, 0)


INTERRUPTED = """
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from sandbox_host.sync import Provider
    with Provider.open("modal") as provider:
        sandbox = provider.sandbox(sys.argv[1])
        if sys.argv[2] == "run":
            sandbox.run(["sleep", sys.argv[3]])
        elif sys.argv[2] == "iterate":
            with sandbox.start(["sleep", sys.argv[3]]) as process:
                for chunk in process:
                    print(chunk)
        else:
            with sandbox.start(["sleep", sys.argv[3]]) as process:
                process.wait()
"""


@pytest.mark.parametrize("how", ["run", "iterate", "wait"])
def test_ctrl_c_ends_a_script(sandbox: Sandbox, how: str) -> None:
    # The script handles the signal also if this program, started by a shell in the background, ignores it.
    mark = f"72{uuid.uuid4().int % 10**6}"
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), sandbox.id, how, mark]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as script:
        try:
            until_count(sandbox, mark, 1)
            script.send_signal(signal.SIGINT)
            _, said = script.communicate(timeout=DEADLINE)
        finally:
            script.kill()
    # The exit code of Python after a KeyboardInterrupt.
    assert script.returncode == -signal.SIGINT and said.rstrip().endswith("KeyboardInterrupt"), said
    until_count(sandbox, mark, 0)
