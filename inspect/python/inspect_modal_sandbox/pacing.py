"""Pacing of what creates sandboxes, across all processes of this user on this machine.

Modal takes a few creations per second from a workspace and answers what is beyond with a time to wait. The component
honours that; coming in step in the first place keeps a thousand samples from waiting for each other's retries.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
import time
from pathlib import Path

RATE_VARIABLE = "INSPECT_MODAL_CREATES_PER_SECOND"
DEFAULT_RATE = 5.0
"""What workspaces report as the usual limit."""


def _rate() -> float:
    try:
        return float(os.environ.get(RATE_VARIABLE, DEFAULT_RATE))
    except ValueError:
        return DEFAULT_RATE


def reserve(rate: float) -> float:
    """Takes the next free moment, and gives when that is."""
    path = Path(tempfile.gettempdir()) / f"inspect-modal-sandbox-{os.getuid()}.pace"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # Held for some microseconds: no reason for a thread.
        fcntl.flock(handle, fcntl.LOCK_EX)
        now = time.time()
        try:
            free = float(os.pread(handle, 64, 0) or b"0")
        except ValueError:
            free = 0.0
        # A clock that was put back must not keep everybody waiting.
        start = min(max(now, free), now + 600)
        os.pwrite(handle, f"{start + 1 / rate:<32.6f}".encode(), 0)
        return start
    finally:
        os.close(handle)


async def turn() -> None:
    """Waits until it is this creation's turn."""
    rate = _rate()
    if rate <= 0:
        return
    try:
        wait = reserve(rate) - time.time()
    except OSError:
        # Without a place for the file there is no pacing, and nothing worse.
        return
    if wait > 0:
        await asyncio.sleep(wait)
