"""The sandbox environment as Inspect knows it: one container of a Modal sandbox.

The class methods are Inspect's hooks and lead to `lifecycle`; the rest is one running container. Imported by every
`inspect` command, so nothing heavy is imported here at the top.
"""

from __future__ import annotations

import errno
import re
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


LOOK_SECS = 60.0
"""For a look at a program."""

SHOWN_CHARACTERS = 200
"""Of a program's name, in a message."""

USER = re.compile(r"[A-Za-z0-9_.$][A-Za-z0-9_.$-]{0,63}")
"""A user or group, by name or number."""

EXECUTABLE = """
case $1 in */*) file=$1;; *) file=$(command -v -- "$1") || exit 1;; esac
[ -f "$file" ] && [ -x "$file" ]
"""
"""Whether the program `$1` may be started."""


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
        from .errors import exec_error, is_unknown_user
        from .nativeerror import NativeError

        refused = _refused(cmd, cwd, env or {}, user, timeout)
        if refused is not None:
            return refused
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
                return _failed(f"unable to find user {user}: no matching entries in passwd file")
            if error.kind == "invalid-argument":
                # What no program can be given; the command line and the environment have no other fault by now.
                return _failed(f"{cmd[0][:SHOWN_CHARACTERS]}: Argument list too long")
            mapped = exec_error(error, user)
            if isinstance(mapped, TimeoutError) and timeout is not None:
                mapped = TimeoutError(f"Command timed out after {timeout} seconds")
            raise (mapped or RuntimeError(error.message)) from None
        finally:
            self.created.metrics.executed(time.monotonic() - started)
        if _may_not_start(cmd, result) and not await self._executable(cmd[0], cwd, env, user):
            raise PermissionError(errno.EACCES, "Permission denied", cmd[0])
        return _outcome(result, timeout, limit)

    async def _executable(self, program: str, cwd: str | None, env: dict[str, str] | None, user: str | None) -> bool:
        """Whether a program can be started: then what was printed is its own."""
        argv = ["/bin/sh", "-c", EXECUTABLE, "sh", program]
        directory = str(self._workdir / cwd) if cwd is not None else None
        with trace_action(logger, "Modal", "look at a program in %s", self.created.id):
            result = await self.run(argv, cwd=directory, env=env, user=user, timeout=LOOK_SECS)
        return result.verdict == "exited" and result.code == 0

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
                env=[_pair(name, value) for name, value in (env or {}).items()],
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
        from .errors import file_error, os_error
        from .nativeerror import NativeError

        data = contents.encode(errors="replace") if isinstance(contents, str) else contents
        path = self._path(file)
        _check_name(file)
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
        from .errors import file_error, os_error
        from .nativeerror import NativeError

        limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        path = self._path(file)
        _check_name(file)
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
            if error.kind == "file:too-large":
                raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None) from None
            raise file_error(error, file) from None
        return data.decode() if text else data

    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        """The command that leads into a login shell, by this project's program `sandbox`; and where the ports are reached."""
        from . import lifecycle, provider

        words = [*provider.program(), "shell", self.created.id]
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


def _pair(name: str, value: str) -> tuple[str, str]:
    """A variable. As with `docker exec --env`, the first equals sign ends its name."""
    name, _, value = _text(f"{name}={value}").partition("=")
    return name, value


def _check_name(file: str) -> None:
    from .errors import NUL

    if "\0" in file:
        raise ValueError(f"{NUL} in the name of a file")


def _failed(text: str) -> ExecResult[str]:
    """What cannot be run, as the result that Docker's provider gives."""
    return ExecResult(False, 126, "", f"{text}\n")


def _refused(
    cmd: list[str], cwd: str | None, env: dict[str, str], user: str | None, timeout: int | None
) -> ExecResult[str] | None:
    """What can be said without asking: a mistake of the model must not end its sample."""
    from .errors import NUL

    if any("\0" in word for word in [*cmd, cwd or "", user or "", *env, *env.values()]):
        raise ValueError(f"{NUL} in the command")
    if not cmd or not cmd[0]:
        return _failed("the command is empty")
    if any(not name or name.startswith("=") for name in env):
        return _failed("invalid environment variable: a variable has no name")
    if user is not None and not all(USER.fullmatch(part) for part in user.split(":", 1)):
        return _failed(f"unable to find user {user}: no matching entries in passwd file")
    if timeout is not None and timeout <= 0:
        raise TimeoutError(f"Command timed out after {timeout} seconds")
    return None


def _may_not_start(cmd: list[str], result: RunResult) -> bool:
    """Whether the end looks like that of a program that may not be executed: one line, which names it."""
    lines = result.stderr.decode(errors="replace").splitlines()
    return (
        result.verdict == "exited"
        and result.code == 126
        and result.stdout_total == 0
        and len(lines) == 1
        and cmd[0] in lines[0]
        and "permission denied" in lines[0].lower()
    )


def _tail(data: bytes, total: int, limit: int) -> str:
    """Output as text of at most `limit` bytes: its end, like that of Docker's provider. What is no text is replaced, also
    where that makes it longer, and half a character at the cut is left out."""
    if total > len(data):
        data = data[next((at for at, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0) :]
    text = data.decode(errors="replace")
    if "\N{REPLACEMENT CHARACTER}" in text and len(encoded := text.encode()) > limit:
        text = encoded[-limit:].decode(errors="ignore")
    return text


def _outcome(result: RunResult, timeout: int | None, limit: int) -> ExecResult[str]:
    from .errors import unavailable

    stdout, stderr = _tail(result.stdout, result.stdout_total, limit), _tail(result.stderr, result.stderr_total, limit)
    match result.verdict:
        case "exited":
            code = result.code
        case "signaled":
            code = 128 + result.code
        case "deadline":
            late = TimeoutError(f"Command timed out after {timeout} seconds")
            if stdout or stderr:
                late.truncated_output = stdout + stderr  # type: ignore[attr-defined]
            raise late
        case "sandbox-ended":
            raise unavailable(f"it has ended: {result.detail}")
        case _:
            raise unavailable(f"the command was lost: {result.detail}")
    return ExecResult(code == 0, code, stdout, stderr)
