"""Lets the services of a sandbox reach each other by name: reads the addresses of containers, and adds names to
`/etc/hosts`."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable

from ..errors import SandboxError
from .container import Container

PRINT_ADDRESS = """
while read -r mark address rest; do
  case "$mark $address" in
    "|-- "*) last=$address ;;
    "/32 host") case $last in 127.*) ;; *) echo "$last"; exit ;; esac ;;
  esac
done 2>/dev/null </proc/net/fib_trie
hostname -I 2>/dev/null || hostname -i 2>/dev/null
exit 0
"""
"""Prints an address of the container other than the loopback address, if it has one."""

ADD_HOSTS = """
while [ $# -gt 1 ]; do
  case $1 in
    ?) getent hosts "$2" >/dev/null 2>&1 || printf '127.0.0.1\\t%s\\n' "$2" >>/etc/hosts || exit 1 ;;
    *) printf '%s\\t%s\\n' "$1" "$2" >>/etc/hosts || exit 1 ;;
  esac
  shift 2
done
"""
"""Adds pairs of address and name to `/etc/hosts`.

The address `-` stands for a container without one. Its name gets the loopback address, unless it resolves already, because that
is the only way in which a container without a network can be reached.
"""


async def address_of(container: Container) -> str:
    """Returns the address at which other containers reach this one, or an empty string if it has none or reports none."""
    result = await container.run(["/bin/sh", "-c", PRINT_ADDRESS])
    words = result.text.split() if result.ok else []
    for word in words:
        with contextlib.suppress(ValueError):
            if not ipaddress.ip_address(word).is_loopback:
                return word
    return ""


async def add_hosts(container: Container, names: list[tuple[str, str]], warn: Callable[[str], None]) -> None:
    """Makes names resolve in a container. `names` are pairs of address and name; an empty address means that there is none.

    If it fails, `warn` is called: the image may have no shell.
    """
    words = [word for address, name in names for word in (address or "-", name)]
    try:
        result = await container.run(["/bin/sh", "-c", ADD_HOSTS, "sh", *words], user="root")
        failure = "" if result.ok else result.error_text.strip()
    except SandboxError as error:
        failure = error.message
    if failure:
        warn(f"The names of services do not resolve in '{container.service}': {failure}")
