"""Snapshots of directories and file systems with their lifetimes, and images mounted in running sandboxes."""

from typing import Any
import os
import time
import uuid

import modal
from harness import app, equal, eventually, raises, sandbox, sh, shared
from modal import exception


def place() -> str:
    """Returns a new path."""
    return f"/srv/{uuid.uuid4().hex[:12]}"


def project(where: Any, path: str) -> None:
    """Creates a directory with files, a link and a subdirectory."""
    script = f"mkdir -p {path}/sub && cd {path} && echo one > f && ln -s f link && chmod 640 f && echo deep > sub/g"
    equal(sh(where, script), ("", "", 0))


def expired(image: Any) -> bool:
    """Returns whether an image does not exist any more."""
    try:
        modal.Image.from_id(image.object_id).build(app())
    except exception.NotFoundError:
        return True
    return False


def test_snapshots_a_directory_of_one_sandbox_is_mounted_in_another() -> None:
    """snapshots: a directory of one sandbox is mounted in another"""
    path = place()
    with sandbox() as one, sandbox() as two:
        project(one, path)
        image = one.snapshot_directory(path)
        assert image.object_id.startswith("im-"), image.object_id
        two.mount_image("/user/project", image)
        equal(sh(two, "cd /user/project && cat f sub/g link && stat -c %a f && readlink link"), ("one\ndeep\none\n640\nf\n", "", 0))
        equal([entry.name for entry in two.filesystem.list_files("/user/project")], ["f", "link", "sub"])


def test_snapshots_a_snapshot_is_mounted_by_its_id_after_the_end_of_its_sandbox() -> None:
    """snapshots: a snapshot is mounted by its id after the end of its sandbox"""
    with sandbox() as one:
        project(one, "/p")
        image_id = one.snapshot_directory("/p").object_id
        one.terminate(wait=True)
    with sandbox() as two:
        two.mount_image("/p", modal.Image.from_id(image_id))
        equal(two.filesystem.read_text("/p/sub/g"), "deep\n")


def test_snapshots_each_sandbox_writes_to_its_own_copy() -> None:
    """snapshots: each sandbox writes to its own copy"""
    with sandbox() as one, sandbox() as two:
        project(one, "/p")
        image = one.snapshot_directory("/p")
        for own in (one, two):
            own.mount_image("/m", image)
        equal(sh(one, "echo mine > /m/f; rm -r /m/sub; cat /m/f; ls /m; cat /p/f")[0], "mine\nf\nlink\none\n")
        equal(sh(two, "cat /m/f /m/sub/g")[0], "one\ndeep\n")


def test_snapshots_a_snapshot_of_a_mounted_directory_contains_the_changes() -> None:
    """snapshots: a snapshot of a mounted directory contains the changes"""
    with sandbox() as one, sandbox() as two:
        project(one, "/p")
        one.mount_image("/m", one.snapshot_directory("/p"))
        sh(one, "echo two > /m/f; rm /m/link; echo new > /m/new")
        two.mount_image("/m", one.snapshot_directory("/m"))
        equal(sh(two, "cd /m; ls; cat f new sub/g")[0], "f\nnew\nsub\ntwo\nnew\ndeep\n")


def test_mounts_an_empty_image_hides_the_files_below_it_until_it_is_unmounted() -> None:
    """mounts: an empty image hides the files below it until it is unmounted"""
    path = place()
    own = shared()
    project(own, path)
    own.mount_image(path, modal.Image.from_scratch())
    equal(sh(own, f"ls -A {path}; echo x > {path}/mine; cat {path}/mine")[0], "x\n")
    own.unmount_image(path)
    equal(sh(own, f"ls {path}; cat {path}/f")[0], "f\nlink\nsub\none\n")


def test_mounts_missing_directories_are_created() -> None:
    """mounts: missing directories are created"""
    path = f"{place()}/a/b"
    shared().mount_image(path, modal.Image.from_scratch())
    equal(sh(shared(), f"echo x > {path}/f && cat {path}/f"), ("x\n", "", 0))
    shared().unmount_image(path)
    equal(sh(shared(), f"ls -A {path}"), ("", "", 0))


def test_mounts_running_processes_see_mounts_and_unmounts() -> None:
    """mounts: running processes see mounts and unmounts"""
    path = place()
    own = shared()
    equal(sh(own, f"mkdir -p {path} && touch {path}/below")[2], 0)
    script = f"cd /; until test ! -e {path}/below; do :; done; echo came; until test -e {path}/below; do :; done; echo went"
    process = own.exec("sh", "-c", script)
    lines = iter(process.stdout)
    own.mount_image(path, modal.Image.from_scratch())
    equal(next(lines), "came\n")
    own.unmount_image(path)
    equal(next(lines), "went\n")
    equal(process.wait(), 0)


def test_mounts_a_second_mount_hides_the_first_and_one_unmount_removes_both() -> None:
    """mounts: a second mount hides the first, and one unmount removes both"""
    own = shared()
    path, other = place(), place()
    project(own, other)
    own.mount_image(path, modal.Image.from_scratch())
    sh(own, f"touch {path}/first")
    own.mount_image(path, own.snapshot_directory(other))
    equal(sh(own, f"ls {path}")[0], "f\nlink\nsub\n")
    own.unmount_image(path)
    equal(sh(own, f"ls -A {path}")[0], "")
    raises(exception.ConflictError, own.unmount_image, path, containing="nothing is mounted")


def test_mounts_a_built_image_shows_all_its_files() -> None:
    """mounts: a built image shows all its files"""
    image = modal.Image.debian_slim().run_commands("mkdir /made && echo built > /made/f").build(app())
    own = shared()
    path = place()
    own.mount_image(path, image)
    equal(sh(own, f"cat {path}/made/f; test -x {path}/usr/bin/env && echo programs")[0], "built\nprograms\n")
    own.unmount_image(path)


def test_mounts_an_image_can_consist_of_copied_files_only() -> None:
    """mounts: an image can consist of copied files only"""
    local = f"/tmp/{uuid.uuid4().hex}"
    with open(local, "w") as file:
        file.write("copied")
    try:
        image = modal.Image.from_scratch().add_local_file(local, "/bin/data", copy=True).build(app())
    finally:
        os.unlink(local)
    path = place()
    shared().mount_image(path, image)
    equal(sh(shared(), f"cat {path}/bin/data; ls {path}")[0], "copiedbin\n")
    shared().unmount_image(path)


def test_mounts_the_root_kernel_file_systems_and_files_are_refused() -> None:
    """mounts: the root, kernel file systems and files are refused"""
    own = shared()
    for path in ("/", "/proc", "/proc/sys", "/sys", "/dev", "/etc/passwd", "/srv/../etc"):
        raises(exception.InvalidError, own.mount_image, path, modal.Image.from_scratch())
    raises(exception.InvalidError, own.mount_image, "relative", modal.Image.from_scratch(), containing="absolute")
    raises(exception.NotFoundError, own.mount_image, "/m", modal.Image.from_id("im-0000000000000000000000"))
    raises(exception.InvalidError, own.mount_image, "/m", modal.Image.debian_slim(), containing="prebuilt")


def test_mounts_a_path_without_a_mount_cannot_be_unmounted() -> None:
    """mounts: a path without a mount cannot be unmounted"""
    own = shared()
    for path in ("/tmp", "/proc", "/no/such/place"):
        raises(exception.ConflictError, own.unmount_image, path, containing="nothing is mounted")
    equal(sh(own, "test -d /proc/self")[2], 0)


def test_snapshots_missing_directories_files_and_relative_paths_are_refused() -> None:
    """snapshots: missing directories, files and relative paths are refused"""
    own = shared()
    raises(exception.NotFoundError, own.snapshot_directory, "/no/such/directory")
    raises(exception.InvalidError, own.snapshot_directory, "/etc/passwd", containing="not a directory")
    raises(exception.InvalidError, own.snapshot_directory, "relative", containing="absolute")
    raises(exception.InvalidError, own.snapshot_directory, "/tmp", ttl=0)


def test_snapshots_files_on_a_volume_are_not_in_the_snapshot() -> None:
    """snapshots: files on a volume are not in the snapshot"""
    volume = modal.Volume.from_name(f"vol-{uuid.uuid4().hex[:12]}", create_if_missing=True)
    with sandbox(volumes={"/p/v": volume}) as own:
        sh(own, "echo kept > /p/f; echo shared > /p/v/g")
        own.mount_image("/m", own.snapshot_directory("/p"))
        equal(sh(own, "find /m | sort")[0], "/m\n/m/f\n/m/v\n")


def test_snapshots_a_directory_snapshot_is_the_whole_file_system_of_a_sandbox_created_from_it() -> None:
    """snapshots: a directory snapshot is the whole file system of a sandbox created from it"""
    with sandbox() as one:
        project(one, "/p")
        image = one.snapshot_directory("/p")
    with sandbox("true", image=image) as two:
        # An image without programs has nothing to run.
        two.wait()
        equal(two.returncode, 127)


def test_snapshots_mounted_files_are_not_in_a_snapshot_of_the_file_system() -> None:
    """snapshots: mounted files are not in a snapshot of the file system"""
    with sandbox() as one:
        project(one, "/p")
        one.mount_image("/m", one.snapshot_directory("/p"))
        sh(one, "echo more > /m/more; echo plain > /plain")
        image = one.snapshot_filesystem()
    with sandbox(image=image) as two:
        equal(sh(two, "cat /plain /p/f; ls -A /m")[0], "plain\none\n")


def test_sidecars_directories_of_sidecars_are_mounted_and_saved_independently() -> None:
    """sidecars: directories of sidecars are mounted and saved independently"""
    with sandbox() as own:
        side = own._experimental_sidecars.create("sleep", "60", name="s", image=modal.Image.debian_slim().build(app()))
        side.mount_image("/workspace", modal.Image.from_scratch())
        process = side.exec("sh", "-c", "echo side > /workspace/f; cat /workspace/f")
        equal(process.stdout.read(), "side\n")
        equal(sh(own, "test -e /workspace || echo apart")[0], "apart\n")
        own.mount_image("/workspace", side.snapshot_directory("/workspace"))
        equal(sh(own, "cat /workspace/f")[0], "side\n")
        side.unmount_image("/workspace")
        equal(side.exec("ls", "-A", "/workspace").stdout.read(), "")
        equal(sh(own, "cat /workspace/f")[0], "side\n")


def test_snapshots_a_snapshot_with_a_key_can_be_used_only_with_the_key() -> None:
    """snapshots: a snapshot with a key can be used only with the key"""
    own = shared()
    path, key = place(), b"k" * 16
    project(own, path)
    image = own.snapshot_directory(path, _experimental_encryption_key=key)
    mounted = place()
    raises(exception.InvalidError, own.mount_image, mounted, image, containing="encryption key")
    raises(exception.InvalidError, own.mount_image, mounted, image, _experimental_encryption_key=b"x" * 16, containing="key")
    raises(exception.ConflictError, modal.Sandbox.create, app=app(), image=image, containing="encrypted")
    own.mount_image(mounted, image, _experimental_encryption_key=key)
    equal(sh(own, f"cat {mounted}/f")[0], "one\n")
    own.unmount_image(mounted)


def test_snapshots_an_expired_directory_snapshot_is_not_found_and_its_mounts_stay() -> None:
    """snapshots: an expired directory snapshot is not found, and its mounts stay"""
    own = shared()
    path, mounted = place(), place()
    project(own, path)
    began = time.monotonic()
    image = own.snapshot_directory(path, ttl=2)
    own.mount_image(mounted, image)
    eventually(lambda: expired(image))
    assert time.monotonic() - began >= 2
    raises(exception.NotFoundError, own.mount_image, place(), image)
    raises(exception.NotFoundError, modal.Sandbox.create, app=app(), image=image)
    equal(sh(own, f"cat {mounted}/f")[0], "one\n")
    own.unmount_image(mounted)


def test_snapshots_an_expired_file_system_snapshot_is_not_found_and_its_sandboxes_continue() -> None:
    """snapshots: an expired file system snapshot is not found, and its sandboxes continue"""
    with sandbox() as one:
        sh(one, "echo kept > /kept")
        image = one.snapshot_filesystem(ttl=2)
        lasting = one.snapshot_filesystem(ttl=None)
    with sandbox(image=image) as two:
        eventually(lambda: expired(image))
        raises(exception.NotFoundError, modal.Sandbox.create, app=app(), image=image)
        equal(sh(two, "cat /kept")[0], "kept\n")
    with sandbox(image=lasting) as three:
        equal(sh(three, "cat /kept")[0], "kept\n")


def test_snapshots_sandboxes_of_the_v1_backend_have_snapshots() -> None:
    """snapshots: sandboxes of the V1 backend have snapshots"""
    with sandbox(gpu="T4") as own:
        project(own, "/p")
        own.mount_image("/m", own.snapshot_directory("/p"))
        equal(sh(own, "cat /m/sub/g")[0], "deep\n")
        own.unmount_image("/m")
        equal(sh(own, "ls -A /m")[0], "")


def test_snapshots_a_snapshot_of_an_ended_sandbox_is_refused() -> None:
    """snapshots: a snapshot of an ended sandbox is refused"""
    with sandbox() as own:
        own.terminate(wait=True)
        raises(exception.NotFoundError, own.snapshot_directory, "/tmp")
        raises(exception.NotFoundError, own.mount_image, "/m", modal.Image.from_scratch())
        raises(exception.NotFoundError, own.unmount_image, "/m")
