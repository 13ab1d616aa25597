"""Brings up the services of a sandbox with the code of `sandbox_host.compose`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from inspect_ai.util import SandboxUnavailableError, trace_action, trace_message
from sandbox_host.compose import startup
from sandbox_host.compose.container import SandboxLostError
from sandbox_host.compose.plan import Plan, Service
from sandbox_host.compose.specification import BuiltImage

from .container import Container
from .run import Created
from .traces import logger

if TYPE_CHECKING:
    from sandbox_host import Sandbox


async def start_services(created: Created, plan: Plan, images: Sequence[BuiltImage]) -> dict[str, Container]:
    """Waits until all services of a sandbox are ready, and returns their containers, the default service first.

    A sidecar that ends with exit code 0 has done its work. It is not among the containers.

    Raises:
        RuntimeError: if a service ended with another code, is not healthy or does not answer.
        SandboxUnavailableError: if the sandbox has ended.
        SandboxError: if a call failed for another reason.
    """
    try:
        return await startup.start_services(_Sample(created), plan, images)
    except SandboxLostError as lost:
        raise SandboxUnavailableError(str(lost)) from None


class _Sample:
    """The sandbox of a sample while its services start."""

    def __init__(self, created: Created) -> None:
        self.created = created

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox."""
        return self.created.sandbox

    def container(self, service: Service, sidecar: str | None, workdir: str) -> Container:
        """Returns the container of a service."""
        return Container(self.created, service.name, sidecar, workdir, service.user)

    def trace(self, action: str) -> AbstractContextManager[None]:
        """Records an action in Inspect's traces."""
        return trace_action(logger, self.created.kind.title, "%s in %s", action, self.created.id)

    def note(self, text: str) -> None:
        """Records a message in Inspect's traces."""
        trace_message(logger, self.created.kind.title, text)

    def warn(self, text: str) -> None:
        """Logs a warning once per run."""
        self.created.run.warn(text)
