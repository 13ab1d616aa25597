"""The JSON in which the native module takes a sandbox and its sidecars (`native/src/spec.rs`)."""

from __future__ import annotations

from typing import Any

from ..plan import Plan, Service
from .tags import unique_name


def sandbox_specification(plan: Plan, images: list[str], tags: dict[str, str]) -> dict[str, Any]:
    """Returns the specification of a sandbox. `images` are the ids of the images, in the order of the services.

    Services that start after others are ready are not in it. They are added to the running sandbox (`services`).
    """
    main = plan.services[0]
    later = plan.later()
    specification = {
        **plan.sandbox,
        "image": images[0],
        "command": main.command,
        "env": list(main.env.items()),
        "secrets": main.secrets,
        "workdir": main.workdir,
        "volumes": main.volumes,
        "outbound": _outbound(plan.outbound),
        "name": unique_name(tags),
        "tags": list(tags.items()),
        "sidecars": [
            sidecar_specification(service, image)
            for service, image in zip(plan.services, images, strict=True)
            if service is not main and service not in later
        ],
    }
    return {name: value for name, value in specification.items() if value is not None}


def sidecar_specification(service: Service, image: str) -> dict[str, Any]:
    """Returns the specification of a sidecar."""
    return {
        "name": service.name,
        "image": image,
        "command": service.command,
        "env": list(service.env.items()),
        "secrets": service.secrets,
        "workdir": service.workdir,
        "volumes": service.volumes,
        "outbound": _outbound(service.outbound),
    }


def _outbound(outbound: Any) -> Any:
    """Returns the network policy of a container.

    Services of an internal network reach each other and nothing else. An empty allow-list does that; a container whose network
    is blocked has no address at which the others reach it.
    """
    return {"allowed": {}} if outbound == "internal" else outbound
