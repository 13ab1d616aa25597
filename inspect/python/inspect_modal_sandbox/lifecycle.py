"""From a configuration to running sandboxes and back: what Inspect's hooks do.

State belongs to one run of Inspect's (`Run`): images that were built, directories that relative paths start at, sandboxes
that live. Nothing is keyed by task name, of which Inspect uses three forms.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ipaddress
import json
import os
import re
import time
import uuid
from collections.abc import Coroutine, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.util import SandboxUnavailableError, trace_action, trace_message

from . import pacing, plan
from .environment import ModalSandboxEnvironment
from .environment import logger as traces
from .errors import SETTINGS, call_error, is_unknown_user
from .nativeerror import NativeError
from .provider import opened, owner

if TYPE_CHECKING:
    from inspect_ai.util._sandbox.environment import PortMapping

    from ._native import Provider

logger = getLogger(__name__)

T = TypeVar("T")

TAG = "inspect"
"""Beginning of the names of our tags; the leases have tags of their own."""

VOLUMES_TAG = "inspect-volumes"
"""Tells the volumes that belong to a sandbox: the beginning of their names, and how many there are."""

KEPT_TAG = "inspect-kept"
"""Marks a sandbox that was left on purpose: it has no lease, and no sweep ends it."""

ADDRESS = """
while read -r mark address rest; do
  case "$mark $address" in
    "|-- "*) last=$address ;;
    "/32 host") case $last in 127.*) ;; *) echo "$last"; exit ;; esac ;;
  esac
done 2>/dev/null </proc/net/fib_trie
hostname -I 2>/dev/null || hostname -i 2>/dev/null
exit 0
"""
"""Prints an address of the container that is not the loopback's, if it has one."""

HOSTS = """
while [ $# -gt 1 ]; do
  case $1 in
    ?) getent hosts "$2" >/dev/null 2>&1 || printf '127.0.0.1\\t%s\\n' "$2" >>/etc/hosts || exit 1 ;;
    *) printf '%s\\t%s\\n' "$1" "$2" >>/etc/hosts || exit 1 ;;
  esac
  shift 2
done
"""
"""Gives names their addresses. One without an address gets the loopback unless something else knows it: a container without
a network can be reached at most by that."""

ENDED_SECS = 2.0
"""How long a container whose commands fail is waited for to have ended."""

TUNNEL_SECS = 30.0
"""How long ports may take to be assigned."""

OUTPUT_BYTES = 1000
"""Of the output of a service that has ended, in errors."""

ENDING_SECS = 60.0
"""How long the end of a task waits for what is still being created or terminated."""

EXIT_SECS = 20.0
"""How long the end of the process waits for the same."""

MOST = 10_000
"""Sandboxes that one sweep looks at."""

AT_ONCE = 20
"""Sandboxes that are terminated at the same time."""

PROBE = 'pwd; while read -r key uid _; do [ "$key" = Uid: ] && echo "$uid"; done </proc/self/status; exit 0'
"""What each container is asked first: where it is, and who."""


@dataclass
class Metrics:
    """What a sample's sandbox cost; goes into the sample's log."""

    create_secs: float = 0.0
    start_secs: float = 0.0
    first_exec_secs: float | None = None
    execs: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    retries: int = 0
    """Requests to the control plane that were repeated; those to a sandbox's own router are not told."""

    def executed(self, secs: float) -> None:
        self.execs += 1
        if self.first_exec_secs is None:
            self.first_exec_secs = secs

    def transferred(self, sent: int, received: int) -> None:
        self.bytes_sent += sent
        self.bytes_received += received

    def as_dict(self) -> dict[str, Any]:
        """Times to a millisecond."""
        values = vars(self).items()
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in values}


@dataclass
class Created:
    """A sandbox that was made for a sample."""

    id: str
    provider: Provider
    run: Run
    tags: dict[str, str]
    volumes: list[str] = field(default_factory=list)
    """Volumes that belong to it and end with it."""
    metrics: Metrics = field(default_factory=Metrics)
    has_ports: bool = False
    ports: list[PortMapping] | None = None
    """Where its ports are reached, once that has been asked for."""


@dataclass
class Run:
    """What one run of Inspect's has made."""

    images: dict[tuple[int, str], tuple[str, str | None]] = field(default_factory=dict)
    """Id and working directory of an image, by provider and definition."""
    building: dict[tuple[int, str], asyncio.Lock] = field(default_factory=dict)
    directories: dict[object, list[Path]] = field(default_factory=dict)
    """The directories that `task_init` was called in with a configuration of this value. Tasks in different directories may
    have equal configurations, so the value alone does not say where relative paths start (`_directory`)."""
    alive: dict[str, Created] = field(default_factory=dict)
    creating: set[asyncio.Task[tuple[str, int]]] = field(default_factory=set)
    warned: set[str] = field(default_factory=set)
    swept: set[int] = field(default_factory=set)


_run: ContextVar[Run | None] = ContextVar("inspect_modal_sandbox_run", default=None)


def current_run() -> Run:
    """The state of Inspect's run; of this context where Inspect has none, as when hooks are called by hand."""
    try:
        from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_state

        state = sandbox_lifecycle_state()
    except ImportError:
        state = None
    if state is not None:
        return _noted(state.get(Run))
    run = _run.get()
    if run is None:
        run = Run()
        _run.set(run)
    return _noted(run)


_runs: list[Run] = []
"""Those of this process, for its end."""


def _noted(run: Run) -> Run:
    if not any(run is known for known in _runs):
        if not _runs:
            # Imported first, so that its own hook comes after ours.
            from . import _native  # noqa: F401

            atexit.register(_at_exit, os.getpid())
        _runs.append(run)
    return run


# ---- before the samples ---------------------------------------------------------------------------------------------


def image_variables(config: object, metadata: Mapping[str, Any]) -> dict[str, str]:
    """Variables that have to be set for a `task_init` of this sample's own: those of its metadata, where its images
    depend on them."""
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
    # What is included or extended may name them as well.
    elsewhere = "include:" in text or "extends:" in text
    names = {metadata_variable(key): str(value) for key, value in metadata.items()}
    variables = {name: value for name, value in names.items() if elsewhere or name in text}
    if not variables:
        return {}

    def images(metadata: Mapping[str, Any]) -> list[str] | None:
        try:
            return [service.image_key() for service in plan.make(config, Path.cwd(), metadata).services]
        except PrerequisiteError:
            return None

    return variables if images(metadata) != images({}) else {}


def metadata_variable(key: str) -> str:
    """The variable by which a compose file refers to an entry of a sample's metadata; as Inspect's Docker provider."""
    return f"SAMPLE_METADATA_{key.replace(' ', '_').upper()}"


async def prepare(config: object) -> None:
    """Checks credentials, sweeps what earlier runs have left, and builds the images, with their log on the screen.

    Raises:
        PrerequisiteError: for whatever would fail every sample.
    """
    run = current_run()
    here = Path.cwd()
    known = run.directories.setdefault(_directory_key(config), [])
    if here not in known:
        known.append(here)
    made = plan.make(config, here, {})
    provider = await opened(made.app, made.environment)
    if id(provider) not in run.swept:
        run.swept.add(id(provider))
        await _greet(provider)
    for warning in made.warnings:
        _warn(run, warning)
    for service in made.services:
        await _image(run, provider, service, loud=True)


async def _greet(provider: Provider) -> None:
    try:
        with trace_action(traces, "Modal", "check credentials"):
            await provider.check()
        with trace_action(traces, "Modal", "sweep"):
            volumes = {row[0]: volumes_of(dict(row[3])) for row in await provider.list([("sandbox-owner", owner())], MOST)}
            swept = await provider.sweep(owner())
            await _delete(provider, [volume for id in swept for volume in volumes.get(id, [])])
    except NativeError as error:
        raise PrerequisiteError(error.message) from None
    if swept:
        print(f"Terminated {len(swept)} Modal sandboxes that earlier runs had left: {', '.join(swept)}")


def _warn(run: Run, text: str) -> None:
    if text not in run.warned:
        run.warned.add(text)
        logger.warning(text)


async def _image(run: Run, provider: Provider, service: plan.Service, loud: bool) -> tuple[str, str | None]:
    """A service's image, with the directories that the service is to find there."""
    built = await _built(run, provider, service.name, service.image, loud)
    if not service.directories:
        return built
    image, workdir = built
    # A WORKDIR line makes a directory that is missing, as Docker does for a volume, without a shell. What the image has there
    # stays, and the working directory is again that of the image.
    lines = [f"WORKDIR {directory}" for directory in [*service.directories, workdir or "/"]]
    return await _built(run, provider, service.name, {"source": {"id": image}, "commands": lines}, loud)


async def _built(run: Run, provider: Provider, service: str, image: dict[str, Any], loud: bool) -> tuple[str, str | None]:
    """An image, built if this run has not built it yet."""
    key = (id(provider), plan.image_key(image))
    async with run.building.setdefault(key, asyncio.Lock()):
        if key in run.images:
            return run.images[key]
        try:
            with trace_action(traces, "Modal", "build the image of %s", service):
                build = await provider.build(json.dumps(image))
                for entry in build.skipped:
                    _warn(run, f"The image of the service '{service}': not in the build context: {entry}")
                begun = False
                while (text := await build.next()) is not None:
                    if loud and not begun:
                        print(f"Building the image of the service '{service}' on Modal")
                        begun = True
                    if loud:
                        print(text, end="" if text.endswith("\n") else "\n", flush=True)
        except NativeError as error:
            raise PrerequisiteError(f"The image of the service '{service}': {error.message}") from None
        made = build.image
        if made is None:
            raise PrerequisiteError(f"The image of the service '{service}' was not built.")
        run.images[key] = made
        return made


# ---- a sample -------------------------------------------------------------------------------------------------------


async def start(task_name: str, config: object, metadata: Mapping[str, Any]) -> dict[str, ModalSandboxEnvironment]:
    """Makes a sample's sandbox and gives its containers, the default one first. What fails half way is ended again."""
    run = current_run()
    made = plan.make(config, _directory(run, config, metadata), metadata)
    provider = await opened(made.app, made.environment)
    for warning in made.warnings:
        _warn(run, warning)
    images = [await _image(run, provider, service, loud=False) for service in made.services]
    tags = {**made.tags, **_tags(task_name, metadata)}
    volumes = _own_volumes(made, tags)
    spec = _specification(made, [image for image, _ in images], tags)
    begun = time.monotonic()
    await pacing.turn(provider)
    asked = time.monotonic()
    try:
        sandbox, retries = await _create(run, provider, spec, tags, volumes)
    except NativeError as error:
        with anyio.CancelScope(shield=True):
            await _delete(provider, volumes)
        # Not found: a secret or a volume that the configuration names.
        if error.kind in SETTINGS | {"invalid-argument", "unsupported", "not-found"}:
            raise PrerequisiteError(error.message) from None
        raise RuntimeError(error.message) from None
    created = Created(sandbox, provider, run, tags, volumes, has_ports=bool(made.sandbox.get("ports")))
    created.metrics.create_secs = time.monotonic() - asked
    created.metrics.retries += retries
    run.alive[sandbox] = created
    try:
        environments = await _services(created, made, images)
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await _terminate(created)
        if isinstance(error, NativeError):
            if is_unknown_user(error):
                raise PrerequisiteError(f"The configuration's user: {error.reason}") from None
            raise (call_error(error) or RuntimeError(error.message)) from None
        raise
    created.metrics.start_secs = time.monotonic() - begun
    return environments


def _own_volumes(made: plan.Plan, tags: dict[str, str]) -> list[str]:
    """Gives the volumes that belong to the sample names that no other sample has, and a tag by which they are found when only
    the sandbox is known."""
    run = re.sub(r"[^A-Za-z0-9]", "", tags.get(f"{TAG}-run", ""))[:8]
    prefix = "-".join(part for part in ("inspect", run, _readable(tags)[:24].strip("-."), uuid.uuid4().hex[:8]) if part)
    names: dict[str, str] = {}
    for service in made.services:
        for volume in service.volumes:
            if volume.pop("sample", False):
                volume["volume"] = names.setdefault(volume["volume"], f"{prefix}.{len(names)}")
    if names:
        tags[VOLUMES_TAG] = f"{prefix}.{len(names)}"
    return list(names.values())


def volumes_of(tags: Mapping[str, str]) -> list[str]:
    """The volumes that belong to the sandbox with these tags."""
    prefix, _, number = tags.get(VOLUMES_TAG, "").rpartition(".")
    return [f"{prefix}.{index}" for index in range(int(number))] if prefix and number.isdigit() else []


async def _delete(provider: Provider, volumes: Iterable[str]) -> bool:
    """Deletes volumes; false if one may be left."""
    done = True
    for volume in volumes:
        try:
            with trace_action(traces, "Modal", "delete the volume %s", volume):
                await provider.delete_volume(volume)
        except NativeError as error:
            if error.kind != "not-found":
                trace_message(traces, "Modal", f"The volume {volume} was not deleted: {error.message}")
                done = False
    return done


async def _create(
    run: Run, provider: Provider, spec: dict[str, Any], tags: dict[str, str], volumes: list[str]
) -> tuple[str, int]:
    """Makes the sandbox. If we are cancelled the creation goes on, and its sandbox is ended as soon as it is there: a
    request that was sent cannot be taken back."""

    async def creation() -> tuple[str, int]:
        with trace_action(traces, "Modal", "create %s", spec["name"]):
            return await pacing.create(provider, json.dumps(spec))

    task = asyncio.ensure_future(creation())
    run.creating.add(task)
    task.add_done_callback(run.creating.discard)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:

        def abandoned(task: asyncio.Task[tuple[str, int]]) -> None:
            if not task.cancelled() and task.exception() is None:
                sandbox, _ = task.result()
                run.alive[sandbox] = Created(sandbox, provider, run, tags, volumes)

        task.add_done_callback(abandoned)
        raise


async def _container(
    created: Created, service: plan.Service, container: str | None, workdir: str | None
) -> ModalSandboxEnvironment:
    """A container that answers. It is asked for its working directory, which relative paths start at."""
    environment = ModalSandboxEnvironment(created, service.name, container, service.workdir or workdir or "/", None)
    if service.user is not None:
        environment = ModalSandboxEnvironment(created, service.name, container, service.workdir or workdir or "/", service.user)
    argv = ["/bin/sh", "-c", PROBE]
    run = created.provider.run(
        created.id,
        argv,
        stdin=None,
        cwd=service.workdir,
        env=[],
        user=service.user,
        timeout=None,
        stdout_max=8192,
        stderr_max=8192,
        container=container,
    )
    with trace_action(traces, "Modal", "start of %s (%s)", created.id, service.name):
        result = await run
    if result.verdict in ("sandbox-ended", "lost"):
        raise SandboxUnavailableError(f"The service '{service.name}' did not start: {result.detail}")
    lines = result.stdout.decode(errors="replace").splitlines()
    if result.verdict == "exited" and result.code == 0 and lines and lines[0].startswith("/"):
        return ModalSandboxEnvironment(created, service.name, container, lines[0], service.user)
    if result.code in (126, 127):
        # An image without a shell. Its commands can be run all the same.
        return environment
    complaint = (result.stderr or result.stdout).decode(errors="replace").strip()
    raise RuntimeError(f"The service '{service.name}' does not answer as it should: {complaint}")


class _Ended(Exception):
    """A service's container has ended by itself."""

    def __init__(self, service: str, code: int, why: str, output: str) -> None:
        said = f" Its last output: {output}" if output else ""
        super().__init__(f"The service '{service}' has ended: {why}.{said}")
        self.code = code


async def _watched(created: Created, service: str, sidecar: bool, call: Coroutine[Any, Any, T]) -> T:
    """What a call to a container gives.

    Raises:
        _Ended: instead of the call's error, if the reason of that is the end of the container.
    """
    try:
        return await call
    except (NativeError, SandboxUnavailableError, RuntimeError):
        end = None
        if sidecar:
            with contextlib.suppress(NativeError):
                end = await created.provider.wait_sidecar(created.id, service, ENDED_SECS)
        if end is None:
            raise
        raise _Ended(service, *end, await _last_output(created, service)) from None


async def _last_output(created: Created, service: str) -> str:
    """The end of what a sidecar has printed, as far as the provider has it."""
    try:
        return (await created.provider.logs(created.id, service, OUTPUT_BYTES)).strip()
    except NativeError as error:
        trace_message(traces, "Modal", f"The output of {service} cannot be read: {error.message}")
        return ""


async def _services(
    created: Created, made: plan.Plan, images: list[tuple[str, str | None]]
) -> dict[str, ModalSandboxEnvironment]:
    """Waits until all containers of a sandbox are there and healthy, and makes those that were to wait for others.

    A sidecar that ends with exit code 0 has done what it had to do, and is no environment; any other end is an error.
    """
    services = {service.name: service for service in made.services}
    main = made.services[0].name
    later = {service.name for service in made.later()}
    ending = {source for service in made.services for source, wanted in service.after.items() if wanted == "completed"}
    environments: dict[str, ModalSandboxEnvironment] = {}
    addresses: dict[str, str] = {}
    healthy: set[str] = set()

    async def watched(name: str, call: Coroutine[Any, Any, T]) -> T | None:
        try:
            return await _watched(created, name, name != main, call)
        except _Ended as ended:
            if ended.code != 0:
                raise RuntimeError(str(ended)) from None
            environments.pop(name, None)
            addresses.pop(name, None)
            return None

    async def be_healthy(service: plan.Service) -> None:
        if service.healthcheck is None or service.name in healthy:
            return
        if service.name in environments:
            await watched(service.name, _healthy(environments[service.name], service.healthcheck))
        if service.name not in environments:
            waiting = [other.name for other in made.services if other.after.get(service.name) == "healthy"]
            if waiting:
                raise RuntimeError(f"The service '{service.name}' has ended, and {', '.join(waiting)} waits for its health.")
        healthy.add(service.name)

    def called(name: str, others: Iterable[str]) -> list[tuple[str, str]]:
        """Addresses and names that a service knows others, and itself, by."""
        # What has no address is not reached by any: its name leads to the loopback.
        near = {name, *services[name].peers}
        known = [other for other in others if other in addresses and (other in near or not addresses[other])]
        return [(addresses[other], alias) for other in known for alias in (other, *services[other].names)]

    async def arrived(names: list[str]) -> None:
        """These containers are there: they and those before get to know each other."""

        async def look(name: str) -> None:
            index = made.services.index(services[name])
            container = None if name == main else name
            found = await watched(name, _container(created, services[name], container, images[index][1]))
            if found is None:
                return
            environments[name] = found
            address = await watched(name, _address(found)) if len(services) > 1 else ""
            if address is not None:
                addresses[name] = address

        await asyncio.gather(*[look(name) for name in names])
        calls = []
        for name, environment in environments.items():
            pairs = [] if len(services) == 1 else called(name, list(environments) if name in names else names)
            if name in names:
                pairs += [(address, host) for host, address in services[name].hosts.items()]
            if pairs:
                calls.append(watched(name, _introduce(environment, pairs)))
        await asyncio.gather(*calls)

    await arrived([name for name in services if name not in later and name not in ending])
    for service in made.services:
        if service.name not in later:
            continue
        for source, wanted in service.after.items():
            if wanted == "healthy":
                await be_healthy(services[source])
            elif wanted == "completed":
                await _completed(created, source)
        image = images[made.services.index(service)][0]
        with trace_action(traces, "Modal", "add %s to %s", service.name, created.id):
            await created.provider.add_sidecar(created.id, json.dumps(_sidecar(service, image)))
        if service.name not in ending:
            await arrived([service.name])
    for service in made.services:
        if service.name not in ending:
            await be_healthy(service)

    async def still_there(name: str) -> None:
        end = await created.provider.wait_sidecar(created.id, name, 0.0)
        if end is not None:
            environments.pop(name, None)
            if end[0] != 0:
                raise RuntimeError(str(_Ended(name, *end, await _last_output(created, name))))

    # Some have answered, and ended since.
    await asyncio.gather(*[still_there(name) for name in environments if name != main])
    return {name: environments[name] for name in services if name in environments}


async def _completed(created: Created, service: str) -> None:
    """Waits until a service that has something to do before others start has done it."""
    with trace_action(traces, "Modal", "end of %s in %s", service, created.id):
        while (end := await created.provider.wait_sidecar(created.id, service, 50.0)) is None:
            pass
    code, why = end
    if code != 0:
        said = await _last_output(created, service)
        output = f" Its last output: {said}" if said else ""
        raise RuntimeError(f"The service '{service}', which others depend on, did not complete: {why}.{output}")


async def _address(environment: ModalSandboxEnvironment) -> str:
    """The address by which other containers reach this one; empty if it has none or cannot say."""
    result = await environment.run(["/bin/sh", "-c", ADDRESS], user=None)
    words = result.stdout.decode(errors="replace").split() if (result.verdict, result.code) == ("exited", 0) else []
    for word in words:
        with contextlib.suppress(ValueError):
            if not ipaddress.ip_address(word).is_loopback:
                return word
    return ""


async def _introduce(environment: ModalSandboxEnvironment, names: list[tuple[str, str]]) -> None:
    """Makes names resolve in a container: pairs of address and name."""
    words = [word for address, name in names for word in (address or "-", name)]
    try:
        result = await environment.run(["/bin/sh", "-c", HOSTS, "sh", *words], user="root")
        said = "" if (result.verdict, result.code) == ("exited", 0) else result.stderr.decode(errors="replace").strip()
    except NativeError as error:
        said = error.message
    if said:
        _warn(environment.created.run, f"The names of services do not resolve in '{environment.service}': {said}")


async def _healthy(environment: ModalSandboxEnvironment, check: plan.Healthcheck) -> None:
    """Waits until the service's health check passes, as often and as long as it says."""
    begun = time.monotonic()
    failures = 0
    while True:
        result = await environment.run(check.argv, timeout=check.timeout)
        if result.verdict == "exited" and result.code == 0:
            return
        if result.verdict in ("sandbox-ended", "lost"):
            raise SandboxUnavailableError(f"The service '{environment.service}' ended: {result.detail}")
        starting = time.monotonic() - begun < check.start_period
        if not starting:
            failures += 1
        if failures >= check.retries:
            said = (result.stdout + result.stderr).decode(errors="replace").strip()[-1000:]
            raise RuntimeError(f"The service '{environment.service}' is not healthy: {said or result.code}")
        await anyio.sleep(min(check.start_interval, check.interval) if starting else check.interval)


def _specification(made: plan.Plan, images: list[str], tags: dict[str, str]) -> dict[str, Any]:
    main = made.services[0]
    later = made.later()
    spec = {
        **made.sandbox,
        "image": images[0],
        "command": main.command,
        "env": list(main.env.items()),
        "secrets": main.secrets,
        "workdir": main.workdir,
        "volumes": main.volumes,
        "outbound": _connected(made.outbound),
        "name": _name(tags),
        "tags": list(tags.items()),
        "sidecars": [
            _sidecar(service, image)
            for service, image in zip(made.services, images, strict=True)
            if service is not main and service not in later
        ],
    }
    return {name: value for name, value in spec.items() if value is not None}


def _connected(outbound: Any) -> Any:
    """The network of a container. Services that share an internal network reach each other and nothing else, which is what
    an allow-list of nothing does; what is blocked has no address to be reached at."""
    return {"allowed": {}} if outbound == "internal" else outbound


def _sidecar(service: plan.Service, image: str) -> dict[str, Any]:
    return {
        "name": service.name,
        "image": image,
        "command": service.command,
        "env": list(service.env.items()),
        "secrets": service.secrets,
        "workdir": service.workdir,
        "volumes": service.volumes,
        "outbound": _connected(service.outbound),
    }


def _tags(task_name: str, metadata: Mapping[str, Any]) -> dict[str, str]:
    """Whose sandbox it is, in Inspect's terms."""
    from inspect_ai.log._samples import sample_active

    tags = {f"{TAG}-task": task_name, f"{TAG}-sample": metadata.get("__sample_id__", "")}
    sample = sample_active()
    if sample is not None:
        tags |= {
            f"{TAG}-task": sample.task,
            f"{TAG}-eval": sample.eval_id,
            f"{TAG}-run": sample.run_id,
            f"{TAG}-uuid": sample.sample_uuid,
            f"{TAG}-epoch": sample.epoch,
        }
    return {name: str(value)[:63] for name, value in tags.items() if value not in (None, "")}


def _name(tags: Mapping[str, str]) -> str:
    """A name to recognise it by, unique among the live ones."""
    return f"{_readable(tags)[:46]}-{uuid.uuid4().hex[:12]}".lstrip("-")


def _readable(tags: Mapping[str, str]) -> str:
    """Task, sample and epoch, as a name may have them."""
    parts = [tags.get(f"{TAG}-{part}", "") for part in ("task", "sample", "epoch")]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(part for part in parts if part)).strip("-.")


# ---- afterwards -----------------------------------------------------------------------------------------------------


async def ports(created: Created) -> list[PortMapping] | None:
    """Where the ports of a sandbox are reached; `None` if it has none, or if that is not known."""
    from inspect_ai.util._sandbox.environment import HostMapping, PortMapping

    if created.has_ports and created.ports is None:
        try:
            found = await created.provider.tunnels(created.id, TUNNEL_SECS)
        except NativeError as error:
            trace_message(traces, "Modal", f"The ports of {created.id} are not known: {error.message}")
            return None
        created.ports = [
            PortMapping(container_port=inside, protocol="tcp", mappings=[HostMapping(host_ip=host, host_port=outside)])
            for inside, host, outside in found
        ]
    return created.ports


async def finish(created: Created, interrupted: bool) -> None:
    """The sample is over. After an interruption nothing is done here: the task's end does it where it can be seen."""
    with contextlib.suppress(Exception):
        from inspect_ai.log import transcript

        transcript().info({"sandbox": created.id, **created.metrics.as_dict()}, source="modal")
    if not interrupted:
        await _terminate(created)


async def _terminate(created: Created) -> bool:
    """Ends a sandbox; what fails is said in the log and left to the end of the task."""
    try:
        with trace_action(traces, "Modal", "terminate %s", created.id):
            await created.provider.terminate(created.id)
    except NativeError as error:
        if error.kind != "not-found":
            trace_message(traces, "Modal", f"{created.id} was not terminated: {error.message}")
            return False
    if not await _delete(created.provider, created.volumes):
        return False
    created.run.alive.pop(created.id, None)
    return True


async def end(cleanup: bool) -> None:
    """The tasks are over: ends what is left, or says what was left on purpose and how to end it."""
    run = current_run()
    if run.creating:
        with anyio.move_on_after(ENDING_SECS):
            await asyncio.gather(*run.creating, return_exceptions=True)
    left = list(run.alive.values())
    if not left:
        return
    if not cleanup:
        await _leave(left)
        return
    print(f"Terminating {len(left)} Modal sandboxes (please do not interrupt this)")
    slots = asyncio.Semaphore(AT_ONCE)

    async def terminate(created: Created) -> bool:
        async with slots:
            with anyio.move_on_after(ENDING_SECS):
                return await _terminate(created)
            return False

    results = await asyncio.gather(*[terminate(created) for created in left])
    failed = [created.id for created, done in zip(left, results, strict=True) if not done]
    if failed:
        logger.warning(
            "Not terminated: %s. They end by themselves; sooner with `inspect sandbox cleanup modal`.",
            ", ".join(failed),
        )


def _at_exit(process: int) -> None:
    """Ends what is left when the process ends before the tasks could: a second Ctrl-C takes the event loop away, however soon
    it follows the first."""
    left = [created for run in _runs for created in run.alive.values()]
    if not left or os.getpid() != process:
        return
    print(f"Terminating {len(left)} Modal sandboxes (please do not interrupt this)", flush=True)

    async def terminate() -> None:
        with anyio.move_on_after(EXIT_SECS):
            await asyncio.gather(*[_terminate(created) for created in left])

    # Another interruption ends the waiting too.
    with contextlib.suppress(Exception, KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(terminate())
    failed = [created.id for created in left if created.id in created.run.alive]
    if failed:
        print(
            f"Not terminated: {', '.join(failed)}. They end by themselves; sooner with `inspect sandbox cleanup modal`.",
            flush=True,
        )


async def _leave(left: list[Created]) -> None:
    """Takes the leases off, so that no sweep ends what is meant to stay, and says how to end it."""
    print("These Modal sandboxes are left running:")
    for created in left:
        try:
            leased = await created.provider.tags(created.id)
            tags = [(name, value) for name, value in leased if name != "sandbox-lease"]
            await created.provider.leave(created.id, [*tags, (KEPT_TAG, "yes")])
        except NativeError as error:
            trace_message(traces, "Modal", f"{created.id} keeps its lease: {error.message}")
        created.run.alive.pop(created.id, None)
        sample = created.tags.get(f"{TAG}-sample", "")
        print(f"  {created.id}  {created.tags.get(f'{TAG}-task', '')} {sample}".rstrip())
        print(f"    shell:   sandbox shell {created.id}")
        print(f"    cleanup: inspect sandbox cleanup modal {created.id}")
    print("All of them: inspect sandbox cleanup modal")


def _directory(run: Run, config: object, metadata: Mapping[str, Any]) -> Path:
    """Where relative paths of a sample's configuration start: the directory of the sample's task.

    Raises:
        PrerequisiteError: if tasks in several directories have this configuration, it means something else in each, and
            Inspect's records do not say which of them the sample belongs to.
    """
    known = run.directories.get(_directory_key(config), [])
    if len(known) < 2:
        return known[0] if known else Path.cwd()
    own = _task_directory()
    if own in known:
        return own
    first, *others = [plan.make(config, directory, metadata) for directory in known]
    if any(other != first for other in others):
        raise PrerequisiteError(
            f"Tasks in {' and '.join(map(str, known))} have the same configuration of the sandbox, and it is not known which "
            "of them this sample belongs to: write its paths as absolute ones."
        )
    return known[0]


def _task_directory() -> Path | None:
    """The directory of the running sample's task; `None` if Inspect's records do not say. A task without a file has the
    directory that Inspect was started in."""
    try:
        from inspect_ai._control.eval_state import get_eval_state
        from inspect_ai.log._samples import sample_active

        sample = sample_active()
        state = get_eval_state(sample.eval_id) if sample is not None else None
        spec = getattr(getattr(state, "live", None), "eval", None)
        if spec is None:
            return None
        return (Path.cwd() / spec.task_file).parent.resolve() if spec.task_file else Path.cwd()
    except (ImportError, AttributeError):
        return None


def _directory_key(config: object) -> object:
    """By what a configuration is known again in `sample_init`, together with the directory."""
    try:
        hash(config)
    except TypeError:
        return repr(config)
    return config
