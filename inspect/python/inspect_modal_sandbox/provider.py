"""The component in use: loaded when first needed, once per process and set of settings."""

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
"""The Modal app that sandboxes belong to unless the configuration or `MODAL_APP_NAME` names another."""

LEASE_SECS = 600
"""How long a sandbox outlives an evaluation that was killed, before anybody's next run sweeps it."""

COMPONENT_VARIABLE = "INSPECT_MODAL_COMPONENT"
OWNER_VARIABLE = "INSPECT_MODAL_OWNER"

SETTINGS_VARIABLES = ("MODAL_SERVER_URL", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_PROFILE", "MODAL_CONFIG_PATH")
"""What decides, besides the arguments, where a provider goes and who it is there."""

_opened: dict[tuple[str, ...], Provider] = {}


def owner() -> str:
    """Whose sandboxes these are: a user of a machine, or what `INSPECT_MODAL_OWNER` says."""
    chosen = os.environ.get(OWNER_VARIABLE)
    if chosen:
        return chosen
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return "inspect-" + re.sub(r"[^A-Za-z0-9._-]", "-", f"{user}-{socket.gethostname()}")[:50]


def component() -> str:
    """The file of the component: the one in this package, unless `INSPECT_MODAL_COMPONENT` names another."""
    chosen = os.environ.get(COMPONENT_VARIABLE)
    return chosen or str(Path(__file__).with_name("modal-provider.wasm"))


def program() -> list[str]:
    """The program `sandbox`: the one that was installed with this package, or the one on the path. Each has its component
    beside it; one that `INSPECT_MODAL_COMPONENT` names is given to it."""
    installed = Path(sysconfig.get_path("scripts")) / "sandbox"
    # Where there is none, the name says what is missing.
    found = str(installed) if os.access(installed, os.X_OK) else shutil.which("sandbox") or "sandbox"
    return [found, *(["--plugin", component(), "--grant"] if os.environ.get(COMPONENT_VARIABLE) else [])]


async def opened(app: str | None = None, environment: str | None = None) -> Provider:
    """The provider for an app and an environment of Modal; both may be left to settings.

    Raises:
        PrerequisiteError: without asyncio, without credentials, or when the component cannot be loaded.
    """
    try:
        library = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        library = "none"
    if library != "asyncio":
        raise PrerequisiteError(
            f"The sandbox type 'modal' runs on asyncio, and this is {library}: leave INSPECT_ASYNC_BACKEND unset."
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
    # Whoever came first: sandboxes and their leases belong to one provider.
    return _opened.setdefault(key, provider)
