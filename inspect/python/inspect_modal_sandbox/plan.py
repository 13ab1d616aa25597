"""What a configuration comes to: services, each with an image to be built and what its container is to be.

Everything that Inspect may hand over ends here: nothing, a path, a compose document, our own object. What follows
(`lifecycle`) only knows plans.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspect_ai._util.error import PrerequisiteError

if TYPE_CHECKING:
    from .config import ModalSandboxConfig

KEEP_ALIVE = ["tail", "-f", "/dev/null"]
"""What a container does when nothing is asked of it; as Inspect's Docker provider has it."""

DEFAULT_IMAGE = "aisiuk/inspect-tool-support"
"""Image without any configuration; as Inspect's Docker provider has it."""

LIFETIME_SECS = 86400
"""How long a sandbox lives at most: the longest that Modal gives."""

NETWORK_VARIABLE = "INSPECT_MODAL_NETWORK"
"""The one switch: `open` gives sandboxes that say nothing of the network the internet. `blocked` is what holds without it."""


class ConfigError(PrerequisiteError):
    """A configuration that cannot be honoured; the text names file and key."""


@dataclass
class Healthcheck:
    """A command that tells by exit code 0 that a service can be used; times in seconds."""

    argv: list[str]
    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3


@dataclass
class Service:
    """A container."""

    name: str
    image: dict[str, Any]
    """As `native/src/spec.rs` has it."""
    command: list[str] = field(default_factory=list)
    """Empty for the image's own."""
    env: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    workdir: str | None = None
    user: str | None = None
    volumes: list[dict[str, Any]] = field(default_factory=list)
    healthcheck: Healthcheck | None = None
    names: list[str] = field(default_factory=list)
    """Further names by which the other services reach it."""
    hosts: dict[str, str] = field(default_factory=dict)
    """Further names in its `/etc/hosts`, with their addresses."""
    after: dict[str, str] = field(default_factory=dict)
    """Services that it starts after, each with what it waits for: `started`, `healthy` or `completed`."""
    directories: list[str] = field(default_factory=list)
    """Directories that are made if its image has none of that path."""
    outbound: Any = "open"
    """The network of a service that is not the default one: `open`, `internal`, or an allow-list."""
    peers: list[str] = field(default_factory=list)
    """Services that it reaches, by their names."""

    def __post_init__(self) -> None:
        # A directory that is missing keeps a container from starting. A WORKDIR line makes it, as Docker does.
        if self.workdir is not None:
            self.image.setdefault("commands", []).append(f"WORKDIR {self.workdir}")

    def image_key(self) -> str:
        """The same for the same image."""
        return image_key(self.image)


@dataclass
class Plan:
    """A sandbox per sample."""

    services: list[Service]
    """The default one first."""
    outbound: Any
    """`open`, `blocked`, `internal` (only between the services), or an allow-list."""
    sandbox: dict[str, Any] = field(default_factory=dict)
    """Resources and the like, as `native/src/spec.rs` has it."""
    tags: dict[str, str] = field(default_factory=dict)
    app: str | None = None
    environment: str | None = None
    warnings: list[str] = field(default_factory=list)
    """What is not as it was asked for; said once per task."""

    def later(self) -> list[Service]:
        """Services whose containers cannot be made with the sandbox, since they wait for something of others."""
        found: list[Service] = []
        for service in self.services[1:]:
            waits = any(wanted != "started" for wanted in service.after.values())
            if waits or any(other.name in service.after for other in found):
                found.append(service)
        return found


def image_key(image: Mapping[str, Any]) -> str:
    """The same for the same image: what is to be built, with the absolute paths of what it is built from."""
    return json.dumps(image, sort_keys=True)


def default_outbound() -> str:
    """The network of a sandbox that says nothing of it."""
    chosen = os.environ.get(NETWORK_VARIABLE, "blocked")
    if chosen not in ("open", "blocked"):
        raise ConfigError(f"{NETWORK_VARIABLE} is `open` or `blocked`, not {chosen!r}.")
    return chosen


def make(config: object, directory: Path, metadata: Mapping[str, Any]) -> Plan:
    """The plan for a configuration; relative paths start at `directory`.

    Raises:
        ConfigError: for what cannot be honoured.
    """
    from inspect_ai.util import ComposeConfig, is_compose_yaml, is_dockerfile

    from .config import ModalSandboxConfig

    if config is None:
        image: dict[str, Any] = {"source": {"registry": {"reference": DEFAULT_IMAGE}}}
        return _single(Service("default", image, list(KEEP_ALIVE)))
    if isinstance(config, ModalSandboxConfig):
        return _from_config(config, directory)
    if isinstance(config, ComposeConfig):
        from . import compose

        return compose.of_object(config.model_dump(mode="json", by_alias=True, exclude_none=True), directory, metadata)
    if isinstance(config, str):
        path = directory / config
        if is_dockerfile(config):
            return _single(Service("default", dockerfile_image(path), list(KEEP_ALIVE)))
        if is_compose_yaml(config) or path.suffix in (".yaml", ".yml"):
            from . import compose

            return compose.of_file(path, metadata)
        raise ConfigError(f"{config!r} is no configuration of a sandbox: give a Dockerfile or a compose file.")
    raise ConfigError(
        f"A {type(config).__name__} is no configuration of the sandbox type 'modal': give a path, a ComposeConfig or a "
        "ModalSandboxConfig."
    )


def _single(service: Service) -> Plan:
    return Plan([service], default_outbound(), {"lifetime_secs": LIFETIME_SECS})


def dockerfile_image(
    path: Path,
    context: Path | None = None,
    build_args: Mapping[str, str] | None = None,
    target: str | None = None,
    login_secret: str | None = None,
) -> dict[str, Any]:
    """An image from a Dockerfile, whose text is read now: a file that is missing is told before anything is made."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The Dockerfile {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return {
        "source": {
            "dockerfile": {
                "text": text,
                "path": str(path),
                "context": str(context or path.parent),
                "build_args": sorted((build_args or {}).items()),
                "target": target,
                "login_secret": login_secret,
            }
        }
    }


def parse_gpu(text: str) -> tuple[str, int]:
    """`H100` or `H100:2`."""
    model, _, count = text.partition(":")
    if not model or (count and not count.isdigit()):
        raise ConfigError(f"{text!r} is no GPU: give its model and a number, such as `A100:2`.")
    return model.upper(), int(count or 1)


def _from_config(config: ModalSandboxConfig, directory: Path) -> Plan:
    image: dict[str, Any]
    if config.dockerfile is not None:
        path = directory / config.dockerfile
        context = directory / config.context if config.context is not None else None
        image = dockerfile_image(path, context, dict(config.build_args), config.target, config.registry_secret)
    elif config.image_id is not None:
        image = {"source": {"id": config.image_id}}
    elif config.image_name is not None:
        image = {"source": {"named": config.image_name}}
    else:
        reference = config.image or DEFAULT_IMAGE
        image = {"source": {"registry": {"reference": reference, "login_secret": config.registry_secret}}}
    image |= {"force": config.force_build, "secrets": list(config.build_secrets)}
    sandbox: dict[str, Any] = {"lifetime_secs": config.timeout, "ports": [[port, "tls"] for port in config.ports]}
    if config.cpu is not None:
        request, limit = config.cpu if isinstance(config.cpu, tuple) else (config.cpu, None)
        sandbox["cpu_request_millicores"] = round(request * 1000)
        sandbox["cpu_limit_millicores"] = None if limit is None else round(limit * 1000)
    if config.memory is not None:
        amount, most = config.memory if isinstance(config.memory, tuple) else (config.memory, None)
        sandbox |= {"memory_request_mib": amount, "memory_limit_mib": most}
    if config.gpu is not None:
        sandbox["gpu"] = parse_gpu(config.gpu)
    sandbox |= {
        "idle_timeout_secs": config.idle_timeout,
        "regions": list(config.region),
        "inbound_cidrs": list(config.inbound_cidrs),
    }
    options: list[tuple[str, Any]] = []
    if config.cloud is not None:
        options.append(("cloud", config.cloud))
    for name, text in dict(config.options).items():
        try:
            options.append((name, json.loads(text)))
        except json.JSONDecodeError as error:
            raise ConfigError(f"The option {name!r} of the ModalSandboxConfig is no JSON: {error}.") from None
    sandbox["options"] = options
    network = config.network
    outbound: Any = network if isinstance(network, str) else {"allowed": network.model_dump(mode="json")}
    service = Service(
        "default",
        image,
        list(config.command) if config.command is not None else list(KEEP_ALIVE),
        dict(config.environment),
        list(config.secrets),
        config.workdir,
        config.user,
        [
            {
                "volume": volume.name,
                "path": volume.path,
                "read_only": volume.read_only,
                "sub_path": volume.sub_path,
                "create": volume.create,
            }
            for volume in config.volumes
        ],
    )
    return Plan(
        [service],
        outbound if "network" in config.model_fields_set else default_outbound(),
        sandbox,
        dict(config.tags),
        config.app_name,
        config.modal_environment,
    )
