"""Measures the official Python SDK for the benchmark of the host.

Arguments: the number of execs one after another, the total number of concurrent execs, and how many of them run at the
same time. Prints the CPU seconds per exec and the concurrent execs per second.
"""

import asyncio
import resource
import sys
import time

import modal


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def one(sandbox: modal.Sandbox) -> None:
    process = await sandbox.exec.aio("true")
    await process.stdout.read.aio()
    await process.stderr.read.aio()
    code = await process.wait.aio()
    if code != 0:
        raise RuntimeError(f"`true` exited with {code}")


async def main(small: int, many: int, in_flight: int) -> None:
    app = await modal.App.lookup.aio("bench", create_if_missing=True)
    sandbox = await modal.Sandbox.create.aio(app=app)
    for _ in range(10):
        await one(sandbox)
    before = cpu()
    for _ in range(small):
        await one(sandbox)
    cost = (cpu() - before) / small

    permits = asyncio.Semaphore(in_flight)

    async def permitted() -> None:
        async with permits:
            await one(sandbox)

    begun = time.monotonic()
    await asyncio.gather(*(permitted() for _ in range(many)))
    rate = many / (time.monotonic() - begun)
    await sandbox.terminate.aio()
    print(cost, rate)


if __name__ == "__main__":
    asyncio.run(main(*(int(word) for word in sys.argv[1:4])))
