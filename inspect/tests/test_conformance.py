"""Inspect's own 44 conformance checks, as root and as an unprivileged default user.

Two of the checks expect that a file without write permission cannot be written. Root can write it, so these two are expected to
fail as root.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv
from inspect_ai.util._sandbox.self_check import *  # noqa: F403
from inspect_modal_sandbox import ModalSandboxConfig

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT_CANNOT = {"test_write_text_file_without_permissions", "test_write_binary_file_without_permissions"}

IMAGES = Path(__file__).with_name("images")

CONFIGS = {
    "root": ModalSandboxConfig(image="debian:13"),
    "user": ModalSandboxConfig(dockerfile=str(IMAGES / "agent.Dockerfile"), user="agent"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(CONFIGS))
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, SandboxEnvironment]]:
    provider: Any = registry_find_sandboxenv("modal")
    config = CONFIGS[request.param]
    await provider.task_init("startup", config)
    environments = await provider.sample_init("self_check", config, {"__sample_id__": 1})
    try:
        environment = next(iter(environments.values()))
        # Some checks pass without testing anything if these programs are missing.
        for program in ("ps", "adduser"):
            assert (await environment.exec(["sh", "-c", f"command -v {program}"])).success, f"{program} is not there"
        yield request.param, environment
    finally:
        await provider.sample_cleanup("self_check", config, environments, False)
        await provider.task_cleanup("shutdown", config, True)


@pytest_asyncio.fixture(loop_scope="module")
async def sandbox_env(
    request: pytest.FixtureRequest, shared: tuple[str, SandboxEnvironment]
) -> AsyncIterator[SandboxEnvironment]:
    name, environment = shared
    if name == "root" and request.node.originalname in ROOT_CANNOT:
        request.node.add_marker(pytest.mark.xfail(strict=True))
    yield environment
