"""The start of a task: checks credentials, removes what earlier runs left, and builds the images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.util import trace_action
from sandbox_host import SandboxError

from .. import planning
from ..kinds import Kind
from ..plan import wants_cost
from ..provider import opened, owner
from .directories import note_directory
from .images import image_of
from .run import current_run
from .tags import OWNER_TAG
from .traces import logger
from .volumes import delete_volumes, volumes_of

if TYPE_CHECKING:
    from sandbox_host import Provider

MAX_SWEPT = 10_000
"""The number of sandboxes whose volumes a sweep looks up."""


async def prepare(kind: Kind, config: object) -> None:
    """Prepares a task: its credentials, leftovers and images. The build log goes to standard output.

    Raises:
        PrerequisiteError: if every sample would fail, for instance because an image cannot be built.
    """
    run = current_run()
    # A wrong value is an error now, and not at the end of each sample.
    wants_cost(kind)
    here = Path.cwd()
    note_directory(run, config, here)
    plan = planning.make(config, here, {}, kind)
    provider = await opened(plan, kind)
    if id(provider) not in run.swept:
        run.swept.add(id(provider))
        await _check_and_sweep(kind, provider)
    for warning in plan.warnings:
        run.warn(warning)
    for service in plan.services:
        await image_of(run, kind, provider, service, show_log=True)


async def _check_and_sweep(kind: Kind, provider: Provider) -> None:
    """Checks the credentials, and removes the sandboxes and volumes of earlier runs whose lease is over."""
    try:
        with trace_action(logger, kind.title, "check credentials"):
            await provider.check()
        with trace_action(logger, kind.title, "sweep"):
            # The tags, which name the volumes, cannot be read after the sweep.
            found = await provider.list(tags={OWNER_TAG: owner(kind)}, max=MAX_SWEPT, all_apps=True)
            volumes = {sandbox.id: volumes_of(sandbox.tags) for sandbox in found}
            swept = [sandbox.id for sandbox in await provider.sweep(owner(kind)) if sandbox.terminated]
            await delete_volumes(provider, [volume for id in swept for volume in volumes.get(id, [])], kind)
    except SandboxError as error:
        raise PrerequisiteError(error.message) from None
    if swept:
        print(f"Terminated {len(swept)} {kind.title} sandboxes that earlier runs left running: {', '.join(swept)}")
