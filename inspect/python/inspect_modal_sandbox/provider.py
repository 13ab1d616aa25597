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

from .nativeerror import NativeError

if TYPE_CHECKING:
    from ._native import Provider

APP = "inspect-modal-sandbox"
"""The Modal app of all sandboxes, unless the configuration or `MODAL_APP_NAME` names another one."""

LEASE_SECS = 600
"""How long a sandbox keeps its lease after its evaluation was killed. The next run of the same owner terminates it then."""

COMPONENT_VARIABLE = "INSPECT_MODAL_COMPONENT"
OWNER_VARIABLE = "INSPECT_MODAL_OWNER"

SETTINGS_VARIABLES = ("MODAL_SERVER_URL", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_PROFILE", "MODAL_CONFIG_PATH")
"""The variables that choose the service and the credentials. A provider with other values must be loaded anew."""

_opened: dict[tuple[str, ...], Provider] = {}


def owner() -> str:
    """Returns the owner of the sandboxes: `INSPECT_MODAL_OWNER`, or the name of the user and of the machine."""
    chosen = os.environ.get(OWNER_VARIABLE)
    if chosen:
        return chosen
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return "inspect-" + re.sub(r"[^A-Za-z0-9._-]", "-", f"{user}-{socket.gethostname()}")[:50]


def component() -> str:
    """Returns the path of the component: `INSPECT_MODAL_COMPONENT`, or the file in this package."""
    chosen = os.environ.get(COMPONENT_VARIABLE)
    return chosen or str(Path(__file__).with_name("modal-provider.wasm"))


def program() -> list[str]:
    """Returns the program `sandbox` and the arguments that name the component.

    The program is the one that was installed with this package, or else the one on the search path. Both have a component
    beside them, so an argument is only needed if `INSPECT_MODAL_COMPONENT` names another one.
    """
    installed = Path(sysconfig.get_path("scripts")) / "sandbox"
    # Without a program, the plain name makes the shell say what is missing.
    found = str(installed) if os.access(installed, os.X_OK) else shutil.which("sandbox") or "sandbox"
    return [found, *(["--plugin", component(), "--grant"] if os.environ.get(COMPONENT_VARIABLE) else [])]


async def opened(app: str | None = None, environment: str | None = None) -> Provider:
    """Returns the provider for an app and an environment of Modal. The default of both comes from environment variables.

    Raises:
        PrerequisiteError: if asyncio does not run, credentials are missing, or the component cannot be loaded.
    """
    try:
        library = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        library = "none"
    if library != "asyncio":
        raise PrerequisiteError(
            f"The sandbox type 'modal' needs asyncio, but {library} is running. Unset INSPECT_ASYNC_BACKEND."
        )
    from ._native import Provider

    app = app or os.environ.get("MODAL_APP_NAME") or APP
    environment = environment or os.environ.get("MODAL_ENVIRONMENT") or ""
    key = (app, environment, owner(), component(), *[os.environ.get(name, "") for name in SETTINGS_VARIABLES])
    if key in _opened:
        return _opened[key]
    env = [("MODAL_APP_NAME", app)]
    if environment:
        env.append(("MODAL_ENVIRONMENT", environment))
    try:
        provider = await Provider.open(component(), env, owner(), LEASE_SECS)
    except NativeError as error:
        raise PrerequisiteError(error.message) from None
    # Another call may have opened it meanwhile. Only one is used, because the leases of sandboxes belong to it.
    return _opened.setdefault(key, provider)
