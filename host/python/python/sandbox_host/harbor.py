"""An environment for Harbor: `harbor run --env sandbox_host.harbor:SandboxEnvironment`.

It runs the trials of Harbor in sandboxes of any provider of this package:

    harbor run --path my-task --agent oracle --env sandbox_host.harbor:SandboxEnvironment --ek provider=modal

The options (`--ek NAME=VALUE`) are the fields of `SandboxOptions`. This module needs Harbor 0.26, which needs Python 3.12. No
other module of this package imports it.
"""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import os
import re
import shutil
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from harbor.environments.base import (
    BaseEnvironment,
    ExecResult,
    OutputCallback,
    SandboxBuildFailedError,
    ServiceOperationsUnsupportedError,
)
from harbor.environments.capabilities import EnvironmentCapabilities, EnvironmentResourceCapabilities
from harbor.environments.definition import (
    COMPOSE_FILE_NAME,
    require_agent_environment_definition,
    should_use_prebuilt_docker_image,
)
from harbor.environments.docker.compose_env import ComposeInfraEnvVars, legacy_log_mount_env_vars
from harbor.environments.options import EnvironmentOptions
from harbor.models.task.config import (
    NetworkAllowlistEntryType,
    NetworkMode,
    NetworkPolicy,
    classify_network_allowlist_entry,
)
from harbor.models.trial.config import ResourceMode

from . import _harbor_services as services
from ._components import find_component
from ._io import finish
from .compose.plan import Plan, Service
from .compose.specification import BuiltImage, directories_definition, image_specification
from .errors import AlreadyExistsError, BuildFailedError, FileError, NotFoundError, SandboxError
from .provider import Provider
from .records import Description, Verdict
from .sandbox import Sandbox
from .specs import Dockerfile, Gpu, Image, Login, Network, SandboxSpec, VolumeMount
from .sync import Provider as BlockingProvider

__all__ = ["SandboxEnvironment", "SandboxOptions"]

MODAL_GPUS = frozenset("T4 L4 A10 A10G A100 A100-40GB A100-80GB L40S H100 H100! H200 B200 B200+ RTX-PRO-6000".split())
"""The types of GPU in Modal's documentation. Of several types that a task accepts, the first one in this list is used."""

LEASE_TAGS = frozenset({"sandbox-owner", "sandbox-run", "sandbox-lease"})
"""The tags of a sandbox with a lease."""

OPEN_TASKS_MEAN = "ANY"
"""The type of GPU of a task that names none."""


class SandboxOptions(EnvironmentOptions):
    """The options of `SandboxEnvironment`: `--ek NAME=VALUE`, or `environment.kwargs` of a job file."""

    model_config = {"use_attribute_docstrings": True}  # noqa: RUF012

    provider: str = "modal"
    """The provider: modal, docker, memory, or the path of a component."""

    variables: dict[str, str] = {}  # noqa: RUF012
    """Settings of the provider, such as MODAL_ENVIRONMENT or DOCKER_HOST. They precede the variables of the process."""

    app: str | None = None
    """The Modal app that sandboxes belong to; the same as the variable MODAL_APP_NAME."""

    profile: str | None = None
    """The profile of the configuration file of the service, such as ~/.modal.toml."""

    region: str | list[str] | None = None
    """The region, or several of them, in which sandboxes may run."""

    options: dict[str, Any] = {}  # noqa: RUF012
    """Options of the provider for each sandbox, such as {"runtime": "vm"} of Modal or {"pids_limit": 500} of Docker."""

    secrets: list[str] = []  # noqa: RUF012
    """Names of secrets of the provider. Their entries become environment variables."""

    registry_secret: str | None = None
    """The login for private images: the name of a secret of the provider, or KIND:NAME with the kind static-secret,
    aws-secret, gcp-secret or credential."""

    volumes: dict[str, str] = {}  # noqa: RUF012
    """Volumes of the provider: names by the paths of their mounts."""

    labels: dict[str, str] = {}  # noqa: RUF012
    """Additional tags of each sandbox."""

    command: list[str] | None = None
    """The main process of each sandbox. Without it, the sandbox is kept alive without a process of its own."""

    image_command: bool = False
    """Whether the command of the image is the main process."""

    lifetime_sec: float = 86400
    """The time in seconds after which a sandbox is ended in any case."""

    idle_timeout_sec: float | None = None
    """The time in seconds without a command or a connection after which a sandbox is ended."""

    create_patience_sec: float | None = None
    """How long in seconds the creation of a sandbox waits for capacity."""

    owner: str | None = "harbor"
    """Marks all sandboxes with this owner and a lease, so that `sandbox-host sweep --owner NAME` ends those of killed runs.
    null for none."""

    lease_sec: float = 120
    """The seconds for which a lease is renewed, at least 30."""

    output_max_mib: int = 64
    """How many MiB of each output stream of a command are kept. Of longer output it is the end."""


@dataclass(frozen=True)
class _Found:
    """What is known about a provider without a request."""

    description: Description
    settings: frozenset[str]
    """The names of the variables that it reads."""

    def has(self, capability: str) -> bool:
        return self.description.supports(capability)


_found: dict[str, _Found] = {}


def _look_up(options: SandboxOptions) -> _Found:
    """Describes a provider. The first call for a component loads it, later calls cost nothing."""
    key = str(find_component(options.provider))
    if key not in _found:
        # Neither credentials nor the settings of an account matter for a description.
        with BlockingProvider.open(options.provider, anonymous=True, read_profiles=False) as provider:
            description = provider.describe()
        _found[key] = _Found(description, frozenset(each.name for each in description.environment))
    return _found[key]


def _variables(options: SandboxOptions) -> dict[str, str]:
    app = {} if options.app is None else {"MODAL_APP_NAME": options.app}
    return {**options.variables, **app}


class _Opened:
    """A provider that all environments of one event loop with the same settings use together."""

    def __init__(self, opening: asyncio.Task[Provider]) -> None:
        self.opening = opening
        self.users = 0


_opened: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Opened]] = weakref.WeakKeyDictionary()


class _Lent:
    """The right to use a provider. The last one that is given back closes it."""

    def __init__(self, options: SandboxOptions) -> None:
        self._all = _opened.setdefault(asyncio.get_running_loop(), {})
        fields = ("provider", "variables", "app", "profile", "create_patience_sec", "owner", "lease_sec")
        self._key = repr([getattr(options, name) for name in fields])
        if self._key not in self._all:
            self._all[self._key] = _Opened(asyncio.ensure_future(_open(options)))
        self._opened = self._all[self._key]
        self._opened.users += 1
        self._given_back = False

    async def provider(self) -> Provider:
        # One of several waiting environments may be cancelled; the others still need the provider.
        return await asyncio.shield(self._opened.opening)

    async def give_back(self) -> None:
        if self._given_back:
            return
        self._given_back = True
        self._opened.users -= 1
        if self._opened.users:
            return
        if self._all.get(self._key) is self._opened:
            del self._all[self._key]
        try:
            provider = await self._opened.opening
        except SandboxError:
            return  # It was raised where the provider was needed.
        await provider.close()


async def _open(options: SandboxOptions) -> Provider:
    return await Provider.open(
        options.provider,
        env=_variables(options),
        profile=options.profile,
        create_patience=options.create_patience_sec,
        owner=options.owner,
        lease=None if options.owner is None else options.lease_sec,
    )


def _network(policy: NetworkPolicy) -> Network:
    """Returns the network policy of a sandbox for one of Harbor."""
    if policy.network_mode == NetworkMode.PUBLIC:
        return Network.open()
    if policy.network_mode == NetworkMode.NO_NETWORK:
        return Network.blocked()
    domains, cidrs = [], []
    for entry in policy.allowed_hosts:
        match classify_network_allowlist_entry(entry):
            case NetworkAllowlistEntryType.HOSTNAME | NetworkAllowlistEntryType.WILDCARD_HOSTNAME:
                domains.append(entry)
            case NetworkAllowlistEntryType.IPV4_ADDRESS:
                cidrs.append(f"{entry}/32")
            case _:
                cidrs.append(entry)
    # A list without entries permits nothing, which is the other policy.
    return Network.allow(domains=domains, cidrs=cidrs) if domains or cidrs else Network.blocked()


def _name(session_id: str) -> str:
    """Returns the name of a sandbox, at most 64 characters long and unique for a session."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", session_id)
    if name == session_id and 0 < len(name) <= 64:
        return name
    return f"{name[:51]}-{hashlib.sha256(session_id.encode()).hexdigest()[:12]}"


class SandboxEnvironment(BaseEnvironment):
    """A Harbor environment in a sandbox of any provider: Modal, Docker Engine, Podman, or another component.

    The sandbox is made from the Dockerfile of the task or its `docker_image`. If the task has a `docker-compose.yaml`, its
    other services are sidecars of the sandbox; this needs a provider that has them. The sandbox has the name of the session,
    and tags with the session, the environment and the trial. `stop` terminates it; a run that is killed leaves a lease
    behind, and `sandbox-host sweep --owner harbor` terminates what it left running.
    """

    options_model = SandboxOptions
    options: SandboxOptions

    _RESERVED: ClassVar[frozenset[str]] = frozenset(
        {"harbor.managed", "harbor.environment_name", "harbor.session_id", "harbor.context_id"}
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The base class asks for the capabilities while it is initialised, and they depend on the options.
        given = {name: value for name, value in kwargs.items() if name not in _BASE_PARAMETERS or name == "auto_mounting"}
        options = type(self).parse_options(given)
        assert isinstance(options, SandboxOptions)
        self.options = options
        self._found = _look_up(options)
        self._sandbox: Sandbox | None = None
        self._lent: _Lent | None = None
        self._services: services.Services | None = None
        self._plan: Plan | None = None
        self._own_volumes: list[str] = []
        self._shell = "bash"
        self._runs_as_root = False
        for label in self._RESERVED & options.labels.keys():
            raise ValueError(f"the label `{label}` is set by this environment")
        if options.app is not None and "MODAL_APP_NAME" not in self._found.settings:
            raise ValueError(f"the provider `{options.provider}` has no apps: leave the option `app` out")
        super().__init__(*args, **kwargs)
        for mount in self._host_mounts:
            self._check_mount(mount["type"], mount["source"], mount["target"])

    # ---- what it is and can do --------------------------------------------------------------------------------

    @staticmethod
    def type() -> str:
        """Returns the name of this environment."""
        return "sandbox-host"

    @classmethod
    def preflight(cls, kwargs: dict[str, Any] | None = None) -> None:
        """Checks the options, and with one request that costs nothing the address and the credentials.

        Raises `SystemExit` with the reason if the provider cannot be used.
        """
        super().preflight(kwargs)
        options = cls.parse_options(kwargs)
        assert isinstance(options, SandboxOptions)
        try:
            with BlockingProvider.open(options.provider, env=_variables(options), profile=options.profile) as provider:
                provider.check()
        except SandboxError as error:
            raise SystemExit(f"The provider `{options.provider}` cannot be used: {error}") from error

    @classmethod
    def resource_capabilities(cls) -> EnvironmentResourceCapabilities:
        """Returns how processor time and memory can be given. The provider is not known here; all bundled ones that
        run programs can do all of it, and another one refuses what it cannot do before anything is spent."""
        return EnvironmentResourceCapabilities(
            cpu_limit=True, cpu_request=True, memory_limit=True, memory_request=True, fractional_cpus=True
        )

    @property
    def capabilities(self) -> EnvironmentCapabilities:
        """Returns what the provider can do."""
        has = self._found.has
        cidrs, domains = has("network.cidrs"), has("network.domains")
        return EnvironmentCapabilities(
            gpus=has("create.gpu"),
            disable_internet=has("network.blocked"),
            network_allowlist=cidrs or domains,
            network_allowlist_hostnames=domains,
            network_allowlist_wildcard_hostnames=domains,
            network_allowlist_ipv4_addresses=cidrs,
            network_allowlist_ipv4_cidrs=cidrs,
            # No service is known to filter IPv6, so such entries are refused before a sandbox is created.
            network_allowlist_ipv6_addresses=False,
            network_allowlist_ipv6_cidrs=False,
            dynamic_network_policy=has("network.update"),
            mounted=self._binds,
            docker_compose=has("sidecars"),
        )

    @property
    def _binds(self) -> bool:
        """Whether directories of this machine can be mounted: an engine that listens at a socket of this machine."""
        if "binds" not in self._found.description.options_schema.get("properties", {}):
            return False
        address = self.options.variables.get("DOCKER_HOST") or os.environ.get("DOCKER_HOST") or "unix:"
        return address.startswith("unix:")

    @property
    def _compose_paths(self) -> list[Path]:
        """The compose files of the task and of the run. Later ones win."""
        own = self.environment_dir / COMPOSE_FILE_NAME
        return [*([own] if own.exists() else []), *self.extra_docker_compose_paths]

    @property
    def _uses_compose(self) -> bool:
        """Whether the environment has compose files. The base class asks for it."""
        return bool(self._compose_paths)

    def _validate_definition(self) -> None:
        if self._uses_compose and not self._found.has("sidecars"):
            raise ValueError(
                f"the environment `{self.type()}` has one container, and the task has a docker-compose.yaml: "
                "use one of Harbor's environments that run Docker Compose"
            )
        require_agent_environment_definition(
            self.environment_dir,
            docker_image=self.task_env_config.docker_image,
            extra_docker_compose_paths=self.extra_docker_compose_paths,
        )

    def _check_mount(self, kind: str, source: str, target: str) -> None:
        if kind == "bind" and not self._binds:
            raise ValueError(
                f"the provider `{self.options.provider}` cannot mount directories of this machine: {source} at {target}"
            )
        if kind == "volume" and not self._found.has("create.volumes"):
            raise ValueError(f"the provider `{self.options.provider}` has no volumes: {source} at {target}")
        if kind not in ("bind", "volume"):
            raise ValueError(f"mounts of the type `{kind}` are not supported: {source} at {target}")

    # ---- start and stop ---------------------------------------------------------------------------------------

    async def start(self, force_build: bool) -> None:
        """Builds the image and creates the sandbox. If that fails or is cancelled, nothing is left running."""
        if self._sandbox is not None:
            raise RuntimeError("the environment has been started already")
        # What is wrong in a compose file is an error before anything is spent.
        self._plan = await asyncio.to_thread(self._make_plan, force_build) if self._uses_compose else None
        lent = self._lent = self._lent or _Lent(self.options)
        try:
            provider = await lent.provider()
            if self._plan is None:
                image = Image(id=(await self._build(provider, self._image(force_build)))[0])
                self._sandbox = await self._create(provider, self._spec(provider, image))
            else:
                await self._start_services(provider, self._plan, force_build)
            await self._prepare(self._running())
            await self._upload_environment_dir_after_start()
        except BaseException:
            await finish(self._discard())
            raise

    def _make_plan(self, force_build: bool) -> Plan:
        """Returns the plan for the compose files.

        Raises `ValueError` for a key or a value that is wrong or not supported.
        """
        reference = self.task_env_config.docker_image
        prebuilt = should_use_prebuilt_docker_image(self.environment_dir, docker_image=reference, force_build=force_build)
        memory = self._effective_memory_mb
        infra = ComposeInfraEnvVars(
            main_image_name=f"hb__{self.environment_name}",
            context_dir=str(self.environment_dir.resolve()),
            prebuilt_image_name=reference if prebuilt else None,
            cpus=self._effective_cpus,
            memory=f"{memory}M" if memory else None,
        ).to_env_dict()
        # There is no directory of this machine, so a mount of such a directory has its path in the container as its source.
        infra |= legacy_log_mount_env_vars(self._mounts, host_value="target")
        files = services.Files(
            directory=self.environment_dir.resolve(),
            paths=self._compose_paths,
            variables={**self._startup_env(), **infra},
            prebuilt=reference if prebuilt else None,
            logs=[mount["target"] for mount in self._mounts if mount["type"] == "bind"],
        )
        description = self._found.description
        traits = services.Traits(description.name, description.supports("image.secrets"), description.name == "modal")
        plan = services.make_plan(files, traits)
        if self.options.command is not None or self.options.image_command:
            plan.services[0].command = []
        for warning in plan.warnings:
            self.logger.warning("%s", warning)
        return plan

    async def _start_services(self, provider: Provider, plan: Plan, force_build: bool) -> None:
        """Creates the sandbox with the services of the task, and waits until they are ready."""
        images = [await self._build_service(provider, each, force_build) for each in plan.services]
        self._own_volumes = services.name_volumes(plan, _name(self.session_id)[:48])
        spec = services.with_services(self._spec(provider, Image(id=images[0][0])), plan, images, self._sidecar_network())
        self._sandbox = await self._create(provider, spec)
        self._services = services.Services(self._sandbox, plan, self.logger)
        await self._services.start(images)

    async def _build_service(self, provider: Provider, service: Service, force_build: bool) -> BuiltImage:
        """Builds the image of a service, with the directories that it needs."""
        image = image_specification(service.image)
        login = self._login()
        if image.dockerfile is not None:
            image = replace(image, dockerfile=replace(image.dockerfile, login=login), force=image.force or force_build)
        elif image.registry is not None:
            image = replace(image, login=login)
        built = await self._build(provider, image)
        if not service.directories:
            return built
        return await self._build(provider, image_specification(directories_definition(built, service.directories)))

    async def stop(self, delete: bool) -> None:
        """Terminates the sandbox. With `delete=False` it is stopped with its files if the provider can do that, and
        otherwise stays as it is until its lifetime has passed; `sandbox-host sweep` leaves it alone."""
        if delete:
            await finish(self._discard())
        else:
            await finish(self._leave())

    async def _discard(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        lent, self._lent = self._lent, None
        volumes, self._own_volumes = self._own_volumes, []
        self._services = None
        try:
            if sandbox is not None:
                await self._terminate(sandbox)
            if volumes and lent is not None:
                await self._delete_volumes(await lent.provider(), volumes)
        finally:
            if lent is not None:
                await lent.give_back()

    async def _terminate(self, sandbox: Sandbox) -> None:
        try:
            await sandbox.terminate()
        except SandboxError as error:
            # Harbor hides what `stop` raises. Without renewals, the next sweep ends the sandbox.
            self.logger.warning("the sandbox %s was not terminated: %s", sandbox.id, error)
            if self.options.owner is not None:
                await sandbox.release()
            raise

    async def _delete_volumes(self, provider: Provider, volumes: list[str]) -> None:
        for volume in volumes:
            try:
                await provider.delete_volume(volume)
            except SandboxError as error:
                self.logger.warning("the volume %s was not deleted: %s", volume, error)

    async def _leave(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        self._services, self._own_volumes = None, []
        lent, self._lent = self._lent, None
        try:
            if sandbox is not None:
                await self._end_lease(sandbox)
                if self._found.has("stop"):
                    await sandbox.stop()
                self.logger.info("the sandbox %s of %s is kept", sandbox.id, self.session_id)
        finally:
            if lent is not None:
                await lent.give_back()

    async def _end_lease(self, sandbox: Sandbox) -> None:
        """Lets the sandbox live after this process: `sandbox-host sweep` finds it by three tags, and these are removed."""
        if self.options.owner is None:
            return
        await sandbox.release()
        tags = await sandbox.tags()
        await sandbox.set_tags({name: value for name, value in tags.items() if name not in LEASE_TAGS})

    def _image(self, force_build: bool) -> Image:
        reference = self.task_env_config.docker_image
        login = self._login()
        if reference and should_use_prebuilt_docker_image(
            self.environment_dir, docker_image=reference, force_build=force_build
        ):
            return Image(registry=reference, login=login, force=force_build)
        source = Dockerfile(path=self.environment_dir / "Dockerfile", context=self.environment_dir, login=login)
        return Image(dockerfile=source, force=force_build)

    def _login(self) -> Login | None:
        secret = self.options.registry_secret
        if secret is None:
            return None
        kind, colon, name = secret.rpartition(":")
        return Login(name, kind) if colon else Login(secret)

    async def _build(self, provider: Provider, image: Image) -> BuiltImage:
        """Builds the image, with its log at the level of debugging, and returns its id and its working directory."""
        try:
            async with provider.build(image) as build:
                for line in build.skipped:
                    self.logger.warning("left out of the build context: %s", line)
                async for chunk in build:
                    self.logger.debug("build: %s", chunk.text.rstrip("\n"))
                built = await build.wait()
                return built.id, built.workdir
        except BuildFailedError as error:
            raise SandboxBuildFailedError(str(error)) from error

    def _spec(self, provider: Provider, image: Image) -> SandboxSpec:
        """Returns the definition of the sandbox."""
        has, options = self._found.has, self.options
        cpu, memory = self._resources()
        binds = [
            f"{mount['source']}:{mount['target']}" + (":ro" if mount.get("read_only") else "")
            for mount in self._host_mounts
            if mount["type"] == "bind"
        ]
        volumes = [VolumeMount(name, path) for path, name in options.volumes.items()]
        volumes += [
            VolumeMount(
                mount["source"],
                mount["target"],
                read_only=bool(mount.get("read_only")),
                sub_path=mount.get("volume", {}).get("subpath"),
                create=True,
            )
            for mount in self._host_mounts
            if mount["type"] == "volume"
        ]
        own = dict(options.options)
        if binds:
            own["binds"] = [*own.get("binds", []), *binds]
        storage = self._effective_storage_mb
        if storage is not None and not has("create.disk"):
            self.logger.debug("the provider decides about the size of the disk; the task wants %s MB", storage)
        regions = [options.region] if isinstance(options.region, str) else options.region or []
        spec = SandboxSpec(
            image=image,
            command=options.command,
            image_command=options.image_command,
            env=self._startup_env(),
            secrets=options.secrets,
            cpu=cpu[0],
            cpu_limit=cpu[1],
            memory_mib=memory[0],
            memory_limit_mib=memory[1],
            disk_mib=storage if has("create.disk") else None,
            lifetime=options.lifetime_sec if has("create.lifetime") else None,
            idle_timeout=options.idle_timeout_sec,
            regions=regions,
            network=self._first_network(),
            volumes=volumes,
            name=_name(self.session_id) if has("create.names") else None,
            tags=self._tags() if has("create.tags") else {},
            options=own,
        )
        return replace(spec, gpu=self._gpu())

    def _first_network(self) -> Network:
        """Returns the network policy to start with.

        The network of a sandbox that is created as blocked stays blocked, so one whose policy changes between phases
        starts with a list that permits nothing.
        """
        network = self._network_of(self.network_policy)
        return Network.allow() if self._network_changes and network.outbound == "blocked" else network

    @property
    def _network_changes(self) -> bool:
        """Whether a phase has another network policy than the start."""
        return any(policy != self.network_policy for policy in self._phase_network_policies)

    def _network_of(self, policy: NetworkPolicy) -> Network:
        """Returns the network policy of the main container.

        A container whose network is blocked has no address, so one with other services gets a list that permits nothing.
        """
        network = _network(policy)
        return Network.allow() if network.outbound == "blocked" and self._plan is not None else network

    def _sidecar_network(self) -> Network | None:
        """Returns the network policy of services, or `None` if they reach everything.

        It cannot change while they run. If a phase has another policy, they reach each other and nothing else, because the
        agent would otherwise reach through them what its own phase forbids.
        """
        network = self._network_of(self.network_policy)
        if self._network_changes:
            if self._plan is not None and len(self._plan.services) > 1:
                self.logger.warning("the phases have different network policies, so the services reach only each other")
            return Network.allow()
        return None if network.outbound == "open" else network

    def _resources(self) -> tuple[tuple[float | None, float | None], tuple[int | None, int | None]]:
        """Returns request and limit of processor time in cores, and of memory in MiB.

        Where Harbor leaves the policy open, a service that bills by the reservation gets the processor time as both
        and memory as the reservation, and an engine of one machine gets both as limits.
        """
        billed = self._found.has("stats.cost")
        auto_cpu = ResourceMode.GUARANTEE if billed else ResourceMode.LIMIT
        auto_memory = ResourceMode.REQUEST if billed else ResourceMode.LIMIT
        cpu = (
            self._resource_request_value("cpu", auto_mode=auto_cpu),
            self._resource_limit_value("cpu", auto_mode=auto_cpu),
        )
        request = self._resource_request_value("memory", auto_mode=auto_memory)
        limit = self._resource_limit_value("memory", auto_mode=auto_memory)
        return cpu, (None if request is None else int(request), None if limit is None else int(limit))

    def _gpu(self) -> Gpu | None:
        """Returns the accelerators: of the types that the task accepts, the first one that the provider is known to have."""
        if self._effective_gpus <= 0:
            return None
        types = [_gpu_name(each) for each in self.task_env_config.gpu_types or [OPEN_TASKS_MEAN]]
        chosen = types[0]
        if self._found.description.name == "modal":
            chosen = next((each for each in types if each in MODAL_GPUS), chosen)
        return Gpu(chosen, self._effective_gpus)

    def _tags(self) -> dict[str, str]:
        tags = {
            **self.options.labels,
            "harbor.managed": "true",
            "harbor.environment_name": self.environment_name,
            "harbor.session_id": self.session_id,
        }
        if self.context_id is not None:
            tags["harbor.context_id"] = str(self.context_id)
        return tags

    async def _create(self, provider: Provider, spec: SandboxSpec) -> Sandbox:
        """Creates the sandbox. One of the same session that an earlier attempt left is terminated first."""
        try:
            return await provider.create(spec)
        except AlreadyExistsError:
            assert spec.name is not None
            try:
                other = await provider.find(spec.name)
                same = (await other.tags()).get("harbor.session_id") == self.session_id
                if same:
                    self.logger.warning("terminating the sandbox %s that an earlier attempt left", other.id)
                    await other.terminate()
            except NotFoundError:
                same = True
            # A name that something else has is left to it; the tags still identify the session.
            return await provider.create(spec if same else replace(spec, name=None))

    async def _prepare(self, sandbox: Sandbox) -> None:
        """Makes the directories that a trial needs, and finds out which user and which shell the image has."""
        workdir = self.task_env_config.workdir
        if workdir:
            await self._files(sandbox).make_directory(workdir)
        targets = self._mount_targets(writable_only=True)
        make = self._ensure_dirs_command(targets) if targets else ":"
        command = f'uid=$(id -u); echo "$uid"; command -v bash || echo; [ "$uid" != 0 ] || {{ {make}; }}'
        result = await sandbox.run(["/bin/sh", "-c", command], cwd="/")
        uid, bash, *_ = [*result.text.split("\n"), "", ""]
        self._runs_as_root = uid == "0"
        self._shell = "bash" if bash else "/bin/sh"
        if result.ok and not self._runs_as_root and targets:
            # The image has another user, and the directories are for all users.
            result = await sandbox.run(["/bin/sh", "-c", make], cwd="/", user="root")
        if not result.ok:
            raise RuntimeError(f"the directories of the trial cannot be made: {result.verdict}: {result.error_text.strip()}")

    # ---- commands ---------------------------------------------------------------------------------------------

    async def exec(
        self,
        command: str,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        timeout_sec: int | None = None,
        user: str | int | None = None,
    ) -> ExecResult:
        """Runs a command in bash, or in sh if the image has no bash. See the base class for the parameters.

        Raises `RuntimeError` if the command is killed because `timeout_sec` has passed, or if the sandbox ends.
        """
        who = self._resolve_user(user)
        if who is None and self._plan is not None:
            who = self._plan.services[0].user
        if self._runs_as_root and who in ("root", 0, "0"):
            who = None  # Nothing has to change the user then, which needs programs of the image.
        settings: dict[str, Any] = {
            "cwd": cwd or self.task_env_config.workdir,
            "env": self._merge_env(env),
            "user": None if who is None else str(who),
            "timeout": timeout_sec or None,
        }
        sandbox = self._running()
        argv = [self._shell, "-c", command]
        kept = self.options.output_max_mib << 20
        callback = self._output_callback()
        if callback is None:
            result = await sandbox.run(argv, **settings, stdout_max=kept, stderr_max=kept)
            if result.truncated:
                self.logger.warning("only the last %s MiB of the output of a command were kept", self.options.output_max_mib)
            verdict, out, err = result.verdict, result.text, result.error_text
        else:
            verdict, out, err = await self._run_streaming(sandbox, argv, settings, callback, kept)
        return ExecResult(stdout=out, stderr=err, return_code=_return_code(verdict, timeout_sec))

    async def _run_streaming(
        self, sandbox: Sandbox, argv: list[str], settings: Mapping[str, Any], callback: OutputCallback, kept: int
    ) -> tuple[Verdict, str, str]:
        """Runs a command and passes its output on as it comes. If the callback fails, the command is killed."""
        decoder = codecs.getincrementaldecoder("utf-8")
        out, err = _Output(decoder("replace"), kept), _Output(decoder("replace"), kept)
        async with sandbox.start(argv, **settings) as process:
            await process.close_stdin()
            async for chunk in process:
                if chunk.stream == "stdout":
                    await out.take(chunk.data, lambda text: callback(text, "stdout"))
                else:
                    await err.take(chunk.data, lambda text: callback(text, "stderr"))
            await out.take(b"", lambda text: callback(text, "stdout"), True)
            await err.take(b"", lambda text: callback(text, "stderr"), True)
            return await process.wait(), out.text(), err.text()

    def _running(self) -> Sandbox:
        if self._sandbox is None:
            raise RuntimeError("the environment is not running: start it first")
        return self._sandbox

    # ---- files ------------------------------------------------------------------------------------------------

    def _files(self, sandbox: Sandbox | None = None, user: str | int | None = None) -> Sandbox:
        """Returns the sandbox for operations on files, which root does unless told otherwise."""
        sandbox = sandbox or self._running()
        if not self._found.has("files.user"):
            return sandbox
        return sandbox.as_user("root" if user is None else str(user))

    async def upload_file(self, source_path: Path | str, target_path: str) -> None:
        """Copies a local file, of any size, with its mode bits. Into a directory, it is copied under its name."""
        source = Path(source_path)
        mode = (await asyncio.to_thread(source.stat)).st_mode & 0o777
        permissions = mode if self._found.has("files.mode") else None
        files, inside = self._files(), str(PurePosixPath(target_path) / source.name)
        if target_path.endswith("/"):
            target_path = inside
        try:
            await files.upload(source, target_path, permissions=permissions)
        except FileError as error:
            if error.fault != "is-a-directory" or target_path == inside:
                raise
            await files.upload(source, inside, permissions=permissions)

    async def upload_dir(self, source_dir: Path | str, target_dir: str) -> None:
        """Copies what is in a local directory into one of the sandbox, with empty directories, links and modes."""
        if not await asyncio.to_thread(Path(source_dir).is_dir):
            raise FileNotFoundError(f"there is no directory {source_dir}")
        transfer = await self._files().upload_directory(source_dir, target_dir)
        for line in transfer.skipped:
            self.logger.warning("not uploaded: %s", line)

    async def download_file(self, source_path: str, target_path: Path | str) -> None:
        """Copies a file, of any size, to this machine. Makes the parents of `target_path`."""
        to = await asyncio.to_thread(_prepared, Path(target_path), PurePosixPath(source_path).name)
        await self._files().download(source_path, to)

    async def download_dir(self, source_dir: str, target_dir: Path | str) -> None:
        """Copies what is in a directory of the sandbox into a local one. Files of the same names are replaced.

        What cannot be represented or would lead outside is left out, with a warning in the log.
        """
        await self._download_dir(self._files(), source_dir, target_dir)

    async def _download_dir(self, files: Sandbox, source_dir: str, target_dir: Path | str) -> None:
        await asyncio.to_thread(os.makedirs, target_dir, exist_ok=True)
        transfer = await files.download_directory(source_dir, target_dir)
        for line in transfer.skipped:
            self.logger.warning("not downloaded: %s", line)

    async def is_dir(self, path: str, user: str | int | None = None) -> bool:
        """Returns whether a path is a directory, or a link to one."""
        return await self._kind(path, user) == "directory"

    async def is_file(self, path: str, user: str | int | None = None) -> bool:
        """Returns whether a path is a regular file, or a link to one."""
        return await self._kind(path, user) == "file"

    async def _kind(self, path: str, user: str | int | None) -> str | None:
        try:
            return (await self._files(user=self._resolve_user(user)).stat(path)).kind
        except FileError as error:
            if error.fault in ("not-found", "not-a-directory", "permission-denied"):
                return None
            raise

    # ---- services ---------------------------------------------------------------------------------------------

    def _service(self, name: str) -> tuple[Sandbox, Service]:
        """Returns a service other than `main`, with the sandbox whose commands run in it."""
        self._running()
        if self._services is None:
            raise ServiceOperationsUnsupportedError(
                f"the environment has no service `{name}`: the task has no docker-compose.yaml"
            )
        return self._services.of(name)

    async def service_exec(
        self,
        command: str,
        *,
        service: str | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        timeout_sec: int | None = None,
        user: str | int | None = None,
    ) -> ExecResult:
        """Runs a command in a service, with sh if it is not `main`. Its user and directory are those of the service.

        Raises `ValueError` if there is no such service, and `RuntimeError` as `exec` does.
        """
        if service is None or self.is_main_service(service):
            return await self.exec(command, cwd=cwd, env=env, timeout_sec=timeout_sec, user=user)
        sandbox, definition = self._service(service)
        kept = self.options.output_max_mib << 20
        result = await sandbox.run(
            ["/bin/sh", "-c", command],
            cwd=cwd or definition.workdir,
            env=env,
            user=definition.user if user is None else str(user),
            timeout=timeout_sec or None,
            stdout_max=kept,
            stderr_max=kept,
        )
        if result.truncated:
            self.logger.warning("only the last %s MiB of the output of a command were kept", self.options.output_max_mib)
        code = _return_code(result.verdict, timeout_sec)
        return ExecResult(stdout=result.text, stderr=result.error_text, return_code=code)

    async def service_download_file(self, source_path: str, target_path: Path | str, *, service: str | None = None) -> None:
        """Copies a file of a service to this machine, as `download_file` does."""
        if service is None or self.is_main_service(service):
            await self.download_file(source_path, target_path)
            return
        to = await asyncio.to_thread(_prepared, Path(target_path), PurePosixPath(source_path).name)
        await self._files(self._service(service)[0]).download(source_path, to)

    async def service_download_dir(self, source_dir: str, target_dir: Path | str, *, service: str | None = None) -> None:
        """Copies what is in a directory of a service into a local one, as `download_dir` does."""
        if service is None or self.is_main_service(service):
            await self.download_dir(source_dir, target_dir)
            return
        await self._download_dir(self._files(self._service(service)[0]), source_dir, target_dir)

    async def stop_service(self, service: str) -> None:
        """Ends a service other than `main`, whose container is the sandbox itself and ends with it.

        Raises `ServiceOperationsUnsupportedError` for `main`; Harbor then logs a warning and goes on.
        """
        if self.is_main_service(service):
            raise ServiceOperationsUnsupportedError(
                "the service `main` is the sandbox itself, and all other services would end with it"
            )
        self._service(service)
        await self._running().terminate_sidecar(service)

    # ---- what else Harbor can ask for -------------------------------------------------------------------------

    async def _apply_network_policy(self, network_policy: NetworkPolicy) -> None:
        if self._plan is not None and self._plan.outbound != "open":
            return  # The compose file permits less.
        await self._running().set_network(self._network_of(network_policy))

    async def prepare_logs_for_host(self) -> None:
        """Gives the files in mounted directories to the user of this process. Does nothing without mounts."""
        paths = [mount["target"] for mount in self._host_mounts if mount["type"] == "bind" and not mount.get("read_only")]
        if not (self.auto_mounting and paths and self._sandbox):
            return
        owner = f"{os.getuid()}:{os.getgid()}"
        await self._sandbox.run(["chown", "-R", "-h", owner, *paths], user="root")

    async def attach(self) -> None:
        """Replaces this process by a shell in the sandbox, with the program `sandbox-host` of this package."""
        sandbox = self._running()
        beside = Path(sys.executable).with_name("sandbox-host")
        program = str(beside) if beside.exists() else shutil.which("sandbox-host")
        if program is None:
            raise NotImplementedError("the program `sandbox-host` is not installed")
        await self._end_lease(sandbox)  # This process will not renew it any more.
        arguments = ["--plugin", str(find_component(self.options.provider))]
        if self.options.profile is not None:
            arguments += ["--profile", self.options.profile]
        os.execve(program, ["sandbox-host", *arguments, "shell", sandbox.id], {**os.environ, **_variables(self.options)})


class _Output:
    """The text of one stream, of which at most the end is kept."""

    def __init__(self, decoder: codecs.IncrementalDecoder, limit: int) -> None:
        self._decoder = decoder
        self._limit = limit
        self._size = 0
        self._pieces: list[str] = []

    async def take(self, data: bytes, emit: Any, final: bool = False) -> None:
        """Adds bytes and passes the text that is complete on. A character can be spread over two pieces."""
        text = self._decoder.decode(data, final)
        if not text:
            return
        self._pieces.append(text)
        self._size += len(text)
        while self._size - len(self._pieces[0]) > self._limit:
            self._size -= len(self._pieces.pop(0))
        await emit(text)

    def text(self) -> str:
        """Returns the text that is kept."""
        return "".join(self._pieces)


def _return_code(verdict: Verdict, timeout_sec: int | None) -> int:
    """Returns the exit code as a shell reports it. Raises `RuntimeError` for a command that has none."""
    if verdict.kind == "exited" and verdict.code is not None:
        return verdict.code
    if verdict.kind == "signaled" and verdict.signal is not None:
        return 128 + verdict.signal
    if verdict.kind == "out-of-memory":
        return 137
    if verdict.kind == "deadline":
        raise RuntimeError(f"the command was killed because {timeout_sec} seconds had passed")
    raise RuntimeError(f"the command did not end by itself: {verdict}")


def _gpu_name(text: str) -> str:
    """Returns the name of a type of GPU as providers write it: `A100-80GB` for `nvidia-a100-80gb` and `A100 80GB`."""
    return re.sub(r"^NVIDIA-|(?<=\d)-(?=GB$)", "", re.sub(r"[ _]", "-", text.strip().upper()))


def _prepared(path: Path, name: str) -> Path:
    """Returns the path of a file to write, within a directory if `path` is one. Makes its parents."""
    if path.is_dir():
        return path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _base_parameters() -> frozenset[str]:
    from inspect import signature

    return frozenset(signature(BaseEnvironment.__init__).parameters)


_BASE_PARAMETERS = _base_parameters()
"""The parameters that Harbor itself passes. All others are options."""
