"""Loads the component when it is first needed, once per process and set of settings."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import sniffio
from inspect_ai._util.error import PrerequisiteError
from sandbox_host import SandboxError

from .kinds import MODAL, Kind

if TYPE_CHECKING:
    from sandbox_host import Provider
    from sandbox_host.compose.plan import Plan


LEASE_SECS = 600
"""How long a sandbox keeps its lease after its evaluation was killed. The next run of the same owner terminates it then."""

COMPONENT = "COMPONENT"
"""The variable of a sandbox type that names the file of another component, such as `INSPECT_MODAL_COMPONENT`."""

OWNER = "OWNER"
"""The variable of a sandbox type that names the owner of its sandboxes, such as `INSPECT_MODAL_OWNER`."""

_opened: dict[tuple[str, ...], Provider] = {}


def owner(kind: Kind = MODAL) -> str:
    """Returns the owner of the sandboxes: the variable `OWNER`, or the name of the user and of the machine."""
    chosen = os.environ.get(kind.variable(OWNER))
    if chosen:
        return chosen
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return "inspect-" + re.sub(r"[^A-Za-z0-9._-]", "-", f"{user}-{socket.gethostname()}")[:50]


def component(kind: Kind = MODAL) -> str:
    """Returns the component: the absolute path that the variable `COMPONENT` names, or the name of one of `sandbox_host`."""
    chosen = os.environ.get(kind.variable(COMPONENT))
    return os.path.abspath(chosen) if chosen else kind.component


def program(kind: Kind = MODAL) -> list[str]:
    """Returns the program `sandbox` and the arguments that name the component.

    The program is the one that was installed with this package, or else the one on the search path. Both have the
    components beside them, so the path of a component is only needed if the variable `COMPONENT` names another one.
    """
    installed = Path(sysconfig.get_path("scripts")) / "sandbox-host"
    # Without a program, the plain name makes the shell say what is missing.
    found = str(installed) if os.access(installed, os.X_OK) else shutil.which("sandbox-host") or "sandbox-host"
    return [found, *(["--plugin", component(kind), "--grant"] if os.environ.get(kind.variable(COMPONENT)) else kind.arguments)]


async def opened(plan: Plan | None = None, kind: Kind = MODAL) -> Provider:
    """Returns the provider of a sandbox type, with the settings that a plan chooses. Their default comes from environment
    variables.

    Raises:
        PrerequisiteError: if asyncio does not run, credentials are missing, or the component cannot be loaded.
    """
    try:
        library = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        library = "none"
    if library != "asyncio":
        raise PrerequisiteError(
            f"The sandbox type '{kind.name}' needs asyncio, but {library} is running. Unset INSPECT_ASYNC_BACKEND."
        )
    from sandbox_host import Provider

    chosen = [
        (scope.variable, getattr(plan, scope.plan, None) or os.environ.get(scope.variable) or scope.default)
        for scope in kind.scopes
    ]
    settings = [os.environ.get(name, "") for name in kind.settings]
    key = (kind.name, *[value for _, value in chosen], owner(kind), component(kind), *settings)
    if key in _opened:
        return _opened[key]
    env = {name: value for name, value in chosen if value}
    try:
        provider = await Provider.open(component(kind), env=env, owner=owner(kind), lease=LEASE_SECS)
    except SandboxError as error:
        raise PrerequisiteError(error.message) from None
    # Another call may have opened it meanwhile. Only one is used, because the leases of sandboxes belong to it.
    return _opened.setdefault(key, provider)
