"""The services of Harbor's compose tasks: the plan for their files, and their containers.

Harbor merges a file of its own, the `docker-compose.yaml` of the task and further files of the run. The service `main` is the
container in which the agent works, and becomes the sandbox's own container. The other services become sidecars.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .compose.container import StartError
from .compose.document import Source, read
from .compose.keys import REFUSED, WARNED
from .compose.plan import ComposeError, Plan, Service
from .compose.specification import BuiltImage, network, sidecar_specification
from .compose.startup import start_services
from .compose.translate import of_document
from .records import RunResult
from .sandbox import Sandbox
from .specs import Gpu, Image, Network, SandboxSpec, VolumeMount

__all__ = ["MAIN", "ComposeError", "Files", "Services", "StartError", "make_plan", "name_volumes", "with_services"]

MAIN = "main"
"""The service in which the agent works."""

IDLE = ["sh", "-c", "sleep infinity"]
"""The command of `main` unless a compose file gives another one, as in Harbor's own environments."""


@dataclass(frozen=True)
class Traits:
    """What the reader of compose files has to know. See `compose.traits.Traits`."""

    title: str
    """The name of the provider."""
    secrets: bool
    """Whether the provider stores secrets."""
    gpu_models: bool
    """Whether the provider chooses GPUs by their model."""
    name: str = "sandbox-host"
    port_kind: str = "tls"
    services: bool = True
    extensions: frozenset[str] | None = frozenset()
    options: Mapping[str, str] = field(default_factory=dict)
    main_service: str | None = MAIN
    strict: bool = True

    @property
    def at(self) -> str:
        """Where volumes are."""
        return f"of the provider {self.title}"

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why keys have no effect or are refused. The reasons of the reader speak of Modal."""
        texts = {key: text.replace("Modal", "the provider") for key, text in (WARNED | REFUSED).items()}
        return {**texts, "secrets": "put the files into the image, or use the option `secrets`"}


@dataclass(frozen=True)
class Files:
    """The compose files of a task, and what Harbor adds to them."""

    directory: Path
    """The directory of the environment, at which relative paths start."""
    paths: Sequence[Path]
    """The files. Later ones win."""
    variables: Mapping[str, str]
    """The values of variables in the files. They precede those of this process."""
    prebuilt: str | None
    """The image of `main`, or `None` if it is built from the Dockerfile in the directory."""
    logs: Sequence[str]
    """The directories of the trial in `main`."""


def make_plan(files: Files, traits: Traits) -> Plan:
    """Returns the plan for the compose files of a task.

    Raises:
        ComposeError: if a file cannot be read, or has a key or value that is wrong or not supported.
    """
    image: dict[str, Any] = (
        {"image": files.prebuilt} if files.prebuilt is not None else {"build": {"context": "${CONTEXT_DIR}"}}
    )
    base: Source = ("Harbor's own compose file", {"services": {MAIN: {**image, "command": IDLE}}})
    name = ", ".join(map(str, files.paths))
    document = read([base, *files.paths], files.directory, files.variables, name)
    bodies = document.body.get("services")
    body = bodies.get(MAIN) if isinstance(bodies, Mapping) else None
    if not isinstance(bodies, Mapping) or not isinstance(body, dict):
        raise ComposeError(f"{document.where}: services: there is no service {MAIN}.")
    if files.prebuilt is not None and body.get("image") == files.prebuilt:
        # As with Docker, an image that exists is not built.
        body.pop("build", None)
    _drop_log_mounts(bodies, document.where, files.logs)
    plan = of_document(document, traits)
    if opened := plan.sandbox.pop("ports", None):
        ports = ", ".join(str(port) for port, _ in opened)
        plan.warnings.append(f"{document.where}: services.{MAIN}.ports has no effect: the ports {ports} are not made public.")
    return plan


def _drop_log_mounts(bodies: Mapping[str, Any], where: str, logs: Sequence[str]) -> None:
    """Removes the mounts of the directories of the trial, which `main` has in any case.

    Raises:
        ComposeError: if another service mounts one of them.
    """
    for name, body in bodies.items():
        kept = []
        for mount in body.get("volumes") or []:
            if mount.get("type") != "bind" or mount.get("source") not in logs:
                kept.append(mount)
            elif name != MAIN:
                raise ComposeError(
                    f"{where}: services.{name}.volumes: {mount['source']} is a directory of {MAIN}, and the containers "
                    "of a sandbox do not share directories. Let Harbor collect the files: name the service in `artifacts`."
                )
        if "volumes" in body:
            body["volumes"] = kept


def name_volumes(plan: Plan, prefix: str) -> list[str]:
    """Gives the volumes that belong to one sandbox unique names, in the plan, and returns the names."""
    names: dict[str, str] = {}
    for service in plan.services:
        for volume in service.volumes:
            if volume.pop("sample", False):
                volume["volume"] = names.setdefault(volume["volume"], f"{prefix}.{len(names)}")
    return list(names.values())


def with_services(spec: SandboxSpec, plan: Plan, images: Sequence[BuiltImage], sidecar_network: Network | None) -> SandboxSpec:
    """Returns the definition of a sandbox with the services of a plan.

    `images` are in the order of the services. `sidecar_network` is the policy of services that would reach everything; with
    `None` they do. Services that start after others are ready are not in the definition.
    """
    main, later, given = plan.services[0], plan.later(), plan.sandbox
    # As with Harbor's own environments, what the files of the task say about resources wins.
    resources: dict[str, Any] = {
        "cpu": _cores(given.get("cpu_request_millicores")),
        "cpu_limit": _cores(given.get("cpu_limit_millicores")),
        "memory_mib": given.get("memory_request_mib"),
        "memory_limit_mib": given.get("memory_limit_mib"),
        "gpu": Gpu(*given["gpu"]) if "gpu" in given else None,
    }
    for service in plan.services[1:]:
        if sidecar_network is not None and service.outbound == "open":
            service.outbound = {"allowed": {"cidrs": sidecar_network.cidrs, "domains": sidecar_network.domains}}
    return replace(
        spec,
        image=Image(id=images[0][0]),
        command=spec.command or main.command or None,
        image_command=spec.image_command or not (spec.command or main.command),
        env={**main.env, **spec.env},
        workdir=main.workdir,
        volumes=[*spec.volumes, *(VolumeMount(**volume) for volume in main.volumes)],
        network=spec.network if plan.outbound == "open" else network(plan.outbound),
        sidecars=[
            sidecar_specification(service, image)
            for service, (image, _) in zip(plan.services, images, strict=True)
            if service is not main and service not in later
        ],
        **{name: value for name, value in resources.items() if value is not None},
    )


def _cores(millicores: int | None) -> float | None:
    return None if millicores is None else millicores / 1000


class Services:
    """The services of a running sandbox."""

    def __init__(self, sandbox: Sandbox, plan: Plan, logger: logging.Logger) -> None:
        self.sandbox = sandbox
        self.plan = plan
        self._logger = logger

    async def start(self, images: Sequence[BuiltImage]) -> None:
        """Waits until all services are ready. Services that wait for others are added to the sandbox.

        Raises:
            StartError: if a service ended with an error, is not healthy or does not answer. The text names it, with its exit
                code and its last output.
            SandboxError: if a call failed for another reason.
        """
        await start_services(self, self.plan, images)

    def of(self, name: str) -> tuple[Sandbox, Service]:
        """Returns a service other than `main`, with the sandbox whose commands run in it.

        Raises:
            ValueError: if there is no such service.
        """
        for service in self.plan.services[1:]:
            if service.name == name:
                return self.sandbox.sidecar(name), service
        raise ValueError(f"there is no service `{name}`; there are {', '.join(each.name for each in self.plan.services)}")

    # ---- what `start_services` asks for -----------------------------------------------------------------------

    def container(self, service: Service, sidecar: str | None, workdir: str) -> _Container:
        """Returns the container of a service."""
        return _Container(self.sandbox if sidecar is None else self.sandbox.sidecar(sidecar), service, workdir)

    @contextlib.contextmanager
    def trace(self, action: str) -> Iterator[None]:
        """Logs an action at the level of debugging."""
        self._logger.debug("%s in %s", action, self.sandbox.id)
        yield

    def note(self, text: str) -> None:
        """Logs a detail."""
        self._logger.debug("%s", text)

    def warn(self, text: str) -> None:
        """Logs a warning."""
        self._logger.warning("%s", text)


class _Container:
    """The container of a service while the services start."""

    def __init__(self, sandbox: Sandbox, service: Service, workdir: str) -> None:
        self.service = service.name
        self._sandbox = sandbox
        self._user = service.user
        self._workdir = workdir

    async def run(self, argv: list[str], *, user: str | None = None, timeout: float | None = None) -> RunResult:
        """Runs a command in the working directory, by default as the user of the service."""
        return await self._sandbox.run(argv, cwd=self._workdir, user=user or self._user, timeout=timeout)
