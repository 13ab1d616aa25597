"""Inspect's own 44 conformance checks on a real dockerd and a real podman, as root and as an unprivileged default user."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from conformance import checked, expect_failure_of_root
from engines import KINDS, started
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox.self_check import *  # noqa: F403
from inspect_modal_sandbox import DockerEngineSandboxConfig

pytestmark = pytest.mark.asyncio(loop_scope="module")

IMAGE = str(Path(__file__).with_name("images") / "engine" / "Dockerfile")

CONFIGS = {
    "root": DockerEngineSandboxConfig(dockerfile=IMAGE),
    "user": DockerEngineSandboxConfig(dockerfile=IMAGE, user="agent"),
}


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with started(request.param) as host:
        yield host


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(CONFIGS))
async def shared(request: pytest.FixtureRequest, engine: str) -> AsyncIterator[tuple[str, SandboxEnvironment]]:
    async with checked("docker-engine", CONFIGS[request.param]) as environment:
        yield request.param, environment


@pytest_asyncio.fixture(loop_scope="module")
async def sandbox_env(
    request: pytest.FixtureRequest, shared: tuple[str, SandboxEnvironment]
) -> AsyncIterator[SandboxEnvironment]:
    name, environment = shared
    if name == "root":
        expect_failure_of_root(request)
    yield environment
