"""Inspect's own 44 conformance checks, as root and as an unprivileged default user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from conformance import checked, expect_failure_of_root
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox.self_check import *  # noqa: F403
from inspect_modal_sandbox import ModalSandboxConfig

pytestmark = pytest.mark.asyncio(loop_scope="module")

IMAGES = Path(__file__).with_name("images")

CONFIGS = {
    "root": ModalSandboxConfig(image="debian:13"),
    "user": ModalSandboxConfig(dockerfile=str(IMAGES / "agent.Dockerfile"), user="agent"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(CONFIGS))
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, SandboxEnvironment]]:
    async with checked("modal", CONFIGS[request.param]) as environment:
        yield request.param, environment


@pytest_asyncio.fixture(loop_scope="module")
async def sandbox_env(
    request: pytest.FixtureRequest, shared: tuple[str, SandboxEnvironment]
) -> AsyncIterator[SandboxEnvironment]:
    name, environment = shared
    if name == "root":
        expect_failure_of_root(request)
    yield environment
