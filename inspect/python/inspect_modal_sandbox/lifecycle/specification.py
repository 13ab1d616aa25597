"""Turns plans into the specifications of sandboxes."""

from __future__ import annotations

from sandbox_host import Gpu, Image, Port, Pty, SandboxSpec, VolumeMount
from sandbox_host.compose.plan import Plan
from sandbox_host.compose.specification import network, sidecar_specification

from .tags import unique_name


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
        network=network(plan.outbound, sandbox.get("inbound_cidrs") or ()),
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


def _cores(millicores: int | None) -> float | None:
    return None if millicores is None else millicores / 1000
