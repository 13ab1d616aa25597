"""The plan of a sandbox: its services, each with its image and what its container is to be.

`translate` makes a plan from a compose document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIFETIME_SECS = 86400
"""The longest time that Modal lets a sandbox live, which is the default."""


class ComposeError(ValueError):
    """A compose document cannot be used. The text names the file and the key."""


@dataclass
class Healthcheck:
    """A command that succeeds when a service is ready. Times are in seconds."""

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
    """The definition of an image, which `specification.image_specification` reads."""
    command: list[str] = field(default_factory=list)
    """Empty for the command of the image."""
    env: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    """Names of secrets at the provider that become environment variables."""
    workdir: str | None = None
    user: str | None = None
    volumes: list[dict[str, Any]] = field(default_factory=list)
    """Mounts of volumes at the provider. A volume with the key `sample` belongs to the sandbox."""
    healthcheck: Healthcheck | None = None
    names: list[str] = field(default_factory=list)
    """Further names by which the other services reach it."""
    hosts: dict[str, str] = field(default_factory=dict)
    """Further names in its `/etc/hosts`, with their addresses."""
    after: dict[str, str] = field(default_factory=dict)
    """Services that it starts after, each with the state that it waits for: `started`, `healthy` or `completed`."""
    directories: list[str] = field(default_factory=list)
    """Directories that are created if the image does not have them."""
    outbound: Any = "open"
    """The network of a service other than the default one: `open`, `internal`, or an allow-list."""
    peers: list[str] = field(default_factory=list)
    """The services that it reaches by their names."""

    def __post_init__(self) -> None:
        # A container does not start in a missing directory. A WORKDIR line creates the directory, as Docker does.
        if self.workdir is not None:
            self.image.setdefault("commands", []).append(f"WORKDIR {self.workdir}")

    def image_key(self) -> str:
        """Returns a string that is equal for equal images."""
        return image_key(self.image)


@dataclass
class Plan:
    """A sandbox with all its services."""

    services: list[Service]
    """The default service is the first one."""
    outbound: Any
    """The network of the default service: `open`, `blocked`, `internal` (only the other services), or an allow-list."""
    sandbox: dict[str, Any] = field(default_factory=dict)
    """Resources and other options of the sandbox, such as `cpu_limit_millicores`."""
    tags: dict[str, str] = field(default_factory=dict)
    app: str | None = None
    environment: str | None = None
    warnings: list[str] = field(default_factory=list)
    """What differs from the configuration, logged once per run."""

    def later(self) -> list[Service]:
        """Returns the services that cannot start with the sandbox, because they wait for the state of another one."""
        found: list[Service] = []
        for service in self.services[1:]:
            waits = any(wanted != "started" for wanted in service.after.values())
            if waits or any(other.name in service.after for other in found):
                found.append(service)
        return found


def image_key(image: Mapping[str, Any]) -> str:
    """Returns a string that is equal for equal definitions of an image. Paths in a definition are absolute."""
    return json.dumps(image, sort_keys=True)


def dockerfile_image(
    path: Path,
    context: Path | None = None,
    build_args: Mapping[str, str] | None = None,
    target: str | None = None,
    login_secret: str | None = None,
) -> dict[str, Any]:
    """Returns the definition of an image that is built from a Dockerfile. The file is read at once.

    Raises:
        ComposeError: if the file cannot be read.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ComposeError(f"The Dockerfile {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
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
    """Returns model and number of a GPU, such as `H100` or `H100:2`.

    Raises:
        ComposeError: if the text has another form.
    """
    model, _, count = text.partition(":")
    if not model or (count and not count.isdigit()):
        raise ComposeError(f"{text!r} is not a GPU. Give its model and a number, such as `A100:2`.")
    return model.upper(), int(count or 1)
