"""What callers pass in: sandboxes, images, networks. All are frozen dataclasses of plain Python values.

Durations are seconds as a number, or a `timedelta`. Sizes have their unit in the name. For a missing value the default of
the provider applies.

    >>> from sandbox_host import Image, Network, SandboxSpec
    >>> spec = SandboxSpec(image=Image(registry="debian", commands=["RUN echo"]), cpu=2, network=Network.blocked())
    >>> spec.to_json()["resources"]
    {'cpu_request_millicores': 2000}
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

from ._convert import Seconds, local, millis, pairs, plain, words

__all__ = [
    "BucketMount",
    "Dockerfile",
    "Gpu",
    "Image",
    "Limits",
    "Login",
    "Network",
    "Port",
    "Probe",
    "Pty",
    "SandboxSettings",
    "SandboxSpec",
    "SidecarSpec",
    "VolumeMount",
]


@dataclass(frozen=True)
class Login:
    """The login for a registry. It names a secret; credentials themselves never pass through a provider."""

    name: str
    """The name of the secret in the secret store of the provider, or of the credential of the manifest."""

    kind: str = "any-secret"
    """`static-secret` (user and password), `aws-secret`, `gcp-secret`, `any-secret` (one of these, recognised by its
    entries), `credential` (added by the host), or a name of the provider."""

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON of a call."""
        if self.kind in ("static-secret", "aws-secret", "gcp-secret", "any-secret", "credential"):
            return {self.kind: self.name}
        return {"other": [self.kind, self.name]}


@dataclass(frozen=True)
class Gpu:
    """Accelerators."""

    model: str
    """The model, by the name that the provider uses, such as `H100`."""

    count: int = 1
    """The number, at least 1."""

    @staticmethod
    def of(value: Gpu | str) -> Gpu:
        """Reads `MODEL` or `MODEL:COUNT`.

        >>> Gpu.of("H100:2")
        Gpu(model='H100', count=2)
        """
        if isinstance(value, Gpu):
            return value
        if not isinstance(value, str):
            raise TypeError(f"`gpu` must be a Gpu or text such as `H100:2`, not {type(value).__name__}")
        model, colon, count = value.rpartition(":")
        if not colon:
            return Gpu(value)
        if not count.isdigit():
            raise ValueError(f"`{value}` is no accelerator: write MODEL or MODEL:COUNT")
        return Gpu(model, int(count))

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON of a call."""
        return {"model": self.model, "count": self.count}


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    """A Dockerfile, as a file or as text, with the directory that it copies files from."""

    path: str | os.PathLike[str] | None = None
    """A local Dockerfile. Either this or `text` is needed."""

    text: str | None = None
    """The text of the Dockerfile."""

    context: str | os.PathLike[str] | None = None
    """The local directory with the files for COPY and ADD. They are uploaded, except those that `.dockerignore` names."""

    build_args: Mapping[str, str] = field(default_factory=dict)
    """Values for ARG instructions."""

    target: str | None = None
    """The stage to build; the last one if it is missing."""

    login: Login | None = None
    """The login for the images of FROM instructions."""

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON of a call."""
        if (self.path is None) == (self.text is None):
            raise ValueError("a Dockerfile needs either `path` or `text`")
        return plain(
            {
                "path": None if self.path is None else local(self.path),
                "text": self.text,
                "context": None if self.context is None else local(self.context),
                "build_args": pairs(self.build_args, "build_args"),
                "target": self.target,
                "login": self.login and self.login.to_json(),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image. At most one of `registry`, `id`, `named` and `dockerfile` is set; none means the default of the provider.

    Where an image is needed, text stands for a registry reference, and a `Dockerfile` for an image that is built from it.

        >>> Image.of("python:3.12-slim") == Image(registry="python:3.12-slim")
        True
    """

    registry: str | None = None
    """A registry reference, such as `python:3.12-slim`."""

    id: str | None = None
    """The id of an image or of a snapshot of the provider. Nothing is built."""

    named: str | None = None
    """An image that is published under this name at the provider."""

    dockerfile: Dockerfile | None = None
    """An image that is built from a Dockerfile."""

    commands: Sequence[str] = ()
    """Additional Dockerfile instructions, such as `RUN apt-get install -y git`."""

    secrets: Sequence[str] = ()
    """The names of secrets whose entries are environment variables of RUN instructions."""

    force: bool = False
    """Whether to build again even if the provider has the image."""

    gpu: Gpu | str | None = None
    """The accelerator during the build."""

    platform: str | None = None
    """The platform, such as `linux/arm64`."""

    builder_version: str | None = None
    """The version of the image builder of the provider."""

    login: Login | None = None
    """The login for the registry."""

    extra: Mapping[str, Any] = field(default_factory=dict)
    """Additional fields, with any JSON values."""

    @staticmethod
    def of(value: ImageLike) -> Image:
        """Returns the image that a value stands for."""
        if isinstance(value, Image):
            return value
        if isinstance(value, Dockerfile):
            return Image(dockerfile=value)
        if isinstance(value, str):
            return Image(registry=value)
        raise TypeError(f"an image is an Image, a Dockerfile or a registry reference, not {type(value).__name__}")

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON of a call."""
        sources = (self.registry, self.id, self.named, self.dockerfile)
        if sum(source is not None for source in sources) > 1:
            raise ValueError("an image has at most one of `registry`, `id`, `named` and `dockerfile`")
        return plain(
            {
                "registry": self.registry,
                "id": self.id,
                "named": self.named,
                "dockerfile": self.dockerfile and self.dockerfile.to_json(),
                "commands": words(self.commands, "commands"),
                "secrets": words(self.secrets, "secrets"),
                "force": self.force or None,
                "gpu": None if self.gpu is None else Gpu.of(self.gpu).to_json(),
                "platform": self.platform,
                "builder_version": self.builder_version,
                "login": self.login and self.login.to_json(),
                "extra": dict(self.extra),
            }
        )


ImageLike = Image | Dockerfile | str
"""What stands for an image: an `Image`, a `Dockerfile`, or a registry reference."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network policy of a sandbox.

    >>> Network.allow(domains=["*.example.org"]).to_json()
    {'outbound': {'allowed': {'cidrs': [], 'domains': ['*.example.org']}}, 'inbound_cidrs': []}
    """

    outbound: str = "open"
    """`open`, `blocked`, `allowed` (only `cidrs` and `domains`), or a name of the provider."""

    cidrs: Sequence[str] = ()
    """Permitted address ranges, such as `10.0.0.0/8`."""

    domains: Sequence[str] = ()
    """Permitted host names. `*.example.org` includes all names below."""

    inbound_cidrs: Sequence[str] = ()
    """The address ranges that may connect to the ports of the sandbox. None permits all."""

    settings: Any = None
    """The settings of a policy of the provider: any JSON."""

    @staticmethod
    def open() -> Network:
        """Returns the policy that permits all destinations."""
        return Network()

    @staticmethod
    def blocked() -> Network:
        """Returns the policy that permits no destination."""
        return Network(outbound="blocked")

    @staticmethod
    def allow(*, domains: Sequence[str] = (), cidrs: Sequence[str] = ()) -> Network:
        """Returns the policy that permits these destinations only."""
        return Network(outbound="allowed", domains=domains, cidrs=cidrs)

    def outbound_json(self) -> Any:
        """Returns the JSON of the outbound policy."""
        if self.outbound == "allowed":
            return {"allowed": {"cidrs": words(self.cidrs, "cidrs"), "domains": words(self.domains, "domains")}}
        if self.cidrs or self.domains:
            raise ValueError('`cidrs` and `domains` need outbound="allowed", or use `Network.allow`')
        if self.outbound in ("open", "blocked"):
            return self.outbound
        return {"other": [self.outbound, self.settings]}

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON of a call."""
        return {"outbound": self.outbound_json(), "inbound_cidrs": words(self.inbound_cidrs, "inbound_cidrs")}


@dataclass(frozen=True)
class Port:
    """A port of the sandbox that is reachable from outside."""

    number: int
    """The port, 1 to 65535."""

    kind: str = "tls"
    """`tls`, `h2` (TLS with HTTP/2) or `tcp`."""

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON of a call."""
        return {"number": self.number, "kind": self.kind}


@dataclass(frozen=True)
class VolumeMount:
    """A mount of a named volume of the provider."""

    volume: str
    """The name or the id of the volume."""

    path: str
    """The absolute path in the sandbox."""

    read_only: bool = False
    """Whether the mount is read-only."""

    sub_path: str | None = None
    """The directory of the volume to mount."""

    create: bool = False
    """Whether to create the volume if the name does not exist."""

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON of a call."""
        return {
            "volume": self.volume,
            "path": self.path,
            "read_only": self.read_only,
            "sub_path": self.sub_path,
            "create": self.create,
        }


@dataclass(frozen=True)
class BucketMount:
    """A mount of a bucket of an object store."""

    bucket: str
    """The name of the bucket."""

    path: str
    """The absolute path in the sandbox."""

    endpoint: str | None = None
    """The endpoint of an S3-compatible store."""

    prefix: str | None = None
    """Restricts the mount to objects with this prefix, which ends in `/`."""

    secret: str | None = None
    """The name of the secret with the credentials."""

    read_only: bool = False
    """Whether the mount is read-only."""

    extra: Mapping[str, Any] = field(default_factory=dict)
    """Additional fields, with any JSON values."""

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON of a call."""
        return {
            "bucket": self.bucket,
            "path": self.path,
            "endpoint": self.endpoint,
            "prefix": self.prefix,
            "secret": self.secret,
            "read_only": self.read_only,
            "extra": dict(self.extra),
        }


@dataclass(frozen=True, kw_only=True)
class Probe:
    """When a sandbox is ready: a port accepts a connection, or a command exits with 0."""

    tcp: int | None = None
    """The port."""

    command: Sequence[str] | None = None
    """The command."""

    interval: Seconds | None = None
    """The time between two checks."""

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON of a call."""
        if (self.tcp is None) == (self.command is None):
            raise ValueError("a Probe needs either `tcp` or `command`")
        check: dict[str, Any] = {"tcp": self.tcp} if self.command is None else {"exec": words(self.command, "command")}
        return plain({"check": check, "interval": millis(self.interval, "interval")})


@dataclass(frozen=True)
class Pty:
    """A terminal."""

    rows: int = 24
    """The height in lines."""

    columns: int = 80
    """The width in columns."""

    term: str = "xterm-256color"
    """The value of TERM."""

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON of a call."""
        return {"rows": self.rows, "columns": self.columns, "term": self.term}


def _entry_point(command: Sequence[str] | None, flag: bool, name: str, otherwise: str, flagged: str) -> Any:
    if command is None:
        return flagged if flag else otherwise
    if flag:
        raise ValueError(f"`command` and `{name}` cannot both be set")
    return {"command": words(command, "command")}


@dataclass(frozen=True, kw_only=True)
class SidecarSpec:
    """An additional container of a sandbox, with the same network and its own files."""

    name: str
    """The name, unique within the sandbox."""

    image: ImageLike = field(default_factory=Image)
    """The image."""

    command: Sequence[str] | None = None
    """The main process. Without it, the command of the image is run."""

    keep_alive: bool = False
    """Whether the container runs no process of its own, instead of the command of the image."""

    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables."""

    secrets: Sequence[str] = ()
    """The names of secrets."""

    workdir: str | None = None
    """The absolute working directory."""

    volumes: Sequence[VolumeMount] = ()
    """Volumes."""

    network: Network = field(default_factory=Network)
    """The policy for outbound connections."""

    extra: Mapping[str, Any] = field(default_factory=dict)
    """Additional fields, with any JSON values."""

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON of a call."""
        return plain(
            {
                "name": self.name,
                "image": Image.of(self.image).to_json(),
                "entry_point": _entry_point(self.command, self.keep_alive, "keep_alive", "image", "keep-alive"),
                "env": pairs(self.env, "env"),
                "secrets": words(self.secrets, "secrets"),
                "workdir": self.workdir,
                "volumes": [volume.to_json() for volume in self.volumes],
                "outbound": self.network.outbound_json(),
                "extra": dict(self.extra),
            }
        ) | {"image": Image.of(self.image).to_json()}


class SandboxSettings(TypedDict, total=False):
    """The fields of `SandboxSpec` as keyword arguments. See there for their meaning."""

    image: ImageLike
    command: Sequence[str] | None
    image_command: bool
    user: str | None
    env: Mapping[str, str]
    secrets: Sequence[str]
    workdir: str | None
    cpu: float | None
    cpu_limit: float | None
    memory_mib: int | None
    memory_limit_mib: int | None
    disk_mib: int | None
    gpu: Gpu | str | None
    lifetime: Seconds | None
    idle_timeout: Seconds | None
    regions: Sequence[str]
    network: Network
    ports: Sequence[Port | int]
    volumes: Sequence[VolumeMount]
    buckets: Sequence[BucketMount]
    name: str | None
    tags: Mapping[str, str]
    readiness: Probe | None
    sidecars: Sequence[SidecarSpec]
    pty: Pty | None
    proxy: str | None
    key: str | None
    options: Mapping[str, Any]
    extra: Mapping[str, Any]
    lease: bool


@dataclass(frozen=True, kw_only=True)
class SandboxSpec:
    """The definition of a sandbox. `dataclasses.replace` makes a changed copy."""

    image: ImageLike = field(default_factory=Image)
    """The image. Unless it is an id, it is built first without a log; `Provider.build` shows the log."""

    command: Sequence[str] | None = None
    """The main process, without a shell. The sandbox ends with it. Without it, the sandbox is kept alive."""

    image_command: bool = False
    """Whether the command of the image is the main process."""

    user: str | None = None
    """The user of all commands, by name or number, optionally with `:group`."""

    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of every command."""

    secrets: Sequence[str] = ()
    """The names of secrets whose entries become environment variables."""

    workdir: str | None = None
    """The absolute working directory."""

    cpu: float | None = None
    """Reserved processor time, in cores."""

    cpu_limit: float | None = None
    """The limit of the processor time, in cores."""

    memory_mib: int | None = None
    """Reserved memory, in MiB."""

    memory_limit_mib: int | None = None
    """The limit of the memory, in MiB."""

    disk_mib: int | None = None
    """The size of the disk, in MiB."""

    gpu: Gpu | str | None = None
    """Accelerators: a `Gpu`, or text such as `H100:2`."""

    lifetime: Seconds | None = None
    """The time after which the sandbox is ended."""

    idle_timeout: Seconds | None = None
    """The time without a command or a connection after which the sandbox is ended."""

    regions: Sequence[str] = ()
    """The regions in which it may run, by the names of the provider."""

    network: Network = field(default_factory=Network)
    """The network policy."""

    ports: Sequence[Port | int] = ()
    """The ports that are reachable from outside. A number stands for `Port(number)`."""

    volumes: Sequence[VolumeMount] = ()
    """Volumes."""

    buckets: Sequence[BucketMount] = ()
    """Buckets."""

    name: str | None = None
    """The name, unique among running sandboxes: 1 to 64 characters of `[A-Za-z0-9._-]`."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """The tags."""

    readiness: Probe | None = None
    """The readiness probe, for `Sandbox.wait_ready`."""

    sidecars: Sequence[SidecarSpec] = ()
    """Additional containers."""

    pty: Pty | None = None
    """The terminal of the main process."""

    proxy: str | None = None
    """The name of a proxy of the provider for outbound connections."""

    key: str | None = None
    """Makes creation idempotent: two calls with the same key return the same sandbox."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the provider, with any JSON values. See `Description.options_schema`."""

    extra: Mapping[str, Any] = field(default_factory=dict)
    """Additional fields, with any JSON values."""

    lease: bool = True
    """Whether the sandbox gets a lease, if the provider was opened with `owner`."""

    @staticmethod
    def of(spec: SandboxSpec | None, settings: SandboxSettings) -> SandboxSpec:
        """Returns a specification with changed settings. Raises `TypeError` for an unknown setting."""
        from dataclasses import replace

        if spec is None:
            spec = SandboxSpec()
        elif not isinstance(spec, SandboxSpec):
            raise TypeError(f"the specification must be a SandboxSpec, not {type(spec).__name__}")
        known = {each.name for each in fields(SandboxSpec)}
        for name in settings:
            if name not in known:
                raise TypeError(f"there is no setting `{name}`; the settings are: {', '.join(sorted(known))}")
        return replace(spec, **settings)

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON of a call."""
        resources = {
            "cpu_request_millicores": _millicores(self.cpu, "cpu"),
            "cpu_limit_millicores": _millicores(self.cpu_limit, "cpu_limit"),
            "memory_request_mib": self.memory_mib,
            "memory_limit_mib": self.memory_limit_mib,
            "disk_mib": self.disk_mib,
            "gpu": None if self.gpu is None else Gpu.of(self.gpu).to_json(),
        }
        values = {
            "entry_point": _entry_point(self.command, self.image_command, "image_command", "keep-alive", "image"),
            "user": self.user,
            "env": pairs(self.env, "env"),
            "secrets": words(self.secrets, "secrets"),
            "workdir": self.workdir,
            "resources": plain(resources),
            "lifetime": millis(self.lifetime, "lifetime"),
            "idle_timeout": millis(self.idle_timeout, "idle_timeout"),
            "regions": words(self.regions, "regions"),
            "ports": [(port if isinstance(port, Port) else Port(port)).to_json() for port in self.ports],
            "volumes": [volume.to_json() for volume in self.volumes],
            "buckets": [bucket.to_json() for bucket in self.buckets],
            "name": self.name,
            "tags": pairs(self.tags, "tags"),
            "readiness": self.readiness and self.readiness.to_json(),
            "sidecars": [sidecar.to_json() for sidecar in self.sidecars],
            "pty": self.pty and self.pty.to_json(),
            "proxy": self.proxy,
            "key": self.key,
            "options": [[name, value] for name, value in self.options.items()],
            "extra": [[name, value] for name, value in self.extra.items()],
            "lease": None if self.lease else False,
        }
        return plain(values) | {"image": Image.of(self.image).to_json(), "network": self.network.to_json()}


def _millicores(cores: float | None, name: str) -> int | None:
    if cores is None:
        return None
    if isinstance(cores, bool) or not isinstance(cores, (int, float)):
        raise TypeError(f"`{name}` must be a number of cores, not {type(cores).__name__}")
    return round(cores * 1000)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of the component that implements a provider. For a missing value the default applies."""

    memory_bytes: int | None = None
    """The memory of one instance, at most 1 GiB."""

    table_elements: int | None = None
    """The number of elements of its tables."""

    call_time: Seconds | None = None
    """The time limit of one call, waiting included."""

    answer_time: Seconds | None = None
    """The time until a service begins to answer a look-up."""

    overdue_time: Seconds | None = None
    """The time after the time limit of a command for which its end is awaited."""

    compute_time: Seconds | None = None
    """The time for which one call may compute."""

    resources: int | None = None
    """The number of handles of one instance."""

    header_bytes: int | None = None
    """The size of the headers of one request or response."""

    body_bytes: int | None = None
    """The size of one body."""

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON of a call."""
        return plain(
            {
                "memory": self.memory_bytes,
                "table_elements": self.table_elements,
                "call_time": millis(self.call_time, "call_time"),
                "answer_time": millis(self.answer_time, "answer_time"),
                "overdue_time": millis(self.overdue_time, "overdue_time"),
                "compute_time": millis(self.compute_time, "compute_time"),
                "resources": self.resources,
                "header_bytes": self.header_bytes,
                "body_bytes": self.body_bytes,
            }
        )
