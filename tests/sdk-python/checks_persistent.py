"""Persistent sandboxes and exit snapshots."""

from typing import Any
import contextlib
from collections.abc import Iterator

import modal
from harness import app, equal, raises, sandbox, sh
from modal import exception


@contextlib.contextmanager
def persistent(*args: Any, **options: Any) -> Iterator[Any]:
    made = modal.Sandbox.create(*args, app=app(), timeout=None, _experimental_persistent=True, **options)
    try:
        yield made
    finally:
        if made.poll() is None:
            made.terminate()


def test_persistent_a_paused_sandbox_is_resumed_with_its_files() -> None:
    """persistent: a paused sandbox is resumed with its files"""
    with persistent() as own:
        equal(sh(own, "echo kept > /kept; echo gone > /tmp/x; rm /tmp/x"), ("", "", 0))
        own._experimental_pause()
        own._experimental_resume()
        equal(sh(own, "cat /kept; ls /tmp")[0], "kept\n")
        own._experimental_pause()
        # An operation resumes the sandbox.
        equal(sh(own, "cat /kept")[0], "kept\n")
        equal(own.poll(), None)


def test_persistent_a_terminated_sandbox_cannot_be_resumed() -> None:
    """persistent: a terminated sandbox cannot be resumed"""
    with persistent() as own:
        equal(sh(own, "echo hi"), ("hi\n", "", 0))
        own.terminate()
        equal(own.poll(), 137)
        raises(exception.Error, own.exec, "true")
        raises(exception.InvalidError, own._experimental_resume)


def test_persistent_a_persistent_sandbox_has_streams_files_and_snapshots() -> None:
    """persistent: a persistent sandbox has streams, files and snapshots"""
    with persistent("sh", "-c", "read x; echo got $x; sleep 100") as own:
        own.stdin.write("typed\n")
        own.stdin.drain()
        equal(next(iter(own.stdout)), "got typed\n")
        own.filesystem.write_text("x", "/file")
        with sandbox(image=own.snapshot_filesystem()) as other:
            equal(other.filesystem.read_text("/file"), "x")


def test_exit_snapshots_they_contain_the_files_at_the_end_if_they_were_requested() -> None:
    """exit snapshots: they contain the files at the end, if they were requested"""
    options = {"experimental_options": {"enable_exit_snapshot": True}}
    with sandbox("sh", "-c", "echo last > /last; exit 3", **options) as own:
        own.wait()
        with sandbox(image=own._experimental_get_exit_snapshot(timeout=30)) as other:
            equal(sh(other, "cat /last")[0], "last\n")
    with sandbox(**options) as own:
        sh(own, "echo ended > /ended")
        raises(exception.TimeoutError, own._experimental_get_exit_snapshot, timeout=0)
        own.terminate()
        with sandbox(image=own._experimental_get_exit_snapshot()) as other:
            equal(sh(other, "cat /ended")[0], "ended\n")
    with sandbox() as own:
        own.terminate(wait=True)
        raises(exception.InvalidError, modal.Sandbox.from_id(own.object_id)._experimental_get_exit_snapshot, timeout=1)
