"""The sandbox environment that Inspect uses: its hooks, and the commands and files of one container.

The hooks (class methods) call the package `lifecycle`. The instance methods translate between Inspect's contract and one
running container (`lifecycle.container`).

Every `inspect` command imports this module. So the top of it imports only Inspect; everything else is imported where it is
used.
"""

from __future__ import annotations

import errno
import re
import shlex
import signal
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import anyio
from inspect_ai.util import (
    ExecResult,
    SandboxConnection,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    trace_action,
)

from .kinds import DOCKER_ENGINE, MODAL, Kind

if TYPE_CHECKING:
    from pydantic import BaseModel
    from sandbox_host import RunResult

    from .lifecycle.container import Container
    from .lifecycle.run import Created

GRACE_SECS = 90.0
"""How long after its time limit a command may still be reported. The component kills a command that outlives its limit, and
gives up after about a minute and a half."""

CHECK_SECS = 60.0
"""The time limit of the command that checks whether a program may be executed."""

SHOWN_CHARACTERS = 200
"""The length at which the name of a program is cut in a message."""

USER = re.compile(r"[A-Za-z0-9_.$][A-Za-z0-9_.$-]{0,63}")
"""A user or group, by name or number."""

IS_EXECUTABLE = """
case $1 in */*) file=$1;; *) file=$(command -v -- "$1") || exit 1;; esac
[ -f "$file" ] && [ -x "$file" ]
"""
"""Succeeds if the program `$1` may be executed."""


class ProviderSandboxEnvironment(SandboxEnvironment):
    """A container of a sandbox: the sandbox's own container, or one of its sidecars. Each sandbox type is a subclass."""

    kind: ClassVar[Kind]
    """What differs between sandbox types."""

    @classmethod
    def config_files(cls) -> list[str]:
        return ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml", "Dockerfile"]

    @classmethod
    def is_docker_compatible(cls) -> bool:
        return True

    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> BaseModel:
        from . import config as configs

        described: type[BaseModel] = getattr(configs, cls.kind.config)
        return described.model_validate(config)

    @classmethod
    async def task_init_environment(
        cls, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, str]:
        from .lifecycle.images import image_variables

        return image_variables(config, metadata, cls.kind)

    @classmethod
    async def task_init(cls, task_name: str, config: SandboxEnvironmentConfigType | None) -> None:
        from .lifecycle.startup import prepare

        await prepare(cls.kind, config)

    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        from .lifecycle.create import start

        containers = await start(cls.kind, task_name, config, metadata)
        return {name: cls(container) for name, container in containers.items()}

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        from .lifecycle.ending import finish

        created = {id(env.created): env.created for env in environments.values() if isinstance(env, cls)}
        for one in created.values():
            await finish(one, interrupted)

    @classmethod
    async def task_cleanup(cls, task_name: str, config: SandboxEnvironmentConfigType | None, cleanup: bool) -> None:
        from .lifecycle.ending import end

        await end(cls.kind, cleanup)

    @classmethod
    async def cli_cleanup(cls, id: str | None) -> None:
        from .cleanup import run

        await run(cls.kind, id)

    def __init__(self, container: Container) -> None:
        super().__init__()
        self._container = container

    @property
    def created(self) -> Created:
        """The sandbox that this container belongs to."""
        return self._container.created

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
        """Runs a command.

        A command is never run twice, whatever `timeout_retry` says: the component repeats a start only if it certainly did not
        happen. `concurrency` has no effect, because commands do not wait for each other.
        """
        from sandbox_host import SandboxError

        from .errors import exec_error, is_unknown_user

        refused = _refused(cmd, cwd, env or {}, user, timeout)
        if refused is not None:
            return refused
        limit = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        stdin = input.encode(errors="replace") if isinstance(input, str) else input
        started = time.monotonic()
        try:
            with anyio.fail_after(None if timeout is None else timeout + GRACE_SECS):
                result = await self._container.run(
                    cmd,
                    stdin=stdin,
                    cwd=self._directory(cwd),
                    env=env or {},
                    user=user,
                    timeout=timeout,
                    stdout_max=limit,
                    stderr_max=limit,
                )
        except SandboxError as error:
            if user is not None and is_unknown_user(error):
                return _unknown_user(user)
            if error.kind == "invalid-argument":
                # `_refused` has found all other mistakes, so the command line or the environment is too long.
                return _not_run(f"{cmd[0][:SHOWN_CHARACTERS]}: Argument list too long")
            mapped = exec_error(error, user)
            if isinstance(mapped, TimeoutError) and timeout is not None:
                mapped = _timed_out(timeout)
            raise (mapped or RuntimeError(error.message)) from None
        finally:
            self.created.metrics.executed(time.monotonic() - started)
        if _looks_not_executable(cmd, result) and not await self._is_executable(cmd[0], cwd, env, user):
            raise PermissionError(errno.EACCES, "Permission denied", cmd[0])
        return _outcome(result, timeout, limit)

    async def _is_executable(self, program: str, cwd: str | None, env: dict[str, str] | None, user: str | None) -> bool:
        """Returns whether a program may be executed. If so, the program itself printed what looked like a refusal."""
        from .lifecycle.traces import logger

        argv = ["/bin/sh", "-c", IS_EXECUTABLE, "sh", program]
        with trace_action(logger, self.kind.title, "look at a program in %s", self.created.id):
            result = await self._container.run(argv, cwd=self._directory(cwd), env=env, user=user, timeout=CHECK_SECS)
        return result.ok

    async def write_file(self, file: str, contents: str | bytes) -> None:
        from sandbox_host import SandboxError

        from . import files
        from .errors import file_error, os_error
        from .lifecycle.traces import logger

        data = contents.encode(errors="replace") if isinstance(contents, str) else contents
        path = self._path(file)
        _check_name(file)
        if file.endswith("/") or _names_directory(file):
            raise os_error(errno.EISDIR, file)
        try:
            with trace_action(logger, self.kind.title, "write %d bytes to %s in %s", len(data), path, self.created.id):
                await files.write(self._container, path, file, data)
        except SandboxError as error:
            raise file_error(error, file) from None

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        from sandbox_host import SandboxError

        from . import files
        from .errors import file_error, os_error
        from .lifecycle.traces import logger

        path = self._path(file)
        _check_name(file)
        if _names_directory(file):
            raise os_error(errno.EISDIR, file)
        try:
            with trace_action(logger, self.kind.title, "read %s in %s", path, self.created.id):
                data = await files.read(self._container, path, file)
        except SandboxError as error:
            raise file_error(error, file) from None
        return data.decode() if text else data

    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        """Returns the command that opens a shell in the container, and the public addresses of its ports."""
        from . import provider
        from .lifecycle.ports import public_ports

        container = self._container
        words = [*provider.program(self.kind), "shell", self.created.id]
        if container.sidecar is not None:
            words += ["--container", container.sidecar]
        if user or container.user:
            words += ["--user", str(user or container.user)]
        ports = await public_ports(self.created) if container.sidecar is None else None
        return SandboxConnection(type=self.kind.name, command=shlex.join(words), ports=ports, container=self.created.id)

    def default_polling_interval(self) -> float:
        return 0.2

    def _path(self, file: str) -> str:
        from .lifecycle.container import without_surrogates

        return str(self._container.workdir / without_surrogates(file))

    def _directory(self, cwd: str | None) -> str | None:
        return str(self._container.workdir / cwd) if cwd is not None else None


class ModalSandboxEnvironment(ProviderSandboxEnvironment):
    """The sandbox type `modal`."""

    kind = MODAL


class DockerEngineSandboxEnvironment(ProviderSandboxEnvironment):
    """The sandbox type `docker-engine`, on Docker Engine or Podman."""

    kind = DOCKER_ENGINE


def _names_directory(file: str) -> bool:
    """Returns whether a path can only be that of a directory."""
    return PurePosixPath(file).name in ("", "..") or file.endswith("/.")


def _check_name(file: str) -> None:
    from .errors import NUL

    if "\0" in file:
        raise ValueError(f"{NUL} in the name of a file")


def _not_run(text: str) -> ExecResult[str]:
    """Returns the result that Inspect's Docker provider gives for a command that cannot be run."""
    return ExecResult(False, 126, "", f"{text}\n")


def _unknown_user(user: str) -> ExecResult[str]:
    return _not_run(f"unable to find user {user}: no matching entries in passwd file")


def _timed_out(timeout: int | None) -> TimeoutError:
    return TimeoutError(f"Command timed out after {timeout} seconds")


def _refused(
    cmd: list[str], cwd: str | None, env: dict[str, str], user: str | None, timeout: int | None
) -> ExecResult[str] | None:
    """Returns the result of a command that cannot be run in any sandbox, or `None`.

    These are mistakes of the model, and must not end its sample.
    """
    from .errors import NUL

    if any("\0" in word for word in [*cmd, cwd or "", user or "", *env, *env.values()]):
        raise ValueError(f"{NUL} in the command")
    if not cmd or not cmd[0]:
        return _not_run("the command is empty")
    if any(not name or name.startswith("=") for name in env):
        return _not_run("invalid environment variable: a variable has no name")
    if user is not None and not all(USER.fullmatch(part) for part in user.split(":", 1)):
        return _unknown_user(user)
    if timeout is not None and timeout <= 0:
        raise _timed_out(timeout)
    return None


def _looks_not_executable(cmd: list[str], result: RunResult) -> bool:
    """Returns whether the program may not be executed, as far as its result shows.

    The runtime of the container prints one line, which names the program. A program can print the same itself, so this only
    decides whether `_is_executable` has to look.
    """
    lines = result.error_text.splitlines()
    return (
        result.exit_code == 126
        and result.stdout_total == 0
        and len(lines) == 1
        and cmd[0] in lines[0]
        and "permission denied" in lines[0].lower()
    )


def _tail(data: bytes, total: int, limit: int) -> str:
    """Returns the end of an output of `total` bytes as text of at most `limit` bytes, as Inspect's Docker provider does.

    Bytes that are not UTF-8 are replaced, which can make the text longer. A character that is cut in two is left out.
    """
    if total > len(data):
        data = data[next((at for at, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0) :]
    text = data.decode(errors="replace")
    if "\N{REPLACEMENT CHARACTER}" in text and len(encoded := text.encode()) > limit:
        text = encoded[-limit:].decode(errors="ignore")
    return text


def _outcome(result: RunResult, timeout: int | None, limit: int) -> ExecResult[str]:
    """Returns the result of a command that ended, and raises the exception for one that did not."""
    from sandbox_host.compose.outcomes import lost_text

    from .errors import unavailable

    verdict = result.verdict
    stdout, stderr = _tail(result.stdout, result.stdout_total, limit), _tail(result.stderr, result.stderr_total, limit)
    if verdict.code is not None:
        return ExecResult(verdict.code == 0, verdict.code, stdout, stderr)
    if verdict.signal is not None:
        return ExecResult(False, 128 + verdict.signal, stdout, stderr)
    match verdict.kind:
        case "out-of-memory":
            # The kernel kills with this signal, and Inspect's other providers report it.
            return ExecResult(False, 128 + signal.SIGKILL, stdout, stderr)
        case "deadline":
            late = _timed_out(timeout)
            if stdout or stderr:
                late.truncated_output = stdout + stderr  # type: ignore[attr-defined]
            raise late
        case "sandbox-ended":
            raise unavailable(f"it has ended: {lost_text(verdict)}")
        case _:
            raise unavailable(f"the command was lost: {lost_text(verdict)}")
