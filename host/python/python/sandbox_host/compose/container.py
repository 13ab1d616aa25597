"""What the start of services needs from the program that starts them: its containers, and where messages go."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol, TypeVar

from .plan import Service

if TYPE_CHECKING:
    from ..records import RunResult
    from ..sandbox import Sandbox


class StartError(RuntimeError):
    """A service does not start. The text names the service and the reason."""


class SandboxLostError(StartError):
    """The sandbox, or the container of a service, has ended while its service was starting."""


class Container(Protocol):
    """A running container of a sandbox."""

    @property
    def service(self) -> str:
        """The name of its service."""

    async def run(self, argv: list[str], *, user: str | None = None, timeout: float | None = None) -> RunResult:
        """Runs a command, by default as the user of the service.

        Raises:
            SandboxError: if the command could not be started or followed.
        """


C = TypeVar("C", bound=Container)
C_co = TypeVar("C_co", bound=Container, covariant=True)


class Surroundings(Protocol[C_co]):
    """The program that starts services in a sandbox."""

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox."""

    def container(self, service: Service, sidecar: str | None, workdir: str) -> C_co:
        """Returns the container of a service, which answers. `sidecar` is its name, or `None` for the sandbox's own."""

    def trace(self, action: str) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which the action happens, such as `add db`."""

    def note(self, text: str) -> None:
        """Records a detail for the search of faults."""

    def warn(self, text: str) -> None:
        """Shows a warning to the user."""
