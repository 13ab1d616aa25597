"""Turns plans into the specifications of the host library: images, sandboxes and their sidecars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox_host import (
    Dockerfile,
    Gpu,
    Image,
    Login,
    Network,
    Port,
    Pty,
    SandboxSpec,
    SidecarSpec,
    VolumeMount,
)

from ..plan import Plan, Service
from .tags import unique_name


def image_specification(definition: Mapping[str, Any]) -> Image:
    """Returns the image for a definition.

    A definition has a `source`, which is `{"id": …}`, `{"named": …}`, `{"registry": {"reference", "login_secret"}}` or
    `{"dockerfile": {"text", "path", "context", "build_args", "target", "login_secret"}}`, and optionally further `commands`,
    `secrets` of the build, and `force`.
    """
    ((kind, source),) = definition["source"].items()
    settings: dict[str, Any] = {name: definition[name] for name in ("commands", "secrets", "force") if name in definition}
    match kind:
        case "id":
            return Image(id=source, **settings)
        case "named":
            return Image(named=source, **settings)
        case "registry":
            return Image(registry=source["reference"], login=_login(source), **settings)
    # A text that was not changed is read from its file again, which may have a `.dockerignore` of its own beside it.
    path = source.get("path")
    dockerfile = Dockerfile(
        path=path,
        text=source["text"] if path is None else None,
        context=source["context"],
        build_args=dict(source.get("build_args") or []),
        target=source.get("target"),
        login=_login(source),
    )
    return Image(dockerfile=dockerfile, **settings)


def sandbox_specification(plan: Plan, images: list[str], tags: dict[str, str]) -> SandboxSpec:
    """Returns the specification of a sandbox. `images` are the ids of the images, in the order of the services.

    Services that start after others are ready are not in it. They are added to the running sandbox (`services`).
    """
    main = plan.services[0]
    later = plan.later()
    sandbox = plan.sandbox
    gpu = sandbox.get("gpu")
    return SandboxSpec(
        image=Image(id=images[0]),
        command=main.command or None,
        image_command=not main.command,
        env=main.env,
        secrets=main.secrets,
        workdir=main.workdir,
        volumes=[VolumeMount(**volume) for volume in main.volumes],
        cpu=_cores(sandbox.get("cpu_request_millicores")),
        cpu_limit=_cores(sandbox.get("cpu_limit_millicores")),
        memory_mib=sandbox.get("memory_request_mib"),
        memory_limit_mib=sandbox.get("memory_limit_mib"),
        gpu=None if gpu is None else Gpu(*gpu),
        lifetime=sandbox.get("lifetime_secs"),
        idle_timeout=sandbox.get("idle_timeout_secs"),
        regions=sandbox.get("regions") or (),
        network=_network(plan.outbound, sandbox.get("inbound_cidrs") or ()),
        ports=[Port(number, kind) for number, kind in sandbox.get("ports") or []],
        pty=Pty() if sandbox.get("pty") else None,
        options=dict(sandbox.get("options") or []),
        name=unique_name(tags),
        tags=tags,
        sidecars=[
            sidecar_specification(service, image)
            for service, image in zip(plan.services, images, strict=True)
            if service is not main and service not in later
        ],
    )


def sidecar_specification(service: Service, image: str) -> SidecarSpec:
    """Returns the specification of a sidecar."""
    return SidecarSpec(
        name=service.name,
        image=Image(id=image),
        command=service.command or None,
        env=service.env,
        secrets=service.secrets,
        workdir=service.workdir,
        volumes=[VolumeMount(**volume) for volume in service.volumes],
        network=_network(service.outbound),
    )


def _cores(millicores: int | None) -> float | None:
    return None if millicores is None else millicores / 1000


def _login(source: Mapping[str, Any]) -> Login | None:
    secret = source.get("login_secret")
    return None if secret is None else Login(secret)


def _network(outbound: Any, inbound_cidrs: Any = ()) -> Network:
    """Returns the network policy of a container.

    Services of an internal network reach each other and nothing else. An empty allow-list does that; a container whose network
    is blocked has no address at which the others reach it.
    """
    if outbound == "internal":
        return Network(outbound="allowed", inbound_cidrs=inbound_cidrs)
    if isinstance(outbound, str):
        return Network(outbound=outbound, inbound_cidrs=inbound_cidrs)
    allowed = outbound["allowed"]
    return Network(
        outbound="allowed",
        cidrs=allowed.get("cidrs") or (),
        domains=allowed.get("domains") or (),
        inbound_cidrs=inbound_cidrs,
    )
