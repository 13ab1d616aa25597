"""Starts real container engines by the program of the crate `tests/engines`, whose path is in `ENGINES_PROGRAM`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def leave_out(reason: str) -> None:
    """Skips the test and prints the reason. Fails in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"A container engine is needed in CI: {reason}")
    print(f"skipped: {reason}")
    pytest.skip(reason)


KINDS = ["dockerd", "podman"]
"""The engines that can be started."""


@contextmanager
def started(kind: str) -> Iterator[str]:
    """Starts an engine of `KINDS` and yields its address. Sets `DOCKER_HOST`, and removes other settings of an engine."""
    program = os.environ.get("ENGINES_PROGRAM")
    if not program:
        leave_out("ENGINES_PROGRAM does not name the program that starts engines")
    process = subprocess.Popen(
        [str(program), "start", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    if not line:
        said = process.stderr.read().strip()
        process.wait(timeout=60)
        if "cannot run here" in said:
            leave_out(said)
        pytest.fail(f"the engine did not start: {said}")
    before = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
    for name in before:
        del os.environ[name]
    os.environ["DOCKER_HOST"] = json.loads(line)["host"]
    try:
        yield os.environ["DOCKER_HOST"]
    finally:
        del os.environ["DOCKER_HOST"]
        os.environ.update(before)
        # The program ends the engine when its standard input ends.
        process.stdin.close()
        process.wait(timeout=120)
