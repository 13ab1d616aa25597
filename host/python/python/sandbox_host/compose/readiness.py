"""Waits for one container: until it answers, until it is healthy, until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import SandboxError
from .container import C, Container, SandboxLostError, StartError, Surroundings
from .outcomes import end_text, lost_text
from .plan import Healthcheck, Service

if TYPE_CHECKING:
    from ..records import EndReason

T = TypeVar("T")

PROBE = 'pwd; while read -r key uid _; do [ "$key" = Uid: ] && echo "$uid"; done </proc/self/status; exit 0'
"""The first command in each container. It prints the working directory and the effective user id."""

PROBE_BYTES = 8192
"""Of the probe's output."""

END_WAIT_SECS = 2.0
"""How long to wait for the end of a container after a command in it failed. The end explains the failure, but may be reported a
moment later."""

COMPLETION_POLL_SECS = 50.0
"""The duration of one request that waits for the end of a container."""

LAST_OUTPUT_BYTES = 1000
"""The part of a service's output that an error shows."""


class ServiceEnded(Exception):
    """The container of a service has ended by itself."""

    def __init__(self, service: str, end: EndReason, output: str) -> None:
        super().__init__(f"The service '{service}' has ended: {end_text(end)}.{quoted_output(output)}")
        self.code = end.code
        """Its exit code, or `None` if it did not exit by itself."""


async def answering_container(around: Surroundings[C], service: Service, sidecar: str | None, workdir: str | None) -> C:
    """Waits until a container runs commands, and returns it with its working directory.

    `workdir` is the working directory of the image, for a container that cannot report its own.

    Raises:
        SandboxLostError: if the container has ended.
        StartError: if its shell fails.
        SandboxError: if the command could not be started.
    """
    with around.trace(f"start of {service.name}"):
        sandbox = around.sandbox if sidecar is None else around.sandbox.sidecar(sidecar)
        result = await sandbox.run(
            ["/bin/sh", "-c", PROBE],
            cwd=service.workdir,
            user=service.user,
            stdout_max=PROBE_BYTES,
            stderr_max=PROBE_BYTES,
        )
    if (lost := lost_text(result.verdict)) is not None:
        raise SandboxLostError(f"The service '{service.name}' did not start: {lost}")
    lines = result.text.splitlines()
    if result.ok and lines and lines[0].startswith("/"):
        return around.container(service, sidecar, lines[0])
    if result.exit_code in (126, 127):
        # The image has no shell. Commands can still be run in it.
        return around.container(service, sidecar, service.workdir or workdir or "/")
    complaint = (result.stderr or result.stdout).decode(errors="replace").strip()
    raise StartError(f"The service '{service.name}' started, but a first command in it failed: {complaint}")


async def unless_ended(around: Surroundings[C], service: str, is_sidecar: bool, call: Coroutine[Any, Any, T]) -> T:
    """Returns the result of a call to a container.

    Raises:
        ServiceEnded: if the call failed because the container has ended. Only the end of a sidecar can be detected.
        Exception: the call's own exception otherwise.
    """
    try:
        return await call
    except (SandboxError, StartError):
        end = None
        if is_sidecar:
            with contextlib.suppress(SandboxError):
                end = await around.sandbox.wait_sidecar(service, END_WAIT_SECS)
        if end is None:
            raise
        raise ServiceEnded(service, end, await last_output(around, service)) from None


async def check_running(around: Surroundings[C], service: str) -> None:
    """Returns if a sidecar is running.

    Raises:
        ServiceEnded: if it has ended.
    """
    end = await around.sandbox.wait_sidecar(service, 0)
    if end is not None:
        raise ServiceEnded(service, end, await last_output(around, service))


async def last_output(around: Surroundings[C], service: str) -> str:
    """Returns the end of the output of a sidecar, or an empty string if the provider does not return it."""
    prefix = f"{service} | "
    try:
        text = "".join([chunk.text async for chunk in around.sandbox.logs()])
    except SandboxError as error:
        around.note(f"The output of {service} cannot be read: {error.message}")
        return ""
    said = "\n".join(line.removeprefix(prefix) for line in text.split("\n") if line.startswith(prefix))
    # A character that is cut in two is left out.
    return said.encode()[-LAST_OUTPUT_BYTES:].decode(errors="ignore").strip()


def quoted_output(output: str) -> str:
    """Returns the sentence that adds the output of a service to an error."""
    return f" Its last output: {output}" if output else ""


async def wait_completed(around: Surroundings[C], service: str) -> None:
    """Waits until a sidecar, which other services depend on, has ended with exit code 0.

    Raises:
        StartError: if it ended otherwise.
    """
    with around.trace(f"end of {service}"):
        while (end := await around.sandbox.wait_sidecar(service, COMPLETION_POLL_SECS)) is None:
            pass
    if end.code != 0:
        output = quoted_output(await last_output(around, service))
        raise StartError(f"The service '{service}', which others depend on, did not complete: {end_text(end)}.{output}")


async def wait_healthy(container: Container, check: Healthcheck) -> None:
    """Waits until the health check passes. Intervals, retries and start period mean the same as with Docker.

    Raises:
        SandboxLostError: if the container has ended.
        StartError: if the check failed as often as it may.
    """
    begun = time.monotonic()
    failures = 0
    while True:
        result = await container.run(check.argv, timeout=check.timeout)
        if result.ok:
            return
        if (lost := lost_text(result.verdict)) is not None:
            raise SandboxLostError(f"The service '{container.service}' ended: {lost}")
        starting = time.monotonic() - begun < check.start_period
        if not starting:
            failures += 1
        if failures >= check.retries:
            said = (result.stdout + result.stderr).decode(errors="replace").strip()[-LAST_OUTPUT_BYTES:]
            raise StartError(f"The service '{container.service}' is not healthy: {said or result.verdict}")
        await asyncio.sleep(min(check.start_interval, check.interval) if starting else check.interval)
