"""A sandbox: commands, files, network, snapshots."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._calls import span
from ._convert import Seconds, content, local, millis, moment, pairs, plain, timestamp, words
from ._io import Pending, call, call_parts, finish
from .errors import FileNotFoundInSandboxError, SandboxError
from .forward import Forward, Watch
from .process import Process
from .records import (
    ConnectToken,
    EndReason,
    ExecInfo,
    FileContent,
    FileInfo,
    LogChunk,
    LogPage,
    Progress,
    RunResult,
    SandboxInfo,
    SidecarInfo,
    Transfer,
    Tunnel,
    Usage,
)
from .specs import Network, Pty, SidecarSpec

if TYPE_CHECKING:
    from .provider import Provider

__all__ = ["Sandbox"]

OUTPUT_MAX = 10 << 20
"""How many bytes of each stream `Sandbox.run` keeps, unless told otherwise."""

FILE_MAX = 100 << 20
"""How many bytes `Sandbox.read_file` reads at most, unless told otherwise."""


class Sandbox:
    """A sandbox. `Provider.create`, `Provider.find` and `Provider.sandbox` return it.

    `async with` terminates the sandbox at the end of the block. Otherwise it stays until it is terminated or its
    lifetime has passed; a `Sandbox` object that nothing refers to does not end it.

        >>> async with provider.create(env={"NAME": "world"}) as sandbox:
        ...     result = await sandbox.run("echo hello $NAME")
        ...     await sandbox.write_file("/tmp/a", "text")
        ...     print(result.text.strip(), result.exit_code, await sandbox.read_text("/tmp/a"))
        hello world 0 text
    """

    id: str
    """The id."""

    provider: Provider
    """The provider that it belongs to."""

    container: str | None
    """The sidecar that commands and files mean, or `None` for the main container."""

    user: str | None
    """The user that file operations and commands act as, or `None` for that of the sandbox."""

    created: SandboxInfo | None
    """What the provider said when it created the sandbox, if this object comes from there."""

    retries: int
    """The number of requests that were repeated during creation."""

    def __init__(
        self,
        provider: Provider,
        id: str,
        *,
        container: str | None = None,
        user: str | None = None,
        created: SandboxInfo | None = None,
        retries: int = 0,
    ) -> None:
        self.provider = provider
        self.id = id
        self.container = container
        self.user = user
        self.created = created
        self.retries = retries
        self._at = {"provider": provider._number, "sandbox": id, "container": container}
        self._file_at = {**self._at, "user": user}

    # ---- commands ---------------------------------------------------------------------------------------------

    async def run(
        self,
        command: str | Sequence[str],
        *,
        stdin: bytes | bytearray | memoryview | str = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: Seconds | None = None,
        secrets: Sequence[str] | None = None,
        merge_stderr: bool = False,
        stdout_max: int = OUTPUT_MAX,
        stderr_max: int = OUTPUT_MAX,
        keep: str = "tail",
    ) -> RunResult:
        """Runs a command to its end and returns its output.

        Text is a line for `/bin/sh`; a list is a program with its arguments. Cancelling the call kills the command. A
        missing program is no error but the exit code 127. After `timeout` the command is killed, with the verdict
        `deadline`. Of longer output than `stdout_max` bytes, the `head` or the `tail` is kept.

            >>> result = await sandbox.run(["sort"], stdin="b\\na\\n")
            >>> result.stdout, (await sandbox.run("exit 3")).exit_code
            (b'a\\nb\\n', 3)
        """
        reply, parts = await call_parts(
            "sandbox.run",
            content(stdin, "stdin"),
            **self._at,
            command=self._command(command, env, cwd, user, timeout, secrets, merge_stderr),
            stdout_max=stdout_max,
            stderr_max=stderr_max,
            keep=keep,
        )
        return RunResult.from_json(reply, parts)

    def start(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: Seconds | None = None,
        secrets: Sequence[str] | None = None,
        merge_stderr: bool = False,
        pty: Pty | None = None,
    ) -> Pending[Process, Process]:
        """Starts a command. `async with` kills it at the end of the block.

        >>> async with sandbox.start("echo one; echo two") as process:
        ...     print([line async for line in process.stdout.lines()], await process.wait())
        ['one', 'two'] exit code 0
        """
        spec = self._command(command, env, cwd, user, timeout, secrets, merge_stderr)
        if pty is not None:
            spec["pty"] = pty.to_json()
        return Pending(self._open_process("process.start", command=spec))

    def attach(self, exec_id: str) -> Pending[Process, Process]:
        """Attaches to a command that runs, by its id. `main` is the main process of the sandbox.

        Closing the returned object does not kill the command.
        """
        return Pending(self._open_process("process.attach", exec=exec_id))

    async def _open_process(self, method: str, **arguments: Any) -> Process:
        reply = await call(method, **self._at, **arguments)
        return Process(reply["process"], reply["exec"])

    def _command(
        self,
        command: str | Sequence[str],
        env: Mapping[str, str] | None,
        cwd: str | None,
        user: str | None,
        timeout: Seconds | None,
        secrets: Sequence[str] | None,
        merge_stderr: bool,
    ) -> dict[str, Any]:
        line: dict[str, Any] = {"shell": command} if isinstance(command, str) else {"argv": words(command, "command")}
        return line | plain(
            {
                "env": pairs(env, "env"),
                "cwd": cwd,
                "user": user if user is not None else self.user,
                "timeout": millis(timeout, "timeout"),
                "secrets": words(secrets, "secrets"),
                "merge_stderr": merge_stderr or None,
            }
        )

    async def execs(self, max: int = 1000) -> list[ExecInfo]:
        """Lists the commands that the provider still knows, newest first."""
        return [ExecInfo.from_json(each) for each in await call("sandbox.execs", **self._at, max=max)]

    async def signal(self, exec_id: str, signal: int | str) -> None:
        """Sends a signal to a command by its id."""
        number = signal if isinstance(signal, str) else int(signal)
        await call("exec.signal", **self._at, exec=exec_id, signal=number)

    # ---- state ------------------------------------------------------------------------------------------------

    async def info(self) -> SandboxInfo:
        """Returns the state, also of an ended sandbox."""
        return SandboxInfo.from_json(await call("sandbox.info", **self._at))

    async def wait(self, timeout: Seconds | None = None) -> EndReason | None:
        """Waits for the end and returns the reason, or `None` if the sandbox still runs after `timeout`."""
        reply = await call("sandbox.wait", **self._at, timeout_ms=millis(timeout, "timeout"))
        return None if reply is None else EndReason.from_json(reply)

    async def wait_ready(self, timeout: Seconds) -> bool:
        """Waits until the readiness probe succeeds. Returns false if it does not within `timeout`."""
        return bool(await call("sandbox.wait_ready", **self._at, timeout_ms=millis(timeout, "timeout")))

    async def wait_running(self, timeout: Seconds) -> bool:
        """Waits until the sandbox has a machine. Returns false if it has none within `timeout`."""
        return bool(await call("sandbox.wait_running", **self._at, timeout_ms=millis(timeout, "timeout")))

    async def terminate(self) -> None:
        """Ends the sandbox, its commands and its lease. Its files are lost. Succeeds if it has ended already."""
        await call("sandbox.terminate", **self._at)

    async def pause(self) -> None:
        """Freezes the processes."""
        await call("sandbox.pause", **self._at)

    async def stop(self) -> None:
        """Ends the processes and keeps the files."""
        await call("sandbox.stop", **self._at)

    async def resume(self) -> None:
        """Continues a paused or stopped sandbox."""
        await call("sandbox.resume", **self._at)

    async def release(self) -> None:
        """Stops the renewal of the lease, and leaves the sandbox running.

        The tags of the lease stay, so a sweep after its end terminates the sandbox, unless `set_tags` removed them.
        """
        await call("sandbox.release", **self._at)

    async def extend(self, lifetime: Seconds) -> datetime | None:
        """Sets the remaining lifetime. Returns the new end."""
        return moment(await call("sandbox.extend", **self._at, lifetime_ms=millis(lifetime, "lifetime")))

    async def set_name(self, name: str) -> None:
        """Sets the name."""
        await call("sandbox.set_name", **self._at, name=name)

    async def tags(self) -> dict[str, str]:
        """Returns the tags."""
        return dict(await call("sandbox.tags", **self._at))

    async def set_tags(self, tags: Mapping[str, str]) -> None:
        """Replaces all tags."""
        await call("sandbox.set_tags", **self._at, tags=pairs(tags, "tags"))

    async def usage(self) -> Usage:
        """Returns what the sandbox has used and costs, also after its end. The latest minutes may be missing."""
        return Usage.from_json(await call("sandbox.usage", **self._at))

    async def log_page(
        self,
        *,
        since: datetime | float | None = None,
        until: datetime | float | None = None,
        stream: str | None = None,
        search: str | None = None,
        cursor: str | None = None,
        max_bytes: int | None = None,
    ) -> LogPage:
        """Returns a page of the persisted log. `cursor` is the `next` of the page before."""
        reply = await call(
            "sandbox.logs",
            **self._at,
            since=timestamp(since, "since"),
            until=timestamp(until, "until"),
            stream=stream,
            search=search,
            cursor=cursor,
            max_bytes=max_bytes,
        )
        return LogPage.from_json(reply)

    async def logs(
        self,
        *,
        since: datetime | float | None = None,
        until: datetime | float | None = None,
        stream: str | None = None,
        search: str | None = None,
    ) -> AsyncIterator[LogChunk]:
        """Iterates over the persisted log."""
        cursor = None
        while True:
            page = await self.log_page(since=since, until=until, stream=stream, search=search, cursor=cursor)
            for chunk in page.items:
                yield chunk
            cursor = page.next
            if cursor is None:
                return

    # ---- network ----------------------------------------------------------------------------------------------

    async def tunnels(self, timeout: Seconds = 30) -> list[Tunnel]:
        """Returns the public addresses of the ports. Waits for them up to `timeout`."""
        reply = await call("sandbox.tunnels", **self._at, timeout_ms=millis(timeout, "timeout"))
        return [Tunnel.from_json(each) for each in reply]

    def forward(self, port: int, listen: str = "127.0.0.1:0") -> Pending[Forward, str]:
        """Forwards a local address to a port of the sandbox, which must be one of `SandboxSpec.ports`.

        async with sandbox.forward(8080) as address:
            ...  # connect to `address`, such as 127.0.0.1:40001
        """
        return Pending(self._open_forward(port, listen))

    async def _open_forward(self, port: int, listen: str) -> Forward:
        reply = await call("forward.open", **self._at, port=port, listen=listen)
        return Forward(reply["forward"], reply["address"])

    async def connect_token(self, port: int, metadata: str | None = None) -> ConnectToken:
        """Returns what permits an HTTP client to connect to a port."""
        return ConnectToken.from_json(await call("sandbox.connect_token", **self._at, port=port, metadata=metadata))

    async def set_network(self, network: Network) -> None:
        """Changes the network policy of the running sandbox."""
        await call("sandbox.set_network", **self._at, policy=network.to_json())

    # ---- snapshots and mounts ---------------------------------------------------------------------------------

    async def snapshot_filesystem(self, *, key: str | None = None, ttl: Seconds | None = None) -> str:
        """Saves all files as an image and returns its id, for `Image(id=…)`. `ttl` is how long the image is kept."""
        reply = await call("sandbox.snapshot_filesystem", **self._at, key=key, ttl_ms=millis(ttl, "ttl"))
        return str(reply["image"])

    async def snapshot_directory(self, path: str, *, ttl: Seconds | None = None) -> str:
        """Saves a directory as an image and returns its id, for `mount`."""
        reply = await call("sandbox.snapshot_directory", **self._at, path=path, ttl_ms=millis(ttl, "ttl"))
        return str(reply["image"])

    async def snapshot_memory(self) -> str:
        """Saves memory, processes and files. Returns the id for `Provider.restore`. Some providers end the sandbox."""
        return str((await call("sandbox.snapshot_memory", **self._at))["snapshot"])

    async def exit_snapshot(self, timeout: Seconds) -> str | None:
        """Returns the image that was saved at the end of the sandbox, or `None` if there is none after `timeout`."""
        image = (await call("sandbox.exit_snapshot", **self._at, timeout_ms=millis(timeout, "timeout")))["image"]
        return None if image is None else str(image)

    async def mount(self, path: str, image: str | None = None) -> None:
        """Mounts an image at a path, or an empty directory without one."""
        await call("sandbox.mount", **self._at, path=path, image=image)

    async def unmount(self, path: str) -> None:
        """Removes a mount."""
        await call("sandbox.unmount", **self._at, path=path)

    async def reload_volumes(self) -> None:
        """Makes the changes of other sandboxes to mounted volumes visible."""
        await call("sandbox.reload_volumes", **self._at)

    # ---- sidecars ---------------------------------------------------------------------------------------------

    def sidecar(self, name: str) -> Sandbox:
        """Returns this sandbox with commands and files in a sidecar. Sends no request."""
        return Sandbox(self.provider, self.id, container=name, user=self.user)

    def as_user(self, user: str | None) -> Sandbox:
        """Returns this sandbox with commands and file operations by another user. Sends no request."""
        return Sandbox(self.provider, self.id, container=self.container, user=user)

    async def create_sidecar(self, spec: SidecarSpec) -> Sandbox:
        """Adds a sidecar and returns it as `sidecar` does."""
        await call("sidecar.create", **self._at, spec=spec.to_json())
        return self.sidecar(spec.name)

    async def sidecars(self) -> list[SidecarInfo]:
        """Lists the sidecars."""
        return [SidecarInfo.from_json(each) for each in await call("sidecar.list", **self._at)]

    async def wait_sidecar(self, name: str, timeout: Seconds | None = None) -> EndReason | None:
        """Waits for the end of a sidecar. Returns `None` if it still runs after `timeout`."""
        reply = await call("sidecar.wait", **self._at, name=name, timeout_ms=millis(timeout, "timeout"))
        return None if reply is None else EndReason.from_json(reply)

    async def terminate_sidecar(self, name: str) -> None:
        """Ends a sidecar."""
        await call("sidecar.terminate", **self._at, name=name)

    # ---- files ------------------------------------------------------------------------------------------------

    async def read_file(self, path: str, max_bytes: int = FILE_MAX) -> bytes:
        """Returns the content of a file. Raises `FileError` with the fault `too-large` beyond `max_bytes`."""
        return (await call_parts("file.read", **self._file_at, path=path, max=max_bytes))[1][0]

    async def read(self, path: str, max_bytes: int = FILE_MAX) -> FileContent:
        """Returns the content and the mode bits of a file, by two requests."""
        reply, parts = await call_parts("file.read", **self._file_at, path=path, max=max_bytes, stat=True)
        return FileContent(parts[0], int(reply["mode"]))

    async def read_text(self, path: str, max_bytes: int = FILE_MAX) -> str:
        """Returns a file as text. Raises `UnicodeDecodeError` if it is not UTF-8."""
        return (await self.read_file(path, max_bytes)).decode()

    async def write_file(
        self,
        path: str,
        data: bytes | bytearray | memoryview | str,
        *,
        mode: str = "replace",
        permissions: int | None = None,
    ) -> None:
        """Writes a file and creates its parents. Text becomes UTF-8.

        `mode` is `replace` (a reader sees the old or the new content), `append` or `create-new` (fails if it exists).
        """
        body = content(data, "data")
        await call("file.write", body, **self._file_at, path=path, mode=mode, permissions=permissions)

    async def upload(
        self,
        source: str | os.PathLike[str],
        path: str,
        *,
        permissions: int | None = None,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> int:
        """Sends a local file, of any size. Returns the number of bytes.

        `on_progress` is called while bytes move, at most ten times a second, and at last with all of them. If it raises, the
        upload is cancelled.

            >>> size = await sandbox.upload("/etc/passwd", "/tmp/passwd", on_progress=print)
            Progress(bytes=..., total=...)
        """
        arguments = {"from": local(source), "path": path, "permissions": permissions}
        return int((await self._transfer("file.upload", arguments, on_progress))["bytes"])

    async def download(
        self, path: str, to: str | os.PathLike[str], *, on_progress: Callable[[Progress], object] | None = None
    ) -> int:
        """Saves a file of the sandbox as a local file. Returns the number of bytes. `on_progress` is that of `upload`."""
        arguments = {"path": path, "to": local(to)}
        return int((await self._transfer("file.download", arguments, on_progress))["bytes"])

    async def upload_directory(
        self, source: str | os.PathLike[str], path: str, *, on_progress: Callable[[Progress], object] | None = None
    ) -> Transfer:
        """Sends a local directory with everything in it. Creates the directory `path`.

        Pipes, sockets and devices are not sent: see `Transfer.skipped`. `on_progress` is that of `upload`.
        """
        arguments = {"path": path, "from": local(source)}
        return Transfer.from_json(await self._transfer("directory.upload", arguments, on_progress))

    async def download_directory(
        self, path: str, to: str | os.PathLike[str], *, on_progress: Callable[[Progress], object] | None = None
    ) -> Transfer:
        """Saves a directory of the sandbox as a local directory. Nothing is written outside of it.

        Devices, pipes and links that lead outside are not saved: see `Transfer.skipped`. `on_progress` is that of `upload`.
        """
        arguments = {"path": path, "to": local(to)}
        return Transfer.from_json(await self._transfer("directory.download", arguments, on_progress))

    async def _transfer(self, method: str, arguments: dict[str, Any], on_progress: Callable[[Progress], object] | None) -> Any:
        """Copies a file or a directory. If its progress is wanted, in the background, and asks how far it is."""
        if on_progress is None:
            return await call(method, **self._file_at, **arguments)
        given = {name: value for name, value in {**self._file_at, **arguments}.items() if value is not None}
        with span(method, given):
            number = (await call("transfer.start", method=method, arguments=given))["transfer"]
            try:
                while (progress := await call("transfer.next", transfer=number)) is not None:
                    on_progress(Progress(progress["bytes"], progress["total"]))
                return await call("transfer.result", transfer=number)
            finally:
                # Also if the task was cancelled or the callback has raised: the copy is cancelled.
                await finish(call("close", object=number))

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        """Describes a path: the target of a symbolic link, or without `follow` the link itself."""
        return FileInfo.from_json(await call("file.stat", **self._file_at, path=path, follow=follow))

    async def exists(self, path: str) -> bool:
        """Returns whether a path exists. A symbolic link without a target does not."""
        try:
            await self.stat(path)
        except FileNotFoundInSandboxError:
            return False
        except SandboxError as error:
            if error.kind == "file:not-a-directory":
                return False
            raise
        return True

    async def list_directory(self, path: str) -> list[FileInfo]:
        """Lists the entries of a directory, by name."""
        return [FileInfo.from_json(each) for each in await call("directory.list", **self._file_at, path=path)]

    async def make_directory(self, path: str, *, parents: bool = True) -> None:
        """Creates a directory. With `parents` also its parents, and it may exist."""
        await call("directory.make", **self._file_at, path=path, parents=parents)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Removes a file or an empty directory, with `recursive` also a directory with everything in it."""
        await call("file.remove", **self._file_at, path=path, recursive=recursive)

    async def rename(self, path: str, to: str, *, replace: bool = True) -> None:
        """Moves a file or a directory within the sandbox."""
        await call("file.rename", **self._file_at, path=path, to=to, replace=replace)

    async def symlink(self, path: str, target: str) -> None:
        """Creates a symbolic link at `path` that points to `target`."""
        await call("file.symlink", **self._file_at, path=path, target=target)

    async def set_permissions(self, path: str, permissions: int) -> None:
        """Sets the low twelve mode bits."""
        await call("file.set_permissions", **self._file_at, path=path, permissions=permissions)

    def watch(self, path: str, *, recursive: bool = False) -> Pending[Watch, Watch]:
        """Watches a file or a directory.

        async with sandbox.watch("/work", recursive=True) as events:
            async for event in events:
                print(event.kind, event.paths)
        """
        return Pending(self._open_watch(path, recursive))

    async def _open_watch(self, path: str, recursive: bool) -> Watch:
        return Watch((await call("watch.open", **self._file_at, path=path, recursive=recursive))["watch"])

    # ---- the object -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Sandbox:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await finish(self.terminate())
        except SandboxError as failure:
            if error is None:
                raise
            # The first error is the cause; it must not be hidden.
            warnings.warn(f"the sandbox {self.id} was not terminated: {failure}", ResourceWarning, stacklevel=2)

    def __repr__(self) -> str:
        part = f" {self.container}" if self.container else ""
        return f"<Sandbox {self.id}{part} of {self.provider.name}>"
