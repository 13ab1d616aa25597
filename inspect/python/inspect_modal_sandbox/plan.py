"""What the plan of a sample's sandbox depends on besides its configuration, and the type of errors.

`planning.make` turns every kind of configuration into a `sandbox_host.compose.plan.Plan`. The package `lifecycle` only knows
plans.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from inspect_ai._util.error import PrerequisiteError
from sandbox_host.compose.plan import ComposeError

from .kinds import MODAL, Kind

NETWORK = "NETWORK"
"""The variable of a sandbox type, such as `INSPECT_MODAL_NETWORK`: `open` opens the network of samples whose configuration does
not mention it. The default is `blocked`."""

COST = "COST"
"""The variable of a sandbox type, such as `INSPECT_MODAL_COST`: `off` leaves the cost of the sandbox out of each sample's log,
which saves two requests per sample. The default is `on`."""


class ConfigError(PrerequisiteError):
    """A configuration cannot be used. The text names the file and the key."""


@contextlib.contextmanager
def config_errors() -> Iterator[None]:
    """Raises errors of the compose reader as `ConfigError`, which Inspect shows without a traceback."""
    try:
        yield
    except ComposeError as error:
        raise ConfigError(str(error)) from None


def default_outbound(kind: Kind = MODAL) -> str:
    """Returns the network of a sandbox whose configuration does not mention it.

    Raises:
        ConfigError: if the variable `NETWORK` has another value than `open` and `blocked`.
    """
    variable = kind.variable(NETWORK)
    chosen = os.environ.get(variable, "blocked")
    if chosen not in ("open", "blocked"):
        raise ConfigError(f"{variable} is {chosen!r}. It must be `open` or `blocked`.")
    return chosen


def wants_cost(kind: Kind = MODAL) -> bool:
    """Returns whether each sample's log contains the cost of its sandbox. False if the provider reports no costs.

    Raises:
        ConfigError: if the variable `COST` has another value than `on` and `off`.
    """
    if not kind.costs:
        return False
    variable = kind.variable(COST)
    chosen = os.environ.get(variable, "on")
    if chosen not in ("on", "off"):
        raise ConfigError(f"{variable} is {chosen!r}. It must be `on` or `off`.")
    return chosen == "on"
