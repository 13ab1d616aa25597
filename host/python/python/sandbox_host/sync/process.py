# Made by make_sync.py from ../process.py.
"""A command that runs, with its input and its output as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from .._calls import Handle
from .._convert import Seconds, content, millis
from ..records import OutputChunk, Verdict
from ._io import Reader, call, call_within, merged

__all__ = ["Process", "Reader"]


class Process(Handle):
    """A running command. `Sandbox.start` and `Sandbox.attach` return it.

    A command that was started here is killed when this object is closed: at the end of its `with` block, by
    `close`, or when nothing refers to it any more. `detach` lets it continue.

        >>> with sandbox.start("echo one >&2; read line; echo got $line") as process:
        ...     for chunk in process:
        ...         print(chunk)
        ...         if chunk.stream == "stderr":
        ...             process.write("two\\n")
        ...     print(process.wait())
        OutputChunk(stream='stderr', data=b'one\\n')
        OutputChunk(stream='stdout', data=b'got two\\n')
        exit code 0
    """

    exec_id: str
    """The id of the command, for `Sandbox.attach` in any process."""

    stdout: Reader
    """Standard output. With a terminal, all output comes here."""

    stderr: Reader
    """Standard error."""

    def __init__(self, number: int, exec_id: str) -> None:
        self._number = number
        self._closed = False
        self.exec_id = exec_id
        self.stdout = Reader(number, "stdout")
        self.stderr = Reader(number, "stderr")

    def __iter__(self) -> Iterator[OutputChunk]:
        """Iterates over the output of both streams as it comes, until both have ended."""
        return merged(self.stdout, self.stderr)

    def write(self, data: bytes | bytearray | memoryview | str) -> None:
        """Writes to standard input. Returns when all bytes are in the buffer, so a slow program slows the writer down.

        Raises a `SandboxError` if the input is closed or the command has ended.
        """
        call("process.write", content(data, "data"), process=self._number)

    def close_stdin(self) -> None:
        """Ends standard input. What was written before is sent first."""
        call("process.close_input", process=self._number)

    def wait(self, timeout: Seconds | None = None) -> Verdict:
        """Waits for the end of the command and returns how it ended. May be called again, and by several callers.

        Raises the built-in `TimeoutError` if `timeout` passes first; the command continues then.
        """
        limit = millis(timeout, "timeout")
        seconds = None if limit is None else limit / 1000
        return Verdict.from_json(call_within(seconds, "process.wait", process=self._number))

    def signal(self, signal: int | str) -> None:
        """Sends a signal, by its number or by its name, such as `TERM`. Members of `signal.Signals` are numbers."""
        call("process.signal", process=self._number, signal=signal if isinstance(signal, str) else int(signal))

    def kill(self) -> None:
        """Kills the command and all its processes."""
        call("process.kill", process=self._number)

    def resize(self, rows: int, columns: int) -> None:
        """Changes the size of the terminal."""
        call("process.resize", process=self._number, rows=rows, columns=columns)

    def detach(self) -> str:
        """Lets the command continue on its own and closes this object. Returns the id for `Sandbox.attach`."""
        reply = call("process.detach", process=self._number)
        self._closed = True
        return str(reply["exec"])

    def close(self) -> None:
        """Closes this object. Kills the command if it was started here and still runs. Closing twice is no error."""
        if not self._closed:
            self._closed = True
            call("close", object=self._number)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Process {self.exec_id}{' closed' if self._closed else ''}>"
