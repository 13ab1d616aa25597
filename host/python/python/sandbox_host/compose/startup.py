"""Brings up the services of a sandbox: waits for those that start with it, and adds those that wait for others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Generic, TypeVar

from ..errors import SandboxError
from .container import C, StartError, Surroundings
from .hosts import add_hosts, address_of
from .plan import Plan, Service
from .readiness import ServiceEnded, answering_container, check_running, unless_ended, wait_completed, wait_healthy
from .specification import BuiltImage, sidecar_specification

T = TypeVar("T")


async def start_services(around: Surroundings[C], plan: Plan, images: Sequence[BuiltImage]) -> dict[str, C]:
    """Waits until all services of a sandbox are ready, and returns their containers, the default service first.

    The sandbox was created with those services that are not among `plan.later()`. The others are added here. `images` are in
    the order of the services. A sidecar that ends with exit code 0 has done its work. It is not among the containers.

    Raises:
        StartError: if a service ended with another code, is not healthy or does not answer.
        SandboxLostError: if the sandbox has ended.
        SandboxError: if a call failed for another reason.
    """
    return await _Startup(around, plan, images).run()


class _Startup(Generic[C]):
    """The start of the services of one sandbox."""

    def __init__(self, around: Surroundings[C], plan: Plan, images: Sequence[BuiltImage]) -> None:
        self.around = around
        self.plan = plan
        self.images = {service.name: image for service, image in zip(plan.services, images, strict=True)}
        self.services = {service.name: service for service in plan.services}
        self.main = plan.services[0].name
        self.later = {service.name for service in plan.later()}
        """Services that are added to the running sandbox."""
        self.ending = {source for service in plan.services for source, wanted in service.after.items() if wanted == "completed"}
        """Services whose end others wait for. They may be over before they answer."""
        self.containers: dict[str, C] = {}
        self.addresses: dict[str, str] = {}
        self.healthy: set[str] = set()

    async def run(self) -> dict[str, C]:
        """Starts the services in the order of their dependencies."""
        await self._join([name for name in self.services if name not in self.later and name not in self.ending])
        await asyncio.gather(*[self._tell(name) for name in self.ending - self.later])
        for service in self.plan.services:
            if service.name in self.later:
                await self._add(service)
        for service in self.plan.services:
            if service.name not in self.ending:
                await self._be_healthy(service)
        for source, wanted in self.services[self.main].after.items():
            if wanted == "completed":
                await wait_completed(self.around, source)
        # Services that answered may have ended since.
        await asyncio.gather(
            *[self._or_ended(name, check_running(self.around, name)) for name in list(self.containers) if name != self.main]
        )
        return {name: self.containers[name] for name in self.services if name in self.containers}

    async def _or_ended(self, name: str, call: Coroutine[Any, Any, T]) -> T | None:
        """Returns the result of a call to a service, or `None` if the service has ended with exit code 0.

        Raises:
            StartError: if the service has ended with another code.
        """
        try:
            return await unless_ended(self.around, name, name != self.main, call)
        except ServiceEnded as ended:
            if ended.code != 0:
                raise StartError(str(ended)) from None
            self.containers.pop(name, None)
            self.addresses.pop(name, None)
            return None

    async def _add(self, service: Service) -> None:
        """Adds a service to the running sandbox, after what it waits for."""
        for source, wanted in service.after.items():
            if wanted == "healthy":
                await self._be_healthy(self.services[source])
            elif wanted == "completed":
                await wait_completed(self.around, source)
        specification = sidecar_specification(service, self.images[service.name][0])
        with self.around.trace(f"add {service.name}"):
            await self.around.sandbox.create_sidecar(specification)
        if service.name in self.ending:
            await self._tell(service.name)
        else:
            await self._join([service.name])

    async def _tell(self, name: str) -> None:
        """Lets a service whose end others wait for reach the running ones by name, unless it is over already."""
        # How it ended is reported by the wait for its end.
        with contextlib.suppress(StartError, SandboxError):
            await self._join([name])
        self.containers.pop(name, None)
        self.addresses.pop(name, None)

    async def _be_healthy(self, service: Service) -> None:
        """Waits until a service is healthy, once."""
        if service.healthcheck is None or service.name in self.healthy:
            return
        if service.name in self.containers:
            await self._or_ended(service.name, wait_healthy(self.containers[service.name], service.healthcheck))
        if service.name not in self.containers:
            waiting = [other.name for other in self.plan.services if other.after.get(service.name) == "healthy"]
            if waiting:
                raise StartError(f"The service '{service.name}' has ended, and {', '.join(waiting)} waits for its health.")
        self.healthy.add(service.name)

    async def _join(self, names: list[str]) -> None:
        """Waits until these containers answer. Then they and the earlier ones learn the names of each other."""
        await asyncio.gather(*[self._look(name) for name in names])
        calls = []
        for name, container in self.containers.items():
            pairs = [] if len(self.services) == 1 else self._names_for(name, list(self.containers) if name in names else names)
            if name in names:
                pairs += [(address, host) for host, address in self.services[name].hosts.items()]
            if pairs:
                calls.append(self._or_ended(name, add_hosts(container, pairs, self.around.warn)))
        await asyncio.gather(*calls)

    async def _look(self, name: str) -> None:
        """Waits until a container answers, and reads its address."""
        sidecar = None if name == self.main else name
        call = answering_container(self.around, self.services[name], sidecar, self.images[name][1])
        container = await self._or_ended(name, call)
        if container is None:
            return
        self.containers[name] = container
        address = await self._or_ended(name, address_of(container)) if len(self.services) > 1 else ""
        if address is not None:
            self.addresses[name] = address

    def _names_for(self, name: str, others: Iterable[str]) -> list[tuple[str, str]]:
        """Returns pairs of address and name by which a service reaches the others, and itself."""
        # No service reaches a container without an address, so all learn that its name means the loopback address.
        near = {name, *self.services[name].peers}
        known = [other for other in others if other in self.addresses and (other in near or not self.addresses[other])]
        return [(self.addresses[other], alias) for other in known for alias in (other, *self.services[other].names)]
