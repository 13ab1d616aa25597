"""The public addresses of a sandbox's ports, for `SandboxEnvironment.connection`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspect_ai.util import trace_message
from sandbox_host import SandboxError

from .run import Created
from .traces import logger

if TYPE_CHECKING:
    from inspect_ai.util._sandbox.environment import PortMapping

TUNNEL_SECS = 30.0
"""How long the provider may take to assign the addresses."""


async def public_ports(created: Created) -> list[PortMapping] | None:
    """Returns where the ports of a sandbox are reached, or `None` if it has no ports or the provider does not report them."""
    from inspect_ai.util._sandbox.environment import HostMapping, PortMapping

    if created.has_ports and created.ports is None:
        try:
            found = await created.sandbox.tunnels(TUNNEL_SECS)
        except SandboxError as error:
            trace_message(
                logger, created.kind.title, f"The addresses of the ports of {created.id} could not be read: {error.message}"
            )
            return None
        created.ports = [
            PortMapping(
                container_port=tunnel.port,
                protocol="tcp",
                mappings=[HostMapping(host_ip=tunnel.public_host, host_port=tunnel.public_port)],
            )
            for tunnel in found
        ]
    return created.ports
