"""The cost of the sandbox of a sample, for the sample's log (`samplelog`)."""

from __future__ import annotations

from typing import Any

import anyio
from inspect_ai.util import trace_action, trace_message

from ..plan import wants_cost
from .run import Created
from .traces import logger

COST_SECS = 5.0
"""How long the end of a sample waits for the cost of its sandbox."""


async def cost_of(created: Created) -> dict[str, Any]:
    """Returns the cost of a sandbox, as the service reports it.

    Returns an empty dictionary if the cost is switched off, is not known in time, or the request fails.
    """
    try:
        if not wants_cost(created.kind):
            return {}
        with anyio.fail_after(COST_SECS), trace_action(logger, created.kind.title, "cost of %s", created.id):
            usage = await created.sandbox.usage()
    except Exception as error:
        trace_message(logger, created.kind.title, f"The cost of {created.id} could not be read: {error}")
        return {}
    memory = usage.billed_memory_mib_seconds
    return {
        "cost_usd": usage.cost,
        "cost_by_resource_usd": usage.cost_by_resource,
        "billed_cpu_core_secs": usage.billed_cpu_core_seconds,
        "billed_memory_gib_secs": None if memory is None else memory / 1024,
    }
