"""The pace of creations, which all processes of a machine keep together."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from inspect_modal_sandbox import pacing

RESERVE = """
import os, sys, time
from inspect_modal_sandbox import pacing
read = os.pread
def slow(*where):
    # Time for the others to come between reading and writing, if anything let them.
    found = read(*where)
    time.sleep(0.002)
    return found
os.pread = slow
sys.stdin.readline()
for _ in range(20):
    print(pacing.reserve(50.0))
"""


def test_processes_share_the_pace(tmp_path: Path) -> None:
    """Whoever asks gets a moment of his own, a fiftieth of a second from everybody else's."""
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


def test_a_clock_that_was_put_back_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("time.time", lambda: 2_000_000.0)
    pacing.reserve(1.0)
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    assert pacing.reserve(1.0) <= 1_000_600.0


def test_a_file_that_says_nothing_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pacing.reserve(1.0)
    (file,) = tmp_path.iterdir()
    file.write_text("nonsense")
    monkeypatch.setattr("time.time", lambda: 5.0)
    assert pacing.reserve(1.0) == 5.0
