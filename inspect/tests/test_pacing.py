"""The rate of creations, which all processes of a machine share."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from inspect_modal_sandbox import pacing
from sandbox_host import SandboxError, Throttled

RESERVE = """
import os, sys, time
from inspect_modal_sandbox import pacing
read = os.pread
def slow(*where):
    # Gives other processes time to write between read and write, which the lock must prevent.
    found = read(*where)
    time.sleep(0.002)
    return found
os.pread = slow
sys.stdin.readline()
for _ in range(20):
    print(pacing.reserve(50.0))
"""


def test_processes_share_the_pace(tmp_path: Path) -> None:
    """Each creation gets a time of its own, at least a fiftieth of a second from all others."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RESERVE],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.close()
    moments = []
    for process in processes:
        assert process.stdout is not None
        moments += [float(line) for line in process.stdout.read().splitlines()]
        assert process.wait(timeout=60) == 0
    moments.sort()
    assert len(moments) == 60
    assert min(later - earlier for earlier, later in itertools.pairwise(moments)) >= 0.0199


def test_no_creation_waits_long_after_the_clock_was_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("time.time", lambda: 2_000_000.0)
    pacing.reserve(1.0)
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    assert pacing.reserve(1.0) <= 1_000_600.0


def test_a_damaged_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pacing.reserve(1.0)
    (file,) = tmp_path.iterdir()
    file.write_text("nonsense")
    monkeypatch.setattr("time.time", lambda: 5.0)
    assert pacing.reserve(1.0) == 5.0


def test_a_refusal_halves_the_rate_once_and_it_recovers_slowly() -> None:
    pace = pacing.Pace()
    assert [pace.next(100.0, 20.0) for _ in range(3)] == [100.0, 100.05, 100.1]
    for moment in (100.2, 100.3, 101.1):
        pace.slow_down(moment, 0.0)
    assert pace.share_at(101.1) == pytest.approx(0.5, abs=0.01), "refusals of creations that were under way together count once"
    pace.slow_down(102.0, 0.0)
    assert pace.share_at(102.0) == pytest.approx(0.25, abs=0.01)
    assert pace.share_at(132.0) == pytest.approx(0.35, abs=0.01)
    assert pace.share_at(10_000.0) == 1.0
    for moment in range(200, 400, 2):
        pace.slow_down(float(moment), 0.0)
    assert pace.share_at(398.0) >= pacing.MIN_SHARE


def test_creations_wait_as_long_as_the_service_asks() -> None:
    pace = pacing.Pace()
    pace.slow_down(100.0, 12.5)
    assert pace.next(100.0, 20.0) == 112.5
    assert pace.next(100.0, 20.0) > 112.5
    pace.slow_down(200.0, 1e9)
    assert pace.next(200.0, 20.0) == 200.0 + pacing.MAX_WAIT_SECS


class Service:
    """A provider whose first creations are refused."""

    def __init__(self, refusals: int, kind: str = "resource-exhausted", happened: str = "no") -> None:
        self.refusals, self.kind, self.happened, self.asked = refusals, kind, happened, 0
        self.waits = Throttled(0, 0.0)

    async def throttled(self) -> Throttled:
        return self.waits

    async def create(self, specification: Any) -> Any:
        self.asked += 1
        if self.asked <= self.refusals:
            raise SandboxError("too many", self.kind, happened=self.happened, retryable=True)
        return specification


@pytest.mark.asyncio
async def test_a_creation_that_exceeds_the_rate_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv(pacing.RATE_VARIABLE, "1000")
    waited: list[float] = []

    async def sleep(secs: float) -> None:
        waited.append(secs)

    monkeypatch.setattr("asyncio.sleep", sleep)
    service: Any = Service(3)
    it: Any = object()
    assert await pacing.create(service, it) is it
    assert service.asked == 4 and len(waited) == 3 and waited == sorted(waited)
    for refused, asked in [
        (Service(99), pacing.ATTEMPTS),
        (Service(1, "invalid-argument"), 1),
        (Service(1, happened="unknown"), 1),
    ]:
        service = refused
        with pytest.raises(SandboxError):
            await pacing.create(service, it)
        assert service.asked == asked


@pytest.mark.asyncio
async def test_the_rate_begins_at_20_and_follows_what_the_service_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The component obeys the waits that the service asks for, and counts them. Other processes must hear of them too."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv(pacing.RATE_VARIABLE, raising=False)
    monkeypatch.setattr("time.time", lambda: 1000.0)
    waited: list[float] = []

    async def sleep(secs: float) -> None:
        waited.append(secs)

    monkeypatch.setattr("asyncio.sleep", sleep)
    service: Any = Service(0)
    for _ in range(3):
        await pacing.turn(service)
    assert waited == pytest.approx([0.05, 0.1])
    service.waits = Throttled(1, 12.5)
    for _ in range(2):
        await pacing.turn(service)
    assert waited[2:] == pytest.approx([12.5, 12.6]), "half the rate after the wait"
    monkeypatch.setattr("time.time", lambda: 1100.0)
    await pacing.turn(service)
    assert len(waited) == 4, "the same wait counts once"
