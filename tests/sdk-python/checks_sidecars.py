"""Sidecars: additional containers of a sandbox, with the same operations as its main container."""

from typing import Any
import functools

import modal
from harness import app, equal, eventually, fresh, raises, sandbox, sh
from modal import exception


@functools.cache
def image() -> Any:
    return modal.Image.from_registry("debian:bookworm").build(app())


def test_sidecars_sidecars_are_created_listed_and_ended_and_commands_run_in_them() -> None:
    """sidecars: sidecars are created, listed and ended, and commands run in them"""
    with sandbox() as own:
        sidecars = own._experimental_sidecars
        side = sidecars.create("sleep", "60", name="helper", image=image(), env={"S": "1"})
        equal(sh(side, "echo $S; touch /only-here"), ("1\n", "", 0))
        equal(sh(own, "test -e /only-here || echo apart")[0], "apart\n")
        equal([s.name for s in sidecars.list()], ["helper"])
        equal(sidecars.get(name="helper").object_id, side.object_id)
        equal(side.terminate(wait=True), 137)
        equal(sidecars.list(), [])


def test_sidecars_names_of_running_sidecars_are_unique_and_main_is_reserved() -> None:
    """sidecars: names of running sidecars are unique, and main is reserved"""
    with sandbox() as own:
        sidecars = own._experimental_sidecars
        side = sidecars.create(name="twin", image=image())
        raises(exception.AlreadyExistsError, sidecars.create, name="twin", image=image())
        raises(exception.InvalidError, sidecars.create, name="main", image=image())
        raises(exception.NotFoundError, sidecars.get, name="missing")
        side.terminate(wait=True)
        assert sidecars.create(name="twin", image=image()).object_id != side.object_id


def test_sidecars_the_exit_code_of_an_ended_sidecar_can_be_read() -> None:
    """sidecars: the exit code of an ended sidecar can be read"""
    with sandbox() as own:
        sidecars = own._experimental_sidecars
        side = sidecars.create("sh", "-c", "exit 6", name="short", image=image())
        side.wait()
        equal(side.poll(), 6)
        raises(exception.NotFoundError, sidecars.get, name="short")
        equal(sidecars.get(name="short", include_terminated=True).poll(), 6)
        equal([s.name for s in sidecars.list(include_terminated=True)], ["short"])


def test_sidecars_a_sidecar_has_its_own_files_workdir_secrets_volumes_and_snapshot() -> None:
    """sidecars: a sidecar has its own files, workdir, secrets, volumes and snapshot"""
    volume = modal.Volume.from_name(fresh("vol"), create_if_missing=True)
    with sandbox(volumes={"/v": volume}) as own:
        side = own._experimental_sidecars.create(
            name="worker",
            image=image(),
            workdir="/usr/lib",
            secrets=[modal.Secret.from_dict({"K": "kept"})],
            volumes={"/w": volume},
        )
        equal(side.poll(), None)
        equal(sh(side, "pwd; echo $K; echo shared > /w/f; echo 1 > /one")[0], "/usr/lib\nkept\n")
        side.reload_volumes()
        own.reload_volumes()
        equal(sh(own, "cat /v/f")[0], "shared\n")
        side.filesystem.write_text("written", "/tmp/side")
        equal(side.filesystem.read_text("/tmp/side"), "written")
        raises(exception.SandboxFilesystemNotFoundError, own.filesystem.read_text, "/tmp/side")
        with sandbox(image=side.snapshot_filesystem()) as other:
            equal(sh(other, "cat /one /tmp/side")[0], "1\nwritten")


def test_sidecars_sidecars_end_with_their_sandbox() -> None:
    """sidecars: sidecars end with their sandbox"""
    with sandbox() as own:
        side = own._experimental_sidecars.create(name="follower", image=image())
        own.terminate()
        eventually(lambda: modal.Sandbox.from_id(own.object_id).poll() is not None)
        raises(exception.Error, side.exec, "true")
