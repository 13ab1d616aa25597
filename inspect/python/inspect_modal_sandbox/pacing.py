"""Pacing of what creates sandboxes, across all processes of this user on this machine.

Modal takes so many creations per second from a workspace and answers what is beyond with a time to wait. The component
honours that; coming in step in the first place keeps a thousand samples from waiting for each other's retries. The pace
begins at a rate that most workspaces have, is halved when the service says that it is too fast, and recovers slowly.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .nativeerror import NativeError

if TYPE_CHECKING:
    from ._native import Provider

RATE_VARIABLE = "INSPECT_MODAL_CREATES_PER_SECOND"
DEFAULT_RATE = 20.0
"""Creations per second to begin with, and the most there will be."""

SLOWEST_SHARE = 1 / 64
"""Of the rate at the beginning: it is not halved any further."""

RECOVERY_SECS = 300.0
"""From nothing back to the full rate."""

SAME_SECS = 1.0
"""Refusals within this time are one: those of creations that were under way together."""

LONGEST_WAIT_SECS = 600.0
"""No moment lies further ahead: a clock that was put back must not keep everybody waiting."""

ATTEMPTS = 6
"""Creations that are refused for their number without a time to wait are tried so often in all."""


@dataclass
class Pace:
    """What the processes share. Times are in seconds since the epoch."""

    free: float = 0.0
    """The next moment that no process has taken."""
    share: float = 1.0
    """Of the full rate, at the time below."""
    slowed: float = 0.0
    """When it was last halved."""

    @classmethod
    def read(cls, text: bytes) -> Pace:
        """What a file says; a new one where that makes no sense."""
        try:
            known = json.loads(text)
            pace = cls(**{name: float(known[name]) for name in asdict(cls())})
        except (ValueError, TypeError, KeyError):
            return cls()
        return pace if 0 < pace.share <= 1 else cls()

    def share_at(self, now: float) -> float:
        """The share of the full rate that is used now."""
        return min(1.0, self.share + max(0.0, now - self.slowed) / RECOVERY_SECS)

    def next(self, now: float, rate: float) -> float:
        """Takes the next free moment."""
        start = min(max(now, self.free), now + LONGEST_WAIT_SECS)
        self.free = start + 1 / (rate * self.share_at(now))
        return start

    def slow_down(self, now: float, wait: float) -> None:
        """Halves the rate, and leaves free the time that the service asks for."""
        if not 0 <= now - self.slowed < SAME_SECS:
            self.share, self.slowed = max(SLOWEST_SHARE, self.share_at(now) / 2), now
        self.free = min(max(self.free, now + wait), now + LONGEST_WAIT_SECS)


def _rate() -> float:
    try:
        return float(os.environ.get(RATE_VARIABLE, DEFAULT_RATE))
    except ValueError:
        return DEFAULT_RATE


def _changed(change: Callable[[Pace], float]) -> float:
    """Changes what the processes share, one after the other."""
    path = Path(tempfile.gettempdir()) / f"inspect-modal-sandbox-{os.getuid()}.pace"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # Held for some microseconds: no reason for a thread.
        fcntl.flock(handle, fcntl.LOCK_EX)
        pace = Pace.read(os.pread(handle, 1024, 0))
        result = change(pace)
        os.pwrite(handle, f"{json.dumps(asdict(pace)):<256}".encode(), 0)
        return result
    finally:
        os.close(handle)


def reserve(rate: float) -> float:
    """Takes the next free moment, and gives when that is."""
    return _changed(lambda pace: pace.next(time.time(), rate))


def slow_down(wait: float = 0.0) -> None:
    """Tells all processes that the service takes fewer, and how long it wants none, in seconds."""

    def change(pace: Pace) -> float:
        pace.slow_down(time.time(), wait)
        return 0.0

    try:
        _changed(change)
    except OSError:
        return


_seen: dict[int, int] = {}


def _look(provider: Provider) -> None:
    """Whether the service has asked creations of this process to wait since the last look."""
    count, wait = provider.throttled()
    if count != _seen.get(id(provider), 0):
        _seen[id(provider)] = count
        slow_down(wait)


async def turn(provider: Provider | None = None) -> None:
    """Waits until it is this creation's turn."""
    rate = _rate()
    if rate <= 0:
        return
    if provider is not None:
        _look(provider)
    try:
        wait = reserve(rate) - time.time()
    except OSError:
        # Without a place for the file there is no pacing, and nothing worse.
        return
    if wait > 0:
        await asyncio.sleep(wait)


async def create(provider: Provider, specification: str) -> tuple[str, int]:
    """Makes a sandbox, whose turn it is. One that is refused because there are too many waits for another turn."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            created: tuple[str, int] = await provider.create(specification)
        except NativeError as error:
            if error.kind != "resource-exhausted" or error.happened != "no" or attempt == ATTEMPTS or _rate() <= 0:
                raise
            slow_down(min(2.0**attempt, 30.0))
            await turn(provider)
        else:
            return created
    raise AssertionError("the last attempt raises or returns")
