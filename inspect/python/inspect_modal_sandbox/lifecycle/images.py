"""Builds the images of services, each definition once per run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.util import trace_action
from sandbox_host import SandboxError
from sandbox_host.compose.envfile import metadata_variable
from sandbox_host.compose.plan import Service, image_key
from sandbox_host.compose.specification import BuiltImage, directories_definition, image_specification

from .. import planning
from ..kinds import MODAL, Kind
from .run import Run
from .traces import logger

if TYPE_CHECKING:
    from sandbox_host import Provider


def image_variables(config: object, metadata: Mapping[str, Any], kind: Kind = MODAL) -> dict[str, str]:
    """Returns the variables for which Inspect has to call `task_init` with this sample's values.

    These are the variables of the sample's metadata, if the images of the configuration depend on them.
    """
    from inspect_ai.util import ComposeConfig

    if not metadata:
        return {}
    if isinstance(config, ComposeConfig):
        text = config.model_dump_json()
    elif isinstance(config, str):
        try:
            text = (Path.cwd() / config).read_text()
        except (OSError, UnicodeDecodeError):
            return {}
    else:
        return {}
    # Included and extended files may refer to variables that this text does not contain.
    refers_to_files = "include:" in text or "extends:" in text
    names = {metadata_variable(key): str(value) for key, value in metadata.items()}
    variables = {name: value for name, value in names.items() if refers_to_files or name in text}
    if not variables:
        return {}

    def images(metadata: Mapping[str, Any]) -> list[str] | None:
        try:
            return [service.image_key() for service in planning.make(config, Path.cwd(), metadata, kind).services]
        except PrerequisiteError:
            return None

    return variables if images(metadata) != images({}) else {}


async def image_of(run: Run, kind: Kind, provider: Provider, service: Service, *, show_log: bool) -> BuiltImage:
    """Returns the image of a service, in which the directories exist that the service needs.

    Raises:
        PrerequisiteError: if it cannot be built.
    """
    built = await _built(run, kind, provider, service.name, service.image, show_log)
    if not service.directories:
        return built
    definition = directories_definition(built, service.directories, as_volumes=kind.makes_volumes)
    return await _built(run, kind, provider, service.name, definition, show_log)


async def _built(run: Run, kind: Kind, provider: Provider, service: str, image: dict[str, Any], show_log: bool) -> BuiltImage:
    """Builds an image, unless this run has built it already."""
    key = (id(provider), image_key(image))
    async with run.building.setdefault(key, asyncio.Lock()):
        if key in run.images:
            return run.images[key]
        try:
            with trace_action(logger, kind.title, "build the image of %s", service):
                async with provider.build(image_specification(image)) as build:
                    for entry in build.skipped:
                        run.warn(f"The image of the service '{service}': not in the build context: {entry}")
                    announced = False
                    async for chunk in build:
                        if not show_log:
                            continue
                        if not announced:
                            print(f"Building the image of the service '{service}' on {kind.title}")
                            announced = True
                        print(chunk.text, end="" if chunk.text.endswith("\n") else "\n", flush=True)
                    built = await build.wait()
        except SandboxError as error:
            raise PrerequisiteError(f"The image of the service '{service}': {error.message}") from None
        run.images[key] = (built.id, built.workdir)
        return run.images[key]
