"""Networks of services: which of them reach each other, and which reach the internet.

The containers of a sandbox reach each other, except the sandbox's own container if its network is blocked. Access to the
internet is decided for each container. So two arrangements are possible:

- All services have a network in common. Each of them reaches the internet if one of its networks is not internal.
- The default service has no network, and all others have a network in common.

Any other separation would be lost, and is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from .document import text
from .plan import Service
from .values import flag, refuse

BRIDGE = "(bridge)"
"""The network of `network_mode: bridge`."""

HOST = "(host)"
"""The network of `network_mode: host`, which reaches all others."""


def set_networks(
    bodies: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, Any],
    services: list[Service],
    where: str,
    warnings: list[str],
) -> str:
    """Sets the networks of the services, and returns that of the default one. `known` is the document's key `networks`.

    Raises:
        ComposeError: if services are to be separated in a way that is not possible.
    """
    joined = {name: _networks_of(body, f"{where}: services.{name}", known, warnings) for name, body in bodies.items()}
    internal = {
        name
        for name, options in known.items()
        if isinstance(options, Mapping) and flag(options.get("internal"), f"{where}: networks.{name}.internal")
    }
    reaches_out = {name: bool(networks - internal) for name, networks in joined.items()}
    main, *others = services
    for one, other in itertools.combinations(joined, 2):
        apart = not _together(joined[one], joined[other])
        if one == main.name:
            possible = apart == (not joined[one]) and not (apart and reaches_out[one])
        else:
            possible = not apart
        if not possible:
            _refuse_separation(one, other, joined, where)
    for service in services:
        service.peers = [other for other in joined if other != service.name and _together(joined[service.name], joined[other])]
    for service in others:
        service.outbound = "open" if reaches_out[service.name] else "internal"
    if reaches_out[main.name]:
        return "open"
    # Without other services, an internal network reaches nothing.
    return "internal" if main.peers else "blocked"


def _together(one: set[str], other: set[str]) -> bool:
    """Returns whether services with these networks reach each other."""
    return bool(one & other) or (HOST in one and bool(other)) or (HOST in other and bool(one))


def _refuse_separation(one: str, other: str, joined: Mapping[str, set[str]], where: str) -> None:
    def networks(name: str) -> str:
        return ", ".join(sorted(joined[name])) or "none"

    refuse(
        f"{where}: services.{other}.networks",
        f": {one} (networks: {networks(one)}) and {other} (networks: {networks(other)}) must not reach each other, but the "
        "containers of a sandbox do. Give all services a common network, which may be internal, and choose by further networks "
        "which of them reach the internet. Or give only the default service `network_mode: none`.",
    )


def _networks_of(body: Mapping[str, Any], where: str, known: Mapping[str, Any], warnings: list[str]) -> set[str]:
    """Returns the networks of a service."""
    mode = body.get("network_mode")
    if mode is not None:
        mode = text(mode)
        if body.get("networks"):
            refuse(f"{where}.network_mode", " and networks exclude each other.")
        if mode.startswith(("service:", "container:")):
            refuse(
                f"{where}.network_mode",
                f": {mode} is not supported: each container of a sandbox has its own loopback interface. Let the services "
                "reach each other by name.",
            )
        if mode == "none":
            return set()
        if mode == "host":
            warnings.append(f"{where}.network_mode: host has no effect: the sandbox has its own network.")
            return {HOST}
        if mode in ("bridge", "default"):
            return {BRIDGE}
        warnings.append(f"{where}.network_mode: {mode} has no effect: the sandbox has its own network.")
        return {mode}
    joined = {str(name) for name in body.get("networks") or {}} or {"default"}
    for name in joined - {"default"}:
        if name not in known:
            refuse(f"{where}.networks", f": there is no network {name} under the key networks.")
    return joined
