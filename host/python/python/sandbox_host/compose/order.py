"""Which service is the default one, and in which order services start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .document import text
from .plan import ComposeError
from .traits import Traits
from .values import flag, refuse

CONDITIONS = {"service_started": "started", "service_healthy": "healthy", "service_completed_successfully": "completed"}
"""The conditions of `depends_on`, with their names in `Service.after`."""


def default_service(bodies: Mapping[str, Mapping[str, Any]], where: str, traits: Traits) -> str:
    """Returns the default service: `traits.main_service`; or the one with `x-default`, or the one called `default`, or the
    first one."""
    if traits.main_service is not None:
        if traits.main_service not in bodies:
            refuse(f"{where}: services", f": there is no service {traits.main_service}.")
        return traits.main_service
    marked = [name for name, body in bodies.items() if flag(body.get("x-default"), f"{where}: services.{name}.x-default")]
    if marked:
        return marked[0]
    return "default" if "default" in bodies else next(iter(bodies))


def dependencies(body: Mapping[str, Any], where: str, bodies: Mapping[str, Any]) -> dict[str, str]:
    """Returns the services that a service depends on, each with the state that it waits for."""
    found = {}
    for name, options in (body.get("depends_on") or {}).items():
        options = options or {}
        condition = text(options.get("condition") or "service_started")
        if condition not in CONDITIONS:
            refuse(f"{where}.{name}.condition", f" must be one of {', '.join(CONDITIONS)}, not {condition!r}.")
        if name in bodies:
            found[str(name)] = CONDITIONS[condition]
        elif flag(options.get("required", True), f"{where}.{name}.required"):
            refuse(where, f": there is no service {name}.")
    return found


def start_order(default: str, after: Mapping[str, Mapping[str, str]], where: str) -> list[str]:
    """Returns the default service first, and then each service after those that it depends on.

    The default service is always the first, even if it depends on others: its container is the sandbox's own.

    Raises:
        ComposeError: if services depend on each other in a circle.
    """
    _check_circles(after, where)
    ordered = [default]
    left = [name for name in after if name != default]
    while left:
        ready = next(name for name in left if all(source in ordered for source in after[name]))
        ordered.append(ready)
        left.remove(ready)
    return ordered


def _check_circles(after: Mapping[str, Mapping[str, str]], where: str) -> None:
    left = list(after)
    while left:
        ready = [name for name in left if all(source not in left for source in after[name])]
        if not ready:
            # Without the services that only wait for the circle.
            circle = [name for name in left if any(name in after[other] for other in left)]
            raise ComposeError(f"{where}: services depend on each other in a circle: {', '.join(circle)}.")
        left.remove(ready[0])
