"""Limits the rate at which all processes of this user on this machine create sandboxes.

Modal limits the creations per second of a workspace. It refuses more with a time to wait, which the component obeys. Pacing the
creations beforehand keeps a thousand samples from waiting for the retries of each other. The rate begins at a value that most
workspaces permit, is halved when the service refuses, and recovers slowly.
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

from sandbox_host import SandboxError

if TYPE_CHECKING:
    from sandbox_host import Provider, Sandbox, SandboxSpec

RATE_VARIABLE = "INSPECT_MODAL_CREATES_PER_SECOND"
DEFAULT_RATE = 20.0
"""Creations per second: the rate at the beginning, and the highest one."""

MIN_SHARE = 1 / 64
"""The lowest rate, as a share of the highest one."""

RECOVERY_SECS = 300.0
"""The time in which the rate would recover from zero to the highest one."""

SAME_REFUSAL_SECS = 1.0
"""Refusals within this time count once, because the creations were under way together."""

MAX_WAIT_SECS = 600.0
"""The longest wait for a turn. Without it, all processes would wait after the clock was set back."""

ATTEMPTS = 6
"""How often a creation is tried if the service refuses it for its rate and gives no time to wait."""


@dataclass
class Pace:
    """The state that the processes share. Times are in seconds since the epoch."""

    free: float = 0.0
    """The next time that no process has reserved."""
    share: float = 1.0
    """The rate at the time `slowed`, as a share of the highest one."""
    slowed: float = 0.0
    """When the rate was last halved."""

    @classmethod
    def read(cls, text: bytes) -> Pace:
        """Returns the state in a file, or a new one if the file is damaged."""
        try:
            known = json.loads(text)
            pace = cls(**{name: float(known[name]) for name in asdict(cls())})
        except (ValueError, TypeError, KeyError):
            return cls()
        return pace if 0 < pace.share <= 1 else cls()

    def share_at(self, now: float) -> float:
        """Returns the current rate as a share of the highest one."""
        return min(1.0, self.share + max(0.0, now - self.slowed) / RECOVERY_SECS)

    def next(self, now: float, rate: float) -> float:
        """Reserves the next free time for a creation and returns it. `rate` is the highest rate per second."""
        start = min(max(now, self.free), now + MAX_WAIT_SECS)
        self.free = start + 1 / (rate * self.share_at(now))
        return start

    def slow_down(self, now: float, wait: float) -> None:
        """Halves the rate. No creation is reserved for the next `wait` seconds, which the service asks for."""
        if not 0 <= now - self.slowed < SAME_REFUSAL_SECS:
            self.share, self.slowed = max(MIN_SHARE, self.share_at(now) / 2), now
        self.free = min(max(self.free, now + wait), now + MAX_WAIT_SECS)


def _rate() -> float:
    """Returns the highest rate, in creations per second. 0 switches pacing off."""
    try:
        return float(os.environ.get(RATE_VARIABLE, DEFAULT_RATE))
    except ValueError:
        return DEFAULT_RATE


def _changed(change: Callable[[Pace], float]) -> float:
    """Changes the shared state under a lock and returns the result of `change`."""
    path = Path(tempfile.gettempdir()) / f"inspect-modal-sandbox-{os.getuid()}.pace"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # The lock is held for microseconds, so it may block the event loop.
        fcntl.flock(handle, fcntl.LOCK_EX)
        pace = Pace.read(os.pread(handle, 1024, 0))
        result = change(pace)
        os.pwrite(handle, f"{json.dumps(asdict(pace)):<256}".encode(), 0)
        return result
    finally:
        os.close(handle)


def reserve(rate: float) -> float:
    """Reserves the next free time for a creation and returns it, in seconds since the epoch."""
    return _changed(lambda pace: pace.next(time.time(), rate))


def slow_down(wait: float = 0.0) -> None:
    """Lowers the rate of all processes. `wait` is how long the service wants no creation, in seconds."""

    def change(pace: Pace) -> float:
        pace.slow_down(time.time(), wait)
        return 0.0

    try:
        _changed(change)
    except OSError:
        return


_seen: dict[int, int] = {}
"""The number of refusals of each provider that were already counted."""


async def _count_refusals(provider: Provider) -> None:
    """Lowers the rate if the service has asked creations of this process to wait since the last call."""
    throttled = await provider.throttled()
    if throttled.count != _seen.get(id(provider), 0):
        _seen[id(provider)] = throttled.count
        slow_down(throttled.remaining)


async def turn(provider: Provider | None = None) -> None:
    """Waits for the turn of one creation."""
    rate = _rate()
    if rate <= 0:
        return
    if provider is not None:
        await _count_refusals(provider)
    try:
        wait = reserve(rate) - time.time()
    except OSError:
        # If the file cannot be written, creations are not paced.
        return
    if wait > 0:
        await asyncio.sleep(wait)


async def create(provider: Provider, specification: SandboxSpec) -> Sandbox:
    """Creates a sandbox, after `turn`. If the service refuses it for its rate, waits for another turn and repeats it.

    Raises:
        SandboxError: if it fails for another reason, or too often.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await provider.create(specification)
        except SandboxError as error:
            refused = error.kind == "resource-exhausted" and error.happened == "no"
            if not refused or attempt == ATTEMPTS or _rate() <= 0:
                raise
            slow_down(min(2.0**attempt, 30.0))
            await turn(provider)
    raise AssertionError("the last attempt raises or returns")
