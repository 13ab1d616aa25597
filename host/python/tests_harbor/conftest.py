"""Starts one emulator for all tests of a process, and makes environments of Harbor."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from sandbox_host import Provider, SandboxSpec

if TYPE_CHECKING:
    from sandbox_host.harbor import SandboxEnvironment

if sys.version_info < (3, 12) or importlib.util.find_spec("harbor") is None:
    collect_ignore_glob = ["test_*.py"]

# Nothing may leave this machine. Harbor reads these when it is imported.
os.environ.update({"HARBOR_TELEMETRY": "off", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1"})

DOCKERFILE = """\
FROM debian:13
RUN useradd --create-home --uid 1234 tester
ENV FROM_IMAGE=yes
WORKDIR /app
COPY words.txt ./
"""

OUTSIDE = "outside.example"
"""A name that resolves in sandboxes whose network is open, and in no others. No machine of this name is needed."""

HERE = Path(__file__).parent

Make = Callable[..., "SandboxEnvironment"]
Start = Callable[..., Awaitable["SandboxEnvironment"]]


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

    def ids(self) -> set[str]:
        """Returns the ids of all sandboxes, images and apps. What earlier tests left can still change, but not its id."""
        state = self.ask("state")
        return {each["id"] for each in state["sandboxes"] + state["apps"]} | set(state["images"])


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    process = subprocess.Popen(
        [os.environ["SANDBOX_PROGRAM"], "emulator", "--exit-with-stdin", "--network", "--resolve", f"{OUTSIDE}=192.0.2.7"],
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
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "MODAL_SERVER_URL": emulator.url,
            "MODAL_TOKEN_ID": "ak-test",
            "MODAL_TOKEN_SECRET": "as-test",
            "MODAL_CONFIG_PATH": os.devnull,
            "HOME": str(home),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(home / "cache"),
        }.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes environments that are not started. `config` are fields of `[environment]`, other arguments are options."""
    from harbor.models.task.config import EnvironmentConfig
    from harbor.models.trial.paths import TrialPaths
    from sandbox_host.harbor import SandboxEnvironment

    count = 0

    def made(*, config: dict[str, Any] | None = None, dockerfile: str | None = DOCKERFILE, **more: Any) -> SandboxEnvironment:
        nonlocal count
        count += 1
        definition = tmp_path / f"environment-{count}"
        definition.mkdir()
        (definition / "words.txt").write_text("pear\napple\n")
        if dockerfile is not None:
            (definition / "Dockerfile").write_text(dockerfile)
        trial = TrialPaths(tmp_path / f"trial-{count}")
        trial.mkdir()  # type: ignore[no-untyped-call]
        values: dict[str, Any] = {
            "environment_dir": definition,
            "environment_name": "tests",
            "session_id": f"{tmp_path.name}-{count}__env",
            "trial_paths": trial,
            "task_env_config": EnvironmentConfig(**(config or {})),
            "owner": None,
        }
        return SandboxEnvironment(**{**values, **more})

    return made


@pytest_asyncio.fixture
async def start(make: Make) -> AsyncIterator[Start]:
    """Makes and starts environments, which are stopped after the test."""
    started: list[SandboxEnvironment] = []

    async def begun(*, force_build: bool = False, **more: Any) -> SandboxEnvironment:
        environment = make(**more)
        started.append(environment)
        await environment.start(force_build=force_build)
        return environment

    yield begun
    for environment in started:
        await environment.stop(delete=True)


@pytest_asyncio.fixture
async def environment(start: Start) -> SandboxEnvironment:
    """A running environment."""
    return await start()


@pytest.fixture
def harbor(tmp_path: Path, emulator: Emulator) -> Any:
    """Runs the program `harbor` and returns its completed process. It must not try to reach another machine.

    With `until`, the process is interrupted as by Ctrl-C as soon as that function returns true.
    """
    tried = tmp_path / "tried"

    def run(
        *arguments: str | Path, check: bool = True, until: Callable[[], bool] | None = None
    ) -> subprocess.CompletedProcess[str]:
        more = [str(HERE), str(HERE / "offline"), os.environ.get("PYTHONPATH", "")]
        process = subprocess.Popen(
            [Path(sys.executable).with_name("harbor"), *arguments],
            env={**os.environ, "PYTHONPATH": ":".join(more), "TRIED_TO_REACH": str(tried), "COLUMNS": "200"},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            if until is not None:
                end = time.monotonic() + 240
                while not until():
                    assert process.poll() is None and time.monotonic() < end, "it ended before it was interrupted"
                    time.sleep(0.1)
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=400)
        finally:
            process.kill()
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        assert not tried.exists(), tried.read_text()
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> list[SandboxSpec]:
    """The definitions of the sandboxes that are created during a test."""
    seen: list[SandboxSpec] = []
    create = Provider.create

    def recorded(self: Provider, spec: SandboxSpec) -> Any:
        seen.append(spec)
        return create(self, spec)

    monkeypatch.setattr(Provider, "create", recorded)
    return seen
