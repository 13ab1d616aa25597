"""One running container of a sandbox, in which commands are run: the sandbox's own container, or a sidecar."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from inspect_ai.util import trace_action

from .run import Created
from .traces import logger

if TYPE_CHECKING:
    from sandbox_host import RunResult

TRACED_CHARACTERS = 1000
"""The length at which a command is cut in traces."""


class Container:
    """A running container.

    `service` is the name of its service. `sidecar` is the same for a sidecar and `None` for the sandbox's own container.
    Commands start in `workdir`, as `user`, or as the container's own user if that is `None`.
    """

    def __init__(self, created: Created, service: str, sidecar: str | None, workdir: str, user: str | None) -> None:
        self.created = created
        self.service = service
        self.sidecar = sidecar
        self.sandbox = created.sandbox if sidecar is None else created.sandbox.sidecar(sidecar)
        self.workdir = PurePosixPath(workdir)
        self.user = user

    async def run(
        self,
        argv: list[str],
        *,
        stdin: bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: float | None = None,
        stdout_max: int = 65536,
        stderr_max: int = 65536,
    ) -> RunResult:
        """Runs a command and returns its end. Of the output, the last `stdout_max` and `stderr_max` bytes are kept.

        Raises:
            SandboxError: if the command could not be started or followed.
        """
        line = shlex.join(argv)
        if len(line) > TRACED_CHARACTERS:
            line = line[:TRACED_CHARACTERS] + "…"
        with trace_action(logger, self.created.kind.title, "exec in %s (%s): %s", self.created.id, self.service, line):
            result = await self.sandbox.run(
                [without_surrogates(word) for word in argv],
                stdin=stdin or b"",
                cwd=cwd or str(self.workdir),
                env=dict(_variable(name, value) for name, value in (env or {}).items()),
                user=user or self.user,
                timeout=timeout,
                stdout_max=stdout_max,
                stderr_max=stderr_max,
            )
        self.created.metrics.retries += result.retries
        self.created.metrics.transferred(len(stdin or b""), result.stdout_total + result.stderr_total)
        return result


def without_surrogates(text: str) -> str:
    """Replaces lone surrogates, which UTF-8 cannot encode. The JSON that a model writes may contain them."""
    return text.encode(errors="replace").decode()


def _variable(name: str, value: str) -> tuple[str, str]:
    """Splits a variable at its first equals sign, which may be in the name: `docker exec --env` does the same."""
    name, _, value = without_surrogates(f"{name}={value}").partition("=")
    return name, value
