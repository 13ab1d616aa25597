"""Measures the official Python SDK of Modal."""

import asyncio

import modal
from measure import measure


async def main() -> None:
    app = await modal.App.lookup.aio("bench", create_if_missing=True)
    sandbox = await modal.Sandbox.create.aio(app=app)

    async def one() -> None:
        process = await sandbox.exec.aio("true")
        await process.stdout.read.aio()
        await process.stderr.read.aio()
        code = await process.wait.aio()
        if code != 0:
            raise RuntimeError(f"`true` exited with {code}")

    await measure(one)
    await sandbox.terminate.aio()


if __name__ == "__main__":
    asyncio.run(main())
