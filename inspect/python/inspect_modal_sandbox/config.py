"""The plugin's own configuration objects, one for each sandbox type.

They are hashable, because Inspect puts configurations into sets. They have no field `services`: when Inspect reads a log, it
first tries to read a configuration as a compose document, and would take it for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Pairs = tuple[tuple[str, str], ...]


def _pairs(value: Any) -> Any:
    """Converts a mapping to sorted pairs, which are hashable. A log holds lists already."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), str(text)) for name, text in value.items()))
    return value


def _several(value: Any) -> Any:
    """Accepts a single string for a list of strings."""
    return (value,) if isinstance(value, str) else value


Mapped = Annotated[Pairs | Mapping[str, str], BeforeValidator(_pairs)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_several)]


class Volume(BaseModel):
    """A mount of a volume at the provider."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: str
    read_only: bool = False
    create: bool = False


class ModalVolume(Volume):
    """A mount of a Modal volume."""

    sub_path: str | None = None


class ModalAllowList(BaseModel):
    """Permits connections to these address ranges, and TLS on port 443 to these names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cidrs: Texts = ()
    domains: Texts = ()


class SandboxConfig(BaseModel):
    """What every sandbox type has: the image, the command, the environment, resources and times."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str | None = None
    """Name of an image in a registry, such as `python:3.12`."""

    dockerfile: str | None = None
    """Path of a Dockerfile, relative to the directory of the task."""

    context: str | None = None
    """Directory that COPY reads from. Default: the directory of the Dockerfile."""

    build_args: Mapped = ()
    """Values for ARG lines."""

    target: str | None = None
    """Stage to build. Default: the last one."""

    image_id: str | None = None
    """Id of an image or a snapshot at the provider; `im-…` at Modal."""

    force_build: bool = False
    """Whether to build the image even if the provider has it already."""

    command: Texts | None = None
    """Command of the container, without a shell. Default: `tail -f /dev/null`."""

    environment: Mapped = ()
    """Environment variables of every command. They appear in the log, so they are not for credentials."""

    workdir: str | None = None
    """Directory at which commands and relative paths start. Default: that of the image."""

    user: str | None = None
    """Default user of commands and files: `name` or `uid`, with an optional `:group`. The container itself runs as the user of
    the image, which must be root."""

    cpu: float | tuple[float, float] | None = None
    """Physical cores: the reservation, or a pair of reservation and limit."""

    memory: int | tuple[int, int] | None = None
    """Memory in MiB: the reservation, or a pair of reservation and limit."""

    timeout: int = Field(default=86400, ge=1)
    """Maximum lifetime of the sandbox in seconds."""

    idle_timeout: int | None = Field(default=None, ge=1)
    """Seconds without a command after which the sandbox ends."""

    ports: tuple[int, ...] = ()
    """Ports that are reachable from the outside: at Modal by TLS, at an engine on its own machine."""

    tags: Mapped = ()
    """Additional tags of the sandbox."""

    options: Mapped = ()
    """Further options of the provider. Values are JSON, such as `{"docker": "true"}`. `sandbox-host plugin inspect` lists the
    options."""

    @model_validator(mode="after")
    def _one_image(self) -> SandboxConfig:
        sources = {
            name: value
            for name in ("image", "dockerfile", "image_id", "image_name")
            if (value := getattr(self, name, None)) is not None
        }
        if len(sources) > 1:
            raise ValueError(f"give one image, not {' and '.join(sources)}")
        if self.dockerfile is None:
            for name in ("context", "target"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} needs a dockerfile")
            if self.build_args:
                raise ValueError("build_args need a dockerfile")
        if self.workdir is not None and not self.workdir.startswith("/"):
            raise ValueError(f"workdir must be an absolute path, not {self.workdir!r}")
        return self


class ModalSandboxConfig(SandboxConfig):
    """The sandbox of a sample, with the options of Modal. Give at most one of `image`, `dockerfile`, `image_id` and
    `image_name`."""

    registry_secret: str | None = None
    """Name of the Modal secret that signs in to the registry, for `image` and for FROM lines."""

    build_secrets: Texts = ()
    """Names of Modal secrets that become environment variables of RUN lines."""

    image_name: str | None = None
    """Name under which an image was published at Modal."""

    secrets: Texts = ()
    """Names of Modal secrets that become environment variables."""

    gpu: str | None = None
    """Model and number of GPUs, such as `H100` or `A100:2`."""

    timeout: int = Field(default=86400, ge=1, le=86400)
    """Maximum lifetime of the sandbox in seconds."""

    region: Texts = ()
    """Regions from which Modal chooses."""

    cloud: str | None = None
    """Cloud provider, such as `aws`."""

    network: Literal["open", "blocked"] | ModalAllowList = "blocked"
    """Permitted connections to the outside. Default: none, which is also the default of Inspect's Docker provider."""

    inbound_cidrs: Texts = ()
    """Address ranges that may connect to `ports`. Default: all."""

    volumes: tuple[ModalVolume, ...] = ()
    """Modal volumes to mount."""

    app_name: str | None = None
    """Modal app. Default: `MODAL_APP_NAME`, or `inspect-modal-sandbox`."""

    modal_environment: str | None = None
    """Modal environment. Default: `MODAL_ENVIRONMENT`, or the default of the workspace."""


class DockerEngineSandboxConfig(SandboxConfig):
    """The sandbox of a sample on Docker Engine or Podman. Give at most one of `image`, `dockerfile` and `image_id`."""

    gpus: int | None = Field(default=None, ge=1)
    """Number of accelerators."""

    network: Literal["open", "blocked"] = "blocked"
    """Permitted connections to the outside. Default: none, which is also the default of Inspect's Docker provider."""

    volumes: tuple[Volume, ...] = ()
    """Volumes of the engine to mount."""
