"""The start of a sample: creates its sandbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.util import trace_action
from sandbox_host import SandboxError

from .. import pacing, planning
from ..errors import SETTINGS, call_error, is_unknown_user
from ..kinds import Kind
from ..provider import opened
from .container import Container
from .directories import directory_of
from .ending import terminate, terminate_at_exit
from .images import image_of
from .run import Created, Run, current_run
from .services import start_services
from .specification import sandbox_specification
from .tags import sample_tags
from .traces import logger
from .volumes import delete_volumes, name_volumes

if TYPE_CHECKING:
    from sandbox_host import Provider, Sandbox, SandboxSpec

CONFIGURATION_ERRORS = SETTINGS | {"invalid-argument", "unsupported", "not-found"}
"""General kinds of a failed creation that the user has to fix. `not-found` is a secret or volume that does not exist."""


async def start(kind: Kind, task_name: str, config: object, metadata: Mapping[str, Any]) -> dict[str, Container]:
    """Creates the sandbox of a sample and returns its containers, the default one first.

    A sandbox whose services do not start is terminated again.

    Raises:
        PrerequisiteError: if the configuration or the credentials are wrong.
        SandboxUnavailableError: if the sandbox has ended.
        RuntimeError: if the sandbox or one of its services does not start for another reason.
    """
    run = current_run()
    plan = planning.make(config, directory_of(run, config, metadata, kind), metadata, kind)
    provider = await opened(plan, kind)
    terminate_at_exit()
    for warning in plan.warnings:
        run.warn(warning)
    images = [await image_of(run, kind, provider, service, show_log=False) for service in plan.services]
    tags = {**plan.tags, **sample_tags(task_name, metadata)}
    volumes = name_volumes(plan, tags)
    specification = sandbox_specification(plan, [image for image, _ in images], tags)
    begun = time.monotonic()
    if kind.paced:
        await pacing.turn(provider)
    asked = time.monotonic()
    try:
        sandbox = await _create(run, kind, provider, specification, tags, volumes)
    except SandboxError as error:
        with anyio.CancelScope(shield=True):
            await delete_volumes(provider, volumes, kind)
        if error.general_kind in CONFIGURATION_ERRORS:
            raise PrerequisiteError(error.message) from None
        raise RuntimeError(error.message) from None
    created = Created(sandbox, run, tags, volumes, has_ports=bool(plan.sandbox.get("ports")), kind=kind)
    created.metrics.create_secs = time.monotonic() - asked
    created.metrics.retries += sandbox.retries
    run.alive[sandbox.id] = created
    try:
        containers = await start_services(created, plan, images)
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await terminate(created)
        if isinstance(error, SandboxError):
            if is_unknown_user(error):
                raise PrerequisiteError(f"The configuration's user: {error.reason}") from None
            raise (call_error(error) or RuntimeError(error.message)) from None
        raise
    created.metrics.start_secs = time.monotonic() - begun
    return containers


async def _create(
    run: Run, kind: Kind, provider: Provider, specification: SandboxSpec, tags: dict[str, str], volumes: list[str]
) -> Sandbox:
    """Creates the sandbox.

    A request that was sent cannot be taken back. So the creation goes on after a cancellation, and its sandbox is put among
    those that the end of the tasks terminates.
    """

    async def creation() -> Sandbox:
        with trace_action(logger, kind.title, "create %s", specification.name):
            return await (pacing.create(provider, specification) if kind.paced else provider.create(specification))

    task = asyncio.ensure_future(creation())
    run.creating.add(task)
    task.add_done_callback(run.creating.discard)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:

        def abandoned(task: asyncio.Task[Sandbox]) -> None:
            if not task.cancelled() and task.exception() is None:
                sandbox = task.result()
                run.alive[sandbox.id] = Created(sandbox, run, tags, volumes, kind=kind)

        task.add_done_callback(abandoned)
        raise
