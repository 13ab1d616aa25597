"""The plugin's own configuration object.

It is hashable, since Inspect puts it into sets, and cannot be mistaken for a compose document, since it has no field
`services`: when a log is read again, that is what Inspect tries first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Pairs = tuple[tuple[str, str], ...]


def _pairs(value: Any) -> Any:
    """A mapping as sorted pairs, which can be hashed; a log gives lists."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), str(text)) for name, text in value.items()))
    return value


def _several(value: Any) -> Any:
    """One text where several may stand."""
    return (value,) if isinstance(value, str) else value


Mapped = Annotated[Pairs | Mapping[str, str], BeforeValidator(_pairs)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_several)]


class ModalVolume(BaseModel):
    """A volume of Modal's, mounted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: str
    read_only: bool = False
    sub_path: str | None = None
    create: bool = False


class ModalAllowList(BaseModel):
    """What a sandbox may connect to: these address ranges, and TLS on port 443 to these names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cidrs: Texts = ()
    domains: Texts = ()


class ModalSandboxConfig(BaseModel):
    """One sandbox per sample, as Modal can make it. Of `image`, `dockerfile`, `image_id` and `image_name` at most one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str | None = None
    """Name in a registry, such as `python:3.12`."""

    registry_secret: str | None = None
    """Name of the Modal secret that signs in to the registry, for `image` and for FROM lines."""

    dockerfile: str | None = None
    """Path of a Dockerfile; relative to the task's directory."""

    context: str | None = None
    """Directory that COPY takes from; the Dockerfile's own if not given."""

    build_args: Mapped = ()
    """Values for ARG lines."""

    build_secrets: Texts = ()
    """Names of Modal secrets that RUN lines see."""

    target: str | None = None
    """Stage to build; the last if not given."""

    image_id: str | None = None
    """An image of Modal's, `im-…`, snapshots included."""

    image_name: str | None = None
    """An image published under a name at Modal."""

    force_build: bool = False
    """Build again even what Modal has."""

    command: Texts | None = None
    """Entry-point command without a shell; `tail -f /dev/null` if not given."""

    environment: Mapped = ()
    """Variables of every command. They are in the log: for credentials use `secrets`."""

    secrets: Texts = ()
    """Names of Modal secrets that become environment variables."""

    workdir: str | None = None
    """Directory that commands and relative paths start in; the image's if not given."""

    user: str | None = None
    """Default user of commands and files, `name` or `uid`, each with `:group` if wanted. The container itself runs as the
    image's user, which has to be root for this."""

    cpu: float | tuple[float, float] | None = None
    """Physical cores to reserve, or (reserved, limit)."""

    memory: int | tuple[int, int] | None = None
    """MiB to reserve, or (reserved, limit)."""

    gpu: str | None = None
    """Such as `H100` or `A100:2`."""

    timeout: int = Field(default=86400, ge=1, le=86400)
    """Seconds that the sandbox lives at most."""

    idle_timeout: int | None = Field(default=None, ge=1)
    """Seconds that it lives without a command."""

    region: Texts = ()
    """Regions to choose from."""

    cloud: str | None = None
    """Cloud provider, such as `aws`."""

    network: Literal["open", "blocked"] | ModalAllowList = "blocked"
    """What it may connect to. Blocked if not given, as with Inspect's own Docker provider."""

    inbound_cidrs: Texts = ()
    """Address ranges that may connect to `ports`; all if none is given."""

    ports: tuple[int, ...] = ()
    """Ports reachable from outside by TLS."""

    volumes: tuple[ModalVolume, ...] = ()
    """Volumes."""

    tags: Mapped = ()
    """Further tags of the sandbox."""

    app_name: str | None = None
    """Modal app; `MODAL_APP_NAME`, or `inspect-modal-sandbox` if not given."""

    modal_environment: str | None = None
    """Modal environment; `MODAL_ENVIRONMENT`, or the workspace's default if not given."""

    options: Mapped = ()
    """Further options of the provider, values as JSON text, such as `{"docker": "true"}`; `sandbox plugin inspect` lists
    them."""

    @model_validator(mode="after")
    def _one_image(self) -> ModalSandboxConfig:
        sources = {
            name: value
            for name in ("image", "dockerfile", "image_id", "image_name")
            if (value := getattr(self, name)) is not None
        }
        if len(sources) > 1:
            raise ValueError(f"give one image: {' and '.join(sources)} are given")
        if self.dockerfile is None:
            for name in ("context", "target"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} belongs to a dockerfile, and none is given")
            if self.build_args:
                raise ValueError("build_args belong to a dockerfile, and none is given")
        if self.workdir is not None and not self.workdir.startswith("/"):
            raise ValueError(f"workdir is an absolute path, not {self.workdir!r}")
        return self
