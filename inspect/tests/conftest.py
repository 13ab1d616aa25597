"""Starts one emulator for all tests and sets the environment variables by which the plugin finds it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from inspect_modal_sandbox.lifecycle.run import runs

OUTSIDE = "outside.example"
"""A name that resolves in sandboxes whose network is open, and in no others. No machine of this name is needed."""


class Emulator:
    """A running emulator."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, body: object = None, method: str | None = None) -> object:
        """Sends a request to `/emulator/…`, the interface for tests, and returns its JSON."""
        import json
        import urllib.request

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
        [program, "emulator", "--exit-with-stdin", "--network", "--resolve", f"{OUTSIDE}=192.0.2.7"],
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
        # All sandboxes end with the emulator, so this process must not try to terminate them when it exits.
        for run in runs:
            run.alive.clear()
        process.stdin.close()
        process.wait(timeout=60)


@pytest.fixture(scope="session", autouse=True)
def settings(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    values = {
        "MODAL_SERVER_URL": emulator.url,
        "MODAL_TOKEN_ID": "ak-test",
        "MODAL_TOKEN_SECRET": "as-test",
        "MODAL_CONFIG_PATH": os.devnull,
        "INSPECT_MODAL_CREATES_PER_SECOND": "0",
        "INSPECT_MODAL_OWNER": "inspect-tests",
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
