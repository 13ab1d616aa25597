"""Volumes that belong to one sample: their names, and their deletion."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from inspect_ai.util import trace_action, trace_message
from sandbox_host import SandboxError
from sandbox_host.compose.plan import Plan

from ..kinds import Kind
from .tags import PREFIX, VOLUMES_TAG, readable_name
from .traces import logger

if TYPE_CHECKING:
    from sandbox_host import Provider


def name_volumes(plan: Plan, tags: dict[str, str]) -> list[str]:
    """Gives the sample's own volumes unique names, in the plan, and returns the names.

    Adds a tag to `tags` from which `volumes_of` finds the names when only the sandbox is known.
    """
    run = re.sub(r"[^A-Za-z0-9]", "", tags.get(f"{PREFIX}-run", ""))[:8]
    parts = (PREFIX, run, readable_name(tags)[:24].strip("-."), uuid.uuid4().hex[:8])
    prefix = "-".join(part for part in parts if part)
    names: dict[str, str] = {}
    for service in plan.services:
        for volume in service.volumes:
            if volume.pop("sample", False):
                volume["volume"] = names.setdefault(volume["volume"], f"{prefix}.{len(names)}")
    if names:
        tags[VOLUMES_TAG] = f"{prefix}.{len(names)}"
    return list(names.values())


def volumes_of(tags: Mapping[str, str]) -> list[str]:
    """Returns the names of the volumes that belong to the sandbox with these tags."""
    prefix, _, number = tags.get(VOLUMES_TAG, "").rpartition(".")
    return [f"{prefix}.{index}" for index in range(int(number))] if prefix and number.isdigit() else []


async def delete_volumes(provider: Provider, volumes: Iterable[str], kind: Kind) -> bool:
    """Deletes volumes. Returns false if one may be left; the reason is in the trace."""
    done = True
    for volume in volumes:
        try:
            with trace_action(logger, kind.title, "delete the volume %s", volume):
                await provider.delete_volume(volume)
        except SandboxError as error:
            if error.kind != "not-found":
                trace_message(logger, kind.title, f"The volume {volume} was not deleted: {error.message}")
                done = False
    return done
