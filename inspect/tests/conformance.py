"""One sandbox for Inspect's own 44 conformance checks (`inspect_ai.util._sandbox.self_check`).

Two of the checks expect that a file without write permission cannot be written. Root can write it, so these two are expected to
fail as root.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv

ROOT_CANNOT = {"test_write_text_file_without_permissions", "test_write_binary_file_without_permissions"}


@asynccontextmanager
async def checked(kind: str, config: object) -> AsyncIterator[SandboxEnvironment]:
    """Starts a sandbox of this type in which the checks can be run, and ends it."""
    provider: Any = registry_find_sandboxenv(kind)
    await provider.task_init("startup", config)
    environments = await provider.sample_init("self_check", config, {"__sample_id__": 1})
    try:
        environment = next(iter(environments.values()))
        # Some checks pass without testing anything if these programs are missing.
        for program in ("ps", "adduser"):
            assert (await environment.exec(["sh", "-c", f"command -v {program}"])).success, f"{program} is not there"
        yield environment
    finally:
        await provider.sample_cleanup("self_check", config, environments, False)
        await provider.task_cleanup("shutdown", config, True)


def expect_failure_of_root(request: pytest.FixtureRequest) -> None:
    """Marks the running check as one that fails, if root cannot pass it."""
    if request.node.originalname in ROOT_CANNOT:
        request.node.add_marker(pytest.mark.xfail(strict=True))
