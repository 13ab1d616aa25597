"""Turns the configuration of a sample into a plan.

Inspect passes nothing, a path, a compose document, or a configuration of the sandbox type (`config`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspect_ai.util import ComposeConfig, is_compose_yaml, is_dockerfile
from sandbox_host.compose.plan import LIFETIME_SECS, Plan, Service, dockerfile_image, parse_gpu

from . import compose
from .config import DockerEngineSandboxConfig, ModalSandboxConfig
from .kinds import MODAL, Kind
from .plan import ConfigError, config_errors, default_outbound

KEEP_ALIVE = ["tail", "-f", "/dev/null"]
"""The command of a container without one, which is also that of Inspect's Docker provider."""

Config = ModalSandboxConfig | DockerEngineSandboxConfig
"""A configuration of one of the sandbox types."""

DEFAULT_IMAGE = "aisiuk/inspect-tool-support"
"""The image without a configuration, which is also that of Inspect's Docker provider."""


def make(config: object, directory: Path, metadata: Mapping[str, Any], kind: Kind = MODAL) -> Plan:
    """Returns the plan for a configuration of a sandbox type. Relative paths start at `directory`.

    Raises:
        ConfigError: if the configuration cannot be used.
    """
    with config_errors():
        return _make(config, directory, metadata, kind)


def _make(config: object, directory: Path, metadata: Mapping[str, Any], kind: Kind) -> Plan:
    if config is None:
        image: dict[str, Any] = {"source": {"registry": {"reference": DEFAULT_IMAGE}}}
        return _single(Service("default", image, list(KEEP_ALIVE)), kind)
    if isinstance(config, (ModalSandboxConfig, DockerEngineSandboxConfig)) and type(config).__name__ == kind.config:
        return _from_config(config, directory, kind)
    if isinstance(config, ComposeConfig):
        return compose.of_object(config.model_dump(mode="json", by_alias=True, exclude_none=True), directory, metadata, kind)
    if isinstance(config, str):
        path = directory / config
        if is_dockerfile(config):
            return _single(Service("default", dockerfile_image(path), list(KEEP_ALIVE)), kind)
        if is_compose_yaml(config) or path.suffix in (".yaml", ".yml"):
            return compose.of_file(path, metadata, kind)
        raise ConfigError(f"{config!r} is not a configuration of a sandbox. Give a Dockerfile or a compose file.")
    raise ConfigError(
        f"A {type(config).__name__} is not a configuration of the sandbox type '{kind.name}'. Give a path, a ComposeConfig "
        f"or a {kind.config}."
    )


def _single(service: Service, kind: Kind) -> Plan:
    return Plan([service], default_outbound(kind), {"lifetime_secs": LIFETIME_SECS})


def _from_config(config: Config, directory: Path, kind: Kind) -> Plan:
    network = config.network
    outbound: Any = network if isinstance(network, str) else {"allowed": network.model_dump(mode="json")}
    service = Service(
        "default",
        _image(config, directory),
        list(config.command) if config.command is not None else list(KEEP_ALIVE),
        dict(config.environment),
        list(config.secrets) if isinstance(config, ModalSandboxConfig) else [],
        config.workdir,
        config.user,
        [{"volume": volume.name, **volume.model_dump(exclude={"name"})} for volume in config.volumes],
    )
    plan = Plan(
        [service],
        outbound if "network" in config.model_fields_set else default_outbound(kind),
        _sandbox(config, kind),
        dict(config.tags),
    )
    if isinstance(config, ModalSandboxConfig):
        plan.app, plan.environment = config.app_name, config.modal_environment
    return plan


def _image(config: Config, directory: Path) -> dict[str, Any]:
    image: dict[str, Any]
    modal = config if isinstance(config, ModalSandboxConfig) else None
    login = modal.registry_secret if modal else None
    if config.dockerfile is not None:
        path = directory / config.dockerfile
        context = directory / config.context if config.context is not None else None
        image = dockerfile_image(path, context, dict(config.build_args), config.target, login)
    elif config.image_id is not None:
        image = {"source": {"id": config.image_id}}
    elif modal and modal.image_name is not None:
        image = {"source": {"named": modal.image_name}}
    else:
        reference = config.image or DEFAULT_IMAGE
        image = {"source": {"registry": {"reference": reference, "login_secret": login}}}
    return image | {"force": config.force_build, "secrets": list(modal.build_secrets) if modal else []}


def _sandbox(config: Config, kind: Kind) -> dict[str, Any]:
    """Returns resources and other options of the sandbox."""
    sandbox: dict[str, Any] = {"lifetime_secs": config.timeout, "ports": [[port, kind.port_kind] for port in config.ports]}
    if config.cpu is not None:
        request, limit = config.cpu if isinstance(config.cpu, tuple) else (config.cpu, None)
        sandbox["cpu_request_millicores"] = round(request * 1000)
        sandbox["cpu_limit_millicores"] = None if limit is None else round(limit * 1000)
    if config.memory is not None:
        amount, most = config.memory if isinstance(config.memory, tuple) else (config.memory, None)
        sandbox |= {"memory_request_mib": amount, "memory_limit_mib": most}
    sandbox["idle_timeout_secs"] = config.idle_timeout
    options: list[tuple[str, Any]] = []
    if isinstance(config, ModalSandboxConfig):
        if config.gpu is not None:
            sandbox["gpu"] = parse_gpu(config.gpu)
        sandbox |= {"regions": list(config.region), "inbound_cidrs": list(config.inbound_cidrs)}
        if config.cloud is not None:
            options.append(("cloud", config.cloud))
    elif config.gpus is not None:
        sandbox["gpu"] = ("ANY", config.gpus)
    for name, text in dict(config.options).items():
        try:
            options.append((name, json.loads(text)))
        except json.JSONDecodeError as error:
            raise ConfigError(f"The option {name!r} of the {kind.config} is not JSON: {error}.") from None
    sandbox["options"] = options
    return sandbox
