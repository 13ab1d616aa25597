"""The same names as in `sandbox_host`, without asyncio: each call waits for its reply. For scripts and notebooks.

    >>> from sandbox_host.sync import Provider
    >>> with Provider.open("memory") as provider, provider.create() as sandbox:
    ...     print(sandbox.run(["echo", "hello"]).text, end="")
    hello

Other threads run while a call waits. Ctrl-C cancels it. An object may be used by several threads.

The sources in this folder except `_io.py` are made from the asynchronous ones by `make_sync.py`.
"""

from __future__ import annotations

from .build import Build
from .forward import Forward, Watch
from .process import Process, Reader
from .provider import Provider
from .sandbox import Sandbox

__all__ = ["Build", "Forward", "Process", "Provider", "Reader", "Sandbox", "Watch"]
