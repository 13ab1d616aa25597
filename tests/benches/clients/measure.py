"""Measures a client: commands per second, and CPU time per command.

The programs beside this file give a function that runs `true` once in a sandbox.
"""

import asyncio
import resource
import sys
import time
from collections.abc import Awaitable, Callable


def cpu() -> float:
    """Returns the CPU seconds of this process and its ended children."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


async def measure(one: Callable[[], Awaitable[None]]) -> None:
    """Prints a line for each number of commands in flight: the number, commands per second, CPU milliseconds per command.

    The arguments of the program are the number of commands and the numbers in flight.
    """
    total, *in_flight = (int(word) for word in sys.argv[1:])
    for _ in range(10):
        await one()
    for number in in_flight:
        permits = asyncio.Semaphore(number)

        async def permitted(permits: asyncio.Semaphore = permits) -> None:
            async with permits:
                await one()

        await asyncio.gather(*(permitted() for _ in range(number)))
        spent, begun = cpu(), time.monotonic()
        await asyncio.gather(*(permitted() for _ in range(total)))
        seconds, spent = time.monotonic() - begun, cpu() - spent
        print(number, total / seconds, spent / total * 1000, flush=True)
