"""The sandbox environment as Inspect knows it: one container of a Modal sandbox.

The class methods are Inspect's hooks and lead to `lifecycle`; the rest is one running container. Imported by every
`inspect` command, so nothing heavy is imported here at the top.
"""

from __future__ import annotations

import errno
import shlex
import time
from logging import getLogger
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, overload

import anyio
from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxConnection,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    SandboxUnavailableError,
    trace_action,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ._native import RunResult
    from .lifecycle import Created

logger = getLogger(f"inspect_ai.{__name__}")
"""For traces. Inspect collects them from loggers of its own package alone: others get the level that is displayed."""

TRACED_CHARACTERS = 1000
"""Of a command, in traces."""

PATIENCE_SECS = 90.0
"""How much later than its time limit a command's end may be reported before the waiting is given up: the component kills
what outlives its limit, and gives that up after about a minute and a half itself."""


class ModalSandboxEnvironment(SandboxEnvironment):
    """A container of a Modal sandbox: the sandbox's own, or one of its sidecars."""

    @classmethod
    def config_files(cls) -> list[str]:
        return ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml", "Dockerfile"]

    @classmethod
    def is_docker_compatible(cls) -> bool:
        return True

    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> BaseModel:
        from .config import ModalSandboxConfig

        return ModalSandboxConfig.model_validate(config)

    @classmethod
    async def task_init_environment(
        cls, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, str]:
        from . import lifecycle

        return lifecycle.image_variables(config, metadata)

    @classmethod
    async def task_init(cls, task_name: str, config: SandboxEnvironmentConfigType | None) -> None:
        from . import lifecycle

        await lifecycle.prepare(config)

    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        from . import lifecycle

        return {**await lifecycle.start(task_name, config, metadata)}

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        from . import lifecycle

        created = {id(env.created): env.created for env in environments.values() if isinstance(env, cls)}
        for one in created.values():
            await lifecycle.finish(one, interrupted)

    @classmethod
    async def task_cleanup(cls, task_name: str, config: SandboxEnvironmentConfigType | None, cleanup: bool) -> None:
        from . import lifecycle

        await lifecycle.end(cleanup)

    @classmethod
    async def cli_cleanup(cls, id: str | None) -> None:
        from . import cleanup

        await cleanup.run(id)

    def __init__(self, created: Created, service: str, container: str | None, workdir: str, user: str | None) -> None:
        super().__init__()
        self.created = created
        self.service = service
        self._container = container
        self._workdir = PurePosixPath(workdir)
        self._user = user

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Runs a command. It is never run twice, whatever `timeout_retry` says: only a start that certainly did not
        happen is repeated, by the component. There is no queue, so nothing for `concurrency` to skip."""
        from ._native import NativeError
        from .errors import exec_error, is_unknown_user

        if any("\0" in word for word in cmd):
            # The words by which Inspect knows it for a mistake in what the model wrote.
            raise ValueError("embedded null byte in the command")
        limit = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        stdin = input.encode(errors="replace") if isinstance(input, str) else input
        started = time.monotonic()
        try:
            with anyio.fail_after(None if timeout is None else timeout + PATIENCE_SECS):
                result = await self.run(
                    cmd,
                    stdin=stdin,
                    cwd=str(self._workdir / cwd) if cwd is not None else None,
                    env=env or {},
                    user=user,
                    timeout=timeout,
                    stdout_max=limit,
                    stderr_max=limit,
                )
        except NativeError as error:
            if user is not None and is_unknown_user(error):
                return ExecResult(False, 126, "", f"unable to find user {user}: {error.args[4]}\n")
            mapped = exec_error(error, user)
            if isinstance(mapped, TimeoutError) and timeout is not None:
                mapped = TimeoutError(f"Command timed out after {timeout} seconds")
            raise (mapped or RuntimeError(error.args[1])) from None
        finally:
            self.created.metrics.executed(time.monotonic() - started)
        return _outcome(cmd, result, timeout)

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
        """Runs a command in this container as the default user or another one, and gives what the component says."""
        line = shlex.join(argv)
        if len(line) > TRACED_CHARACTERS:
            line = line[:TRACED_CHARACTERS] + "…"
        with trace_action(logger, "Modal", "exec in %s (%s): %s", self.created.id, self.service, line):
            result = await self.created.provider.run(
                self.created.id,
                [_text(word) for word in argv],
                stdin=stdin,
                cwd=cwd or str(self._workdir),
                env=[(_text(name), _text(value)) for name, value in (env or {}).items()],
                user=user or self._user,
                timeout=timeout,
                stdout_max=stdout_max,
                stderr_max=stderr_max,
                container=self._container,
            )
        self.created.metrics.retries += result.retries
        self.created.metrics.transferred(len(stdin or b""), result.stdout_total + result.stderr_total)
        return result

    async def write_file(self, file: str, contents: str | bytes) -> None:
        from . import files
        from ._native import NativeError
        from .errors import file_error, os_error

        data = contents.encode(errors="replace") if isinstance(contents, str) else contents
        path = self._path(file)
        if file.endswith("/") or _names_directory(file):
            raise os_error(errno.EISDIR, file)
        try:
            with trace_action(logger, "Modal", "write %d bytes to %s in %s", len(data), path, self.created.id):
                if self._user is None:
                    with anyio.fail_after(files.TIME_SECS):
                        write = self.created.provider.write_file(self.created.id, path, data, self._container)
                        await write
                    self.created.metrics.transferred(len(data), 0)
                else:
                    await files.write(self, path, file, data)
        except NativeError as error:
            raise file_error(error, file) from None

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        from . import files
        from ._native import NativeError
        from .errors import file_error, os_error

        limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        path = self._path(file)
        if _names_directory(file):
            raise os_error(errno.EISDIR, file)
        try:
            with trace_action(logger, "Modal", "read %s in %s", path, self.created.id):
                if self._user is None:
                    with anyio.fail_after(files.TIME_SECS):
                        read = self.created.provider.read_file(self.created.id, path, limit, self._container)
                        data, mode = await read
                    # Root may read everything. What its owner may not read is meant not to be read.
                    if not mode & 0o400:
                        raise os_error(errno.EACCES, file)
                    self.created.metrics.transferred(0, len(data))
                else:
                    data = await files.read(self, path, file)
        except NativeError as error:
            if error.args[0] == "file:too-large":
                raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None) from None
            raise file_error(error, file) from None
        return data.decode() if text else data

    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        """The command that leads into a login shell, by this project's program `sandbox`; and where the ports are reached."""
        from . import lifecycle, provider

        words = [provider.program(), "shell", self.created.id, "--plugin", provider.component()]
        if self._container is not None:
            words += ["--container", self._container]
        if user or self._user:
            words += ["--user", str(user or self._user)]
        ports = await lifecycle.ports(self.created) if self._container is None else None
        return SandboxConnection(type="modal", command=shlex.join(words), ports=ports, container=self.created.id)

    def default_polling_interval(self) -> float:
        return 0.2

    def _path(self, file: str) -> str:
        return str(self._workdir / _text(file))


def _names_directory(file: str) -> bool:
    return PurePosixPath(file).name in ("", "..") or file.endswith("/.")


def _text(word: str) -> str:
    """Without lone surrogates, which no UTF-8 can carry; a model's JSON may hold them."""
    return word.encode(errors="replace").decode()


def _outcome(cmd: list[str], result: RunResult, timeout: int | None) -> ExecResult[str]:
    stdout, stderr = result.stdout.decode(errors="replace"), result.stderr.decode(errors="replace")
    match result.verdict:
        case "exited":
            if result.code == 126 and "permission denied" in (stderr + stdout).lower():
                raise PermissionError(errno.EACCES, "Permission denied", cmd[0] if cmd else "")
            code = result.code
        case "signaled":
            code = 128 + result.code
        case "deadline":
            late = TimeoutError(f"Command timed out after {timeout} seconds")
            if stdout or stderr:
                late.truncated_output = stdout + stderr  # type: ignore[attr-defined]
            raise late
        case "sandbox-ended":
            raise SandboxUnavailableError(f"The sandbox has ended: {result.detail}")
        case _:
            raise SandboxUnavailableError(f"The command was lost: {result.detail}")
    return ExecResult(code == 0, code, stdout, stderr)
