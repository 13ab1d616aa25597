"""The sandbox types of this package. They share all code; what differs between them is data of a `Kind`.

Every `inspect` command imports this module, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scope:
    """A variable of a provider that a sample's configuration may choose. The process's own variable is the default."""

    plan: str
    """The name of the field of a `Plan` with the chosen value."""
    variable: str
    default: str = ""


@dataclass(frozen=True, eq=False)
class Kind:
    """A sandbox type: its provider, the provider's settings, and what the provider can do."""

    name: str
    """The name after `--sandbox`."""
    title: str
    """The name of the provider in messages and traces."""
    component: str
    """The name of the component in `sandbox_host`."""
    arguments: tuple[str, ...]
    """The arguments with which the program `sandbox` uses this provider."""
    prefix: str
    """The beginning of the names of this sandbox type's own environment variables."""
    config: str
    """The name of the class in `config` that describes a sample's sandbox."""
    settings: tuple[str, ...]
    """Variables that choose the service and the credentials. A provider with other values must be loaded anew."""
    place: Callable[[], str]
    """Returns where `inspect sandbox cleanup` searches for sandboxes."""
    at: str
    """Where volumes are: the words after `the volume NAME`."""
    port_kind: str
    """How ports are made public: `tls` or `tcp`."""
    scopes: tuple[Scope, ...] = ()
    services: bool = False
    """Whether a sandbox can have more than one container."""
    secrets: bool = False
    """Whether the provider stores secrets."""
    costs: bool = False
    """Whether the provider reports what a sandbox costs."""
    paced: bool = False
    """Whether the provider limits the rate of creations, so that this package paces them."""
    gpu_models: bool = False
    """Whether the provider chooses GPUs by their model."""
    makes_volumes: bool = False
    """Whether a container gets the directories that VOLUME lines of its image name."""
    extensions: frozenset[str] | None = frozenset()
    """The keys that take effect under `x-modal` and `x-inspect_modal_sandbox`; `None` for all of them."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Keys of compose services that set an option of the provider, with the type of its value. The option has the name of the
    key; for an amount in MiB, with the suffix `_mib`."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why keys of compose services have no effect or are refused, where `sandbox_host.compose.keys` gives another reason."""
    main_service: str | None = None
    """The name of the default service of compose documents. `None`: the document decides."""
    strict: bool = False
    """Whether an unknown key of a compose document is an error. Otherwise it gives a warning."""

    def variable(self, name: str) -> str:
        """Returns the name of an environment variable of this sandbox type, such as `INSPECT_MODAL_OWNER` for `OWNER`."""
        return f"{self.prefix}_{name}"


def _modal_place() -> str:
    environment = os.environ.get("MODAL_ENVIRONMENT")
    server = os.environ.get("MODAL_SERVER_URL")
    place = f"the environment {environment}" if environment else "the default environment"
    return f"in all apps of {place}" + (f" at {server}" if server else "")


def _engine_place() -> str:
    return f"on the engine at {os.environ.get('DOCKER_HOST') or 'unix:///var/run/docker.sock'}"


MODAL = Kind(
    name="modal",
    title="Modal",
    component="modal",
    arguments=(),
    prefix="INSPECT_MODAL",
    config="ModalSandboxConfig",
    settings=("MODAL_SERVER_URL", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_PROFILE", "MODAL_CONFIG_PATH"),
    place=_modal_place,
    at="at Modal",
    port_kind="tls",
    scopes=(
        # The Modal app of all sandboxes, unless the configuration or the variable names another one.
        Scope("app", "MODAL_APP_NAME", "inspect-modal-sandbox"),
        Scope("environment", "MODAL_ENVIRONMENT"),
    ),
    services=True,
    secrets=True,
    costs=True,
    paced=True,
    gpu_models=True,
    extensions=None,
)

DOCKER_ENGINE = Kind(
    name="docker-engine",
    title="Docker",
    component="docker",
    arguments=("--plugin", "docker"),
    prefix="INSPECT_DOCKER_ENGINE",
    config="DockerEngineSandboxConfig",
    settings=(
        "DOCKER_HOST",
        "DOCKER_TLS_VERIFY",
        "DOCKER_CERT_PATH",
        "DOCKER_API_VERSION",
        "DOCKER_DEFAULT_IMAGE",
        "DOCKER_NETWORK",
        "DOCKER_REGISTRY_USER",
        "DOCKER_REGISTRY_PASSWORD",
        "DOCKER_REGISTRY_SERVER",
    ),
    place=_engine_place,
    at="of the engine",
    port_kind="tcp",
    makes_volumes=True,
    extensions=frozenset({"block_network", "timeout", "idle_timeout", "tags"}),
    options={
        "cap_add": "texts",
        "cap_drop": "texts",
        "security_opt": "texts",
        "dns": "texts",
        "hostname": "text",
        "runtime": "text",
        "privileged": "flag",
        "read_only": "flag",
        "pids_limit": "whole",
        "shm_size": "mebibytes",
    },
    reasons={
        "platform": "the platform is that of the engine",
        "secrets": "give the values under environment, or put the files into the image",
        "userns_mode": "the engine chooses the user namespace",
    }
    | dict.fromkeys(
        ("ulimits", "sysctls", "oom_kill_disable", "dns_opt", "dns_search", "domainname", "blkio_config", "cgroup_parent"),
        "the sandbox type docker-engine does not pass it to the engine",
    ),
)
