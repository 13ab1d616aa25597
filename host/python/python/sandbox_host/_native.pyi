"""The native module: calls of the host library. The rest of the package is the way to use it."""

import asyncio
from collections.abc import Sequence

Reply = tuple[str, tuple[bytes, ...]]

def call(method: str, arguments: str, data: bytes = b"") -> asyncio.Future[Reply]:
    """Starts a call and returns a future of the running event loop. Cancelling the future cancels the call.

    The reply is JSON text and byte strings. Raises `RuntimeError` if no event loop is running.
    """

def call_sync(method: str, arguments: str, data: bytes = b"") -> Reply:
    """Does a call and waits for its reply. Other threads run in the meantime. An exception of a signal handler, such as
    `KeyboardInterrupt`, cancels the call."""

def start(method: str, arguments: str, data: bytes = b"") -> Call:
    """Starts a call for a program without an event loop."""

def wait_any(calls: Sequence[Call], timeout: float | None = None) -> int | None:
    """Waits until one of the calls has ended. Returns its index, or `None` if `timeout` seconds have passed."""

def forget(object: int) -> None:
    """Closes an object without waiting. Never fails, and may be called from any thread."""

def close() -> None:
    """Ends all calls. Called when the interpreter exits."""

def compile_component() -> int:
    """Compiles the component on standard input, in an interpreter that was started for that."""

class Call:
    """A call that was started with `start`."""

    def done(self) -> bool:
        """Whether the call has ended."""

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end. Returns false if `timeout` seconds have passed. Signals are handled while it waits."""

    def result(self) -> Reply:
        """Returns the reply, once, or raises the error of the call. Waits for the end."""

    def cancel(self) -> None:
        """Cancels the call. Has no effect after its end."""
