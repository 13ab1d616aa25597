"""Measures the Python package of this repository."""

# This package is installed in the environment of the benchmark only.
# mypy: disable-error-code="import-not-found"

import asyncio

import sandbox_host
from measure import measure


async def main() -> None:
    async with sandbox_host.Provider.open("modal") as provider, provider.create() as sandbox:

        async def one() -> None:
            result = await sandbox.run(["true"])
            if result.exit_code != 0:
                raise RuntimeError(f"`true` ended with {result.verdict}")

        await measure(one)


if __name__ == "__main__":
    asyncio.run(main())
