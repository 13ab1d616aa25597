"""The end of sandboxes: with their sample, with the tasks, or with the process."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
from logging import getLogger
from typing import Any

import anyio
from inspect_ai.util import trace_action, trace_message
from sandbox_host import SandboxError

from ..kinds import Kind
from .cost import cost_of
from .run import Created, current_run, runs
from .samplelog import write_metrics
from .tags import KEPT_TAG, LEASE_TAG, PREFIX
from .traces import logger as traces
from .volumes import delete_volumes

logger = getLogger(__name__)

END_SECS = 60.0
"""How long the end of the tasks waits for creations under way, and for each termination."""

EXIT_SECS = 20.0
"""How long the end of the process waits for all terminations."""

CONCURRENT_TERMINATIONS = 20
"""Sandboxes that the end of the tasks terminates at the same time."""


async def finish(created: Created, interrupted: bool) -> None:
    """Ends the sandbox of a sample that is over, and writes what it did and cost into the sample's log.

    After an interruption the sandbox is left to the end of the tasks, which shows its progress to the user.
    """
    cost: dict[str, Any] = {}
    try:
        if not interrupted:
            await terminate(created)
            cost = await cost_of(created)
    finally:
        write_metrics(created, cost)


async def terminate(created: Created) -> bool:
    """Terminates a sandbox and deletes its volumes.

    Returns false if something is left. The reason is in the trace, and the end of the tasks tries again.
    """
    try:
        with trace_action(traces, created.kind.title, "terminate %s", created.id):
            await created.sandbox.terminate()
    except SandboxError as error:
        if error.kind != "not-found":
            trace_message(traces, created.kind.title, f"{created.id} was not terminated: {error.message}")
            return False
    if not await delete_volumes(created.provider, created.volumes, created.kind):
        return False
    created.run.alive.pop(created.id, None)
    return True


async def end(kind: Kind, cleanup: bool) -> None:
    """Terminates what is left of a sandbox type at the end of the tasks.

    If `cleanup` is false, prints what is left and how to end it.
    """
    run = current_run()
    if run.creating:
        with anyio.move_on_after(END_SECS):
            await asyncio.gather(*run.creating, return_exceptions=True)
    left = [created for created in run.alive.values() if created.kind is kind]
    if not left:
        return
    if not cleanup:
        await _keep(kind, left)
        return
    print(_terminating(left))
    slots = asyncio.Semaphore(CONCURRENT_TERMINATIONS)

    async def terminate_in_turn(created: Created) -> None:
        async with slots:
            with anyio.move_on_after(END_SECS):
                await terminate(created)

    await asyncio.gather(*[terminate_in_turn(created) for created in left])
    if failed := _still_alive(left):
        logger.warning("%s", _not_terminated(failed))


@functools.cache
def terminate_at_exit() -> None:
    """Makes the end of the process terminate what is left.

    A second Ctrl-C ends the event loop before `end` can run. Must be called after a provider was opened: then the host library
    has registered the hook that ends its threads, and hooks run in reverse order.
    """
    atexit.register(_at_exit, os.getpid())


def _at_exit(process: int) -> None:
    left = [created for run in runs for created in run.alive.values()]
    # A forked process inherits the hook, but not the sandboxes.
    if not left or os.getpid() != process:
        return
    print(_terminating(left), flush=True)

    async def terminate_all() -> None:
        with anyio.move_on_after(EXIT_SECS):
            await asyncio.gather(*[terminate(created) for created in left])

    # One more interruption ends the wait.
    with contextlib.suppress(Exception, KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(terminate_all())
    if failed := _still_alive(left):
        print(_not_terminated(failed), flush=True)


def _terminating(left: list[Created]) -> str:
    titles = " and ".join(sorted({created.kind.title for created in left}))
    return f"Terminating {len(left)} {titles} sandboxes (please do not interrupt this)"


def _still_alive(created: list[Created]) -> list[Created]:
    """Returns those that were not terminated."""
    return [one for one in created if one.id in one.run.alive]


def _not_terminated(left: list[Created]) -> str:
    commands = " and ".join(f"`inspect sandbox cleanup {name}`" for name in sorted({created.kind.name for created in left}))
    ids = ", ".join(created.id for created in left)
    return f"Not terminated: {ids}. They end by themselves; sooner with {commands}."


async def _keep(kind: Kind, left: list[Created]) -> None:
    """Removes the leases, so that no sweep terminates these sandboxes, and prints how to use and end them."""
    print(f"These {kind.title} sandboxes keep running:")
    program = " ".join(["sandbox-host", *kind.arguments])
    for created in left:
        try:
            tags = await created.sandbox.tags()
            tags.pop(LEASE_TAG, None)
            await created.sandbox.release()
            await created.sandbox.set_tags({**tags, KEPT_TAG: "yes"})
        except SandboxError as error:
            trace_message(traces, created.kind.title, f"{created.id} keeps its lease: {error.message}")
        created.run.alive.pop(created.id, None)
        sample = created.tags.get(f"{PREFIX}-sample", "")
        print(f"  {created.id}  {created.tags.get(f'{PREFIX}-task', '')} {sample}".rstrip())
        print(f"    shell:   {program} shell {created.id}")
        print(f"    cleanup: inspect sandbox cleanup {kind.name} {created.id}")
    print(f"All of them: inspect sandbox cleanup {kind.name}")
