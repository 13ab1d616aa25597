"""The sandbox type `docker-engine` on a real dockerd and a real podman: evaluations, compose files, networks and clean-up."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import KINDS, started
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv
from inspect_modal_sandbox import DockerEngineSandboxConfig, DockerEngineSandboxEnvironment
from inspect_modal_sandbox.kinds import DOCKER_ENGINE
from inspect_modal_sandbox.provider import opened
from test_evals import Evaluation, all_correct

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = DockerEngineSandboxConfig(image="tools:latest")

COMPOSE = """
services:
  default:
    image: tools:latest
    command: tail -f /dev/null
    hostname: box
    user: agent
    working_dir: /srv/work
    environment: {WHERE: here}
    cap_drop: [NET_RAW]
    shm_size: 24m
    mem_limit: 200m
    ports: ["7000"]
    volumes: ["./note.txt:/note.txt:ro", "data:/data"]
    healthcheck: {test: [CMD, test, -e, /note.txt], interval: 1s}
volumes: {data: {}}
"""


@pytest.fixture(scope="module", autouse=True, params=KINDS)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with started(request.param) as host:
        os.environ["INSPECT_DOCKER_ENGINE_OWNER"] = "inspect-tests"
        yield host
        del os.environ["INSPECT_DOCKER_ENGINE_OWNER"]


def provider(kind: str = "docker-engine") -> Any:
    return registry_find_sandboxenv(kind)


async def fresh(config: object = CONFIG) -> tuple[dict[str, SandboxEnvironment], DockerEngineSandboxEnvironment]:
    environments: dict[str, SandboxEnvironment] = await provider().sample_init("engine", config, {"__sample_id__": 1})
    environment = environments["default"]
    assert isinstance(environment, DockerEngineSandboxEnvironment)
    return environments, environment


async def left() -> list[str]:
    """Returns the ids of this owner's sandboxes that are still running."""
    found = await (await opened(kind=DOCKER_ENGINE)).list(tags={"sandbox-owner": "inspect-tests"})
    return [sandbox.id for sandbox in found]


async def said(environment: SandboxEnvironment, command: str) -> str:
    result = await environment.exec(["sh", "-c", command], timeout=60)
    assert result.success, result
    return result.stdout.strip()


async def test_a_task_for_docker_runs_on_an_engine(tmp_path: Path) -> None:
    words = ["eval", "tests/tasks.py@written_for_docker", "-T", "image=tools:latest", "--sandbox", "docker-engine"]
    done = await asyncio.to_thread(Evaluation, words, tmp_path)
    log = done.log("written_for_docker")
    assert all_correct(log) and log.samples
    (about,) = [event.data for event in log.samples[0].events if event.event == "info" and event.source == "docker-engine"]
    assert isinstance(about, dict) and about["execs"] and "cost_usd" not in about
    assert await left() == []


async def test_a_compose_file(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("noted\n")
    path = tmp_path / "compose.yaml"
    path.write_text(COMPOSE)
    await provider().task_init("engine", str(path))
    environments, environment = await fresh(str(path))
    try:
        assert await said(environment, 'echo "$(hostname) $(id -un) $(pwd) $WHERE"') == "box agent /srv/work here"
        assert await said(environment, "test -d /data && cat /note.txt") == "noted"
        assert await said(environment, "df -m /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2") == "24"
        connection = await environment.connection()
        assert connection.type == "docker-engine" and connection.container == environment.created.id
        words = shlex.split(connection.command)
        assert words[1:] == ["--plugin", "docker", "shell", environment.created.id, "--user", "agent"]
        assert connection.ports
        (port,) = connection.ports
        (mapping,) = port.mappings
        assert (port.container_port, mapping.host_ip) == (7000, "127.0.0.1")
        await said(environment, "(nc -l -p 7000 -e echo served >/dev/null 2>&1 &)")
        assert await until_served(mapping.host_port) == b"served\n"
    finally:
        await provider().sample_cleanup("engine", str(path), environments, False)
    assert await left() == []


async def until_served(port: int) -> bytes:
    """Connects to a port until there is an answer, for at most 30 seconds."""
    for _ in range(300):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            data = await reader.read()
            writer.close()
            if data:
                return data
        except OSError:
            pass
        await asyncio.sleep(0.1)
    return b""


@pytest.mark.parametrize(("network", "interfaces"), [("blocked", 1), ("open", 2)])
async def test_the_network(network: str, interfaces: int) -> None:
    config = DockerEngineSandboxConfig.model_validate({"image": "tools:latest", "network": network})
    environments, environment = await fresh(config)
    try:
        assert await said(environment, "tail -n +3 /proc/net/dev | grep -c -E '^ *(lo|eth)'") == str(interfaces)
    finally:
        await provider().sample_cleanup("engine", config, environments, False)


async def test_the_end_of_a_task_ends_sandboxes_of_its_own_type_only(capsys: pytest.CaptureFixture[str]) -> None:
    _, environment = await fresh()
    await provider("modal").task_cleanup("engine", None, True)
    assert await left() == [environment.created.id]
    await provider().task_cleanup("engine", CONFIG, True)
    assert await left() == []
    assert "Terminating 1 Docker sandboxes" in capsys.readouterr().out


async def test_cleanup_by_the_command_line(engine: str) -> None:
    _, environment = await fresh()
    command = [str(Path(sys.executable).with_name("inspect")), "sandbox", "cleanup", "docker-engine"]

    def cleanup() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)

    done = await asyncio.to_thread(cleanup)
    assert done.returncode == 0 and f"Terminated {environment.created.id}" in done.stdout, done
    assert f"on the engine at {engine}" in done.stdout and "odal" not in done.stdout
    assert await left() == []
    environment.created.run.alive.clear()
