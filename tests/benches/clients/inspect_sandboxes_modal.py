"""Measures the package inspect_sandboxes, which runs commands through the official Python SDK."""

# This package is installed in the environment of the benchmark only.
# mypy: disable-error-code="import-not-found"

import asyncio

from inspect_ai.util import SandboxEnvironment
from inspect_sandboxes.modal._modal import ModalSandboxEnvironment, sandbox_cleanup_startup
from measure import measure


async def main() -> None:
    sandbox_cleanup_startup()
    environments: dict[str, SandboxEnvironment] = await ModalSandboxEnvironment.sample_init("bench", None, {})
    sandbox = next(iter(environments.values()))

    async def one() -> None:
        result = await sandbox.exec(["true"])
        if not result.success:
            raise RuntimeError(f"`true` exited with {result.returncode}")

    await measure(one)
    await ModalSandboxEnvironment.sample_cleanup("bench", None, environments, False)


if __name__ == "__main__":
    asyncio.run(main())
