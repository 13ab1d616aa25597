"""Starts one emulator for all tests of a process, and opens providers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from sandbox_host import Provider, Sandbox

DEADLINE = 60.0
"""How long a test waits for a state, in seconds."""


class Emulator:
    """A running emulator."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, body: object = None, method: str | None = None) -> Any:
        """Sends a request to `/emulator/…`, the interface for tests, and returns its JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/emulator/{path}", data, {"content-type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    program = os.environ["SANDBOX_PROGRAM"]
    process = subprocess.Popen(
        [program, "emulator", "--exit-with-stdin", "--network"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    name, _, url = process.stdout.readline().strip().partition("=")
    assert name == "MODAL_SERVER_URL", "the emulator did not start"
    try:
        yield Emulator(url)
    finally:
        process.stdin.close()
        process.wait(timeout=60)


@pytest.fixture(scope="session", autouse=True)
def settings(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sets the variables by which providers, also of child processes, find the emulator."""
    values = {
        "MODAL_SERVER_URL": emulator.url,
        "MODAL_TOKEN_ID": "ak-test",
        "MODAL_TOKEN_SECRET": "as-test",
        "MODAL_CONFIG_PATH": os.devnull,
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(tmp_path_factory.mktemp("cache")),
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[Provider]:
    """The provider for Modal, on the emulator."""
    async with Provider.open("modal") as opened:
        yield opened


@pytest_asyncio.fixture
async def memory() -> AsyncIterator[Provider]:
    """The provider with sandboxes in memory."""
    async with Provider.open("memory") as opened:
        yield opened


@pytest_asyncio.fixture
async def sandbox(provider: Provider) -> AsyncIterator[Sandbox]:
    """A sandbox of the emulator."""
    async with provider.create() as created:
        yield created


async def until(check: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits until a check returns true."""
    end = time.monotonic() + DEADLINE
    while not await check():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        await asyncio.sleep(0.05)


async def processes(sandbox: Sandbox, mark: str) -> int:
    """Returns the number of processes in a sandbox with this argument."""
    found = await sandbox.run(
        'n=0; for f in /proc/[0-9]*/cmdline; do [ "$f" != /proc/$$/cmdline ] && '
        'tr "\\0" "\\n" <$f 2>/dev/null | grep -qx -- "$MARK" && n=$((n+1)); done; echo $n',
        env={"MARK": mark},
    )
    return int(found.check().stdout)
