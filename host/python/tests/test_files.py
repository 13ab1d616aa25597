"""Files and directory trees."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from conftest import DEADLINE
from sandbox_host import (
    FileError,
    FileExistsInSandboxError,
    FileNotFoundInSandboxError,
    LocalIoError,
    Progress,
    Provider,
    Sandbox,
    SandboxError,
    UnsupportedError,
)

pytestmark = pytest.mark.asyncio


async def test_a_file_is_written_and_read(sandbox: Sandbox) -> None:
    data = bytes(range(256)) * 5000
    await sandbox.write_file("/tmp/a/b/file", data, permissions=0o640)
    assert await sandbox.read_file("/tmp/a/b/file") == data
    assert (await sandbox.read("/tmp/a/b/file")).mode == 0o640
    info = await sandbox.stat("/tmp/a/b/file")
    assert (info.name, info.path, info.size, info.mode, info.is_file) == ("file", "/tmp/a/b/file", len(data), 0o640, True)


@pytest.mark.parametrize("data", [b"x", bytearray(b"x"), memoryview(b"x"), "x"])
async def test_bytes_like_values_and_text_are_written(sandbox: Sandbox, data: bytes | str) -> None:
    await sandbox.write_file("/tmp/file", data)
    assert await sandbox.read_text("/tmp/file") == "x"


async def test_modes_of_a_write(sandbox: Sandbox) -> None:
    await sandbox.write_file("/tmp/file", "1", mode="create-new")
    await sandbox.write_file("/tmp/file", "2", mode="append")
    assert await sandbox.read_text("/tmp/file") == "12"
    with pytest.raises(FileExistsInSandboxError) as error:
        await sandbox.write_file("/tmp/file", "3", mode="create-new")
    assert error.value.subject == "/tmp/file"


async def test_faults_have_names(sandbox: Sandbox) -> None:
    with pytest.raises(FileNotFoundInSandboxError) as missing:
        await sandbox.read_file("/tmp/none")
    assert missing.value.fault == "not-found" and missing.value.general_kind == "file"
    with pytest.raises(FileError) as directory:
        await sandbox.read_file("/tmp")
    assert directory.value.fault == "is-a-directory"
    await sandbox.write_file("/tmp/long", "0123456789")
    with pytest.raises(FileError) as long:
        await sandbox.read_file("/tmp/long", max_bytes=5)
    assert long.value.fault == "too-large"


async def test_directories(sandbox: Sandbox) -> None:
    await sandbox.make_directory("/tmp/d/e")
    await sandbox.write_file("/tmp/d/file", "x")
    await sandbox.symlink("/tmp/d/link", "file")
    assert [(each.name, each.kind, each.target) for each in await sandbox.list_directory("/tmp/d")] == [
        ("e", "directory", None),
        ("file", "file", None),
        ("link", "symlink", "file"),
    ]
    assert (await sandbox.stat("/tmp/d/link")).is_file
    assert (await sandbox.stat("/tmp/d/link", follow=False)).kind == "symlink"
    with pytest.raises(FileError) as error:
        await sandbox.remove("/tmp/d")
    assert error.value.fault == "not-empty"
    await sandbox.remove("/tmp/d", recursive=True)
    assert not await sandbox.exists("/tmp/d")
    assert not await sandbox.exists("/tmp/d/file/below")


async def test_rename_and_permissions(sandbox: Sandbox) -> None:
    await sandbox.write_file("/tmp/a", "a")
    await sandbox.write_file("/tmp/b", "b")
    with pytest.raises(FileExistsInSandboxError):
        await sandbox.rename("/tmp/a", "/tmp/b", replace=False)
    await sandbox.rename("/tmp/a", "/tmp/b")
    assert await sandbox.read_text("/tmp/b") == "a"
    await sandbox.set_permissions("/tmp/b", 0o600)
    assert (await sandbox.stat("/tmp/b")).mode == 0o600


async def test_another_user(sandbox: Sandbox) -> None:
    other = sandbox.as_user("nobody")
    assert (await other.run("id -un")).text == "nobody\n"
    async with other.start("id -un") as process:
        assert await process.stdout.read_all() == b"nobody\n"
    # The provider refuses what it cannot do, instead of ignoring the user.
    assert not (await sandbox.provider.describe()).supports("files.user")
    with pytest.raises(UnsupportedError) as error:
        await other.read_file("/etc/passwd")
    assert error.value.subject == "files.user"


async def test_upload_and_download_of_a_file(sandbox: Sandbox, tmp_path: Path) -> None:
    data = os.urandom(2_000_000)
    (tmp_path / "here").write_bytes(data)
    assert await sandbox.upload(tmp_path / "here", "/tmp/there", permissions=0o755) == len(data)
    assert (await sandbox.stat("/tmp/there")).mode == 0o755
    assert await sandbox.download("/tmp/there", tmp_path / "back") == len(data)
    assert (tmp_path / "back").read_bytes() == data


async def test_a_missing_local_file_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(LocalIoError, match="none"):
        await sandbox.upload(tmp_path / "none", "/tmp/there")


async def test_directory_trees(sandbox: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "deeper").mkdir(parents=True)
    (source / "deep" / "deeper" / "file").write_text("content")
    (source / "run").write_text("#!/bin/sh\necho ran")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("run")
    assert (await sandbox.upload_directory(source, "/tmp/tree")).skipped == []
    assert (await sandbox.run("/tmp/tree/link; cat /tmp/tree/deep/deeper/file")).text == "ran\ncontent"
    (await sandbox.run("mkfifo /tmp/tree/pipe")).check()
    got = await sandbox.download_directory("/tmp/tree", tmp_path / "copy")
    assert [(each.path, str(each)) for each in got.skipped] == [("pipe", "pipe: a device or a pipe")]
    assert got.skipped_total == 1
    assert (tmp_path / "copy" / "deep" / "deeper" / "file").read_text() == "content"
    assert (tmp_path / "copy" / "run").stat().st_mode & 0o777 == 0o755
    assert os.readlink(tmp_path / "copy" / "link") == "run"


async def test_special_files_are_skipped_and_named(sandbox: Sandbox, tmp_path: Path) -> None:
    inner = tmp_path / "tree" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("content")
    os.mkfifo(inner / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "tree" / "socket"))
        sent = await sandbox.upload_directory(tmp_path / "tree", "/tmp/special")
    assert sorted(map(str, sent.skipped)) == ["inner/pipe: a pipe", "socket: a socket"]
    assert sent.skipped_total == 2
    assert [each.name for each in await sandbox.list_directory("/tmp/special")] == ["inner"]
    assert [each.name for each in await sandbox.list_directory("/tmp/special/inner")] == ["file"]


async def test_transfers_report_their_progress(sandbox: Sandbox, tmp_path: Path) -> None:
    size = 3_000_000
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(size))
    seen: list[Progress] = []
    assert await sandbox.upload(folder / "file", "/tmp/much", on_progress=seen.append) == size
    assert seen[-1] == Progress(size, size) and seen == sorted(seen, key=lambda each: each.bytes)
    seen.clear()
    assert await sandbox.download("/tmp/much", tmp_path / "back", on_progress=seen.append) == size
    assert seen[-1] == Progress(size, size)
    assert (tmp_path / "back").read_bytes() == (folder / "file").read_bytes()
    seen.clear()
    sent = await sandbox.upload_directory(folder, "/tmp/folder", on_progress=seen.append)
    assert sent.bytes > size and seen[-1] == Progress(sent.bytes)
    seen.clear()
    got = await sandbox.download_directory("/tmp/folder", tmp_path / "again", on_progress=seen.append)
    assert got.bytes > size and seen[-1] == Progress(got.bytes)
    with pytest.raises(LocalIoError, match="none"):
        await sandbox.upload(tmp_path / "none", "/tmp/x", on_progress=seen.append)


async def test_an_error_of_the_callback_cancels_a_transfer(sandbox: Sandbox, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def fail(progress: Progress) -> None:
        assert progress == Progress(5)
        raise RuntimeError("in the callback")

    # The pipe has no end while it is open here, so only a cancelled upload ends.
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)
    try:
        os.write(pipe, b"begin")
        with pytest.raises(RuntimeError, match="in the callback"):
            await asyncio.wait_for(sandbox.upload(tmp_path / "pipe", "/tmp/cancelled", on_progress=fail), DEADLINE)
    finally:
        os.close(pipe)
    assert not await sandbox.exists("/tmp/cancelled")


async def test_events_of_files(sandbox: Sandbox) -> None:
    await sandbox.make_directory("/tmp/watched")
    async with sandbox.watch("/tmp/watched", recursive=True) as watch:

        async def named() -> str:
            async for event in watch:
                if any(path.endswith("/new") for path in event.paths):
                    return event.kind
            return "end"

        async def write() -> None:
            # The watch may begin shortly after its call has returned.
            while True:
                await sandbox.write_file("/tmp/watched/new", "x")
                await asyncio.sleep(0.2)

        writing = asyncio.create_task(write())
        assert await asyncio.wait_for(named(), DEADLINE) in ("created", "modified")
        writing.cancel()


async def test_files_of_the_provider_in_memory(memory: Provider) -> None:
    async with memory.create() as sandbox:
        await sandbox.write_file("/a", "text")
        assert (await sandbox.run(["cat", "/a"])).check().text == "text"
        with pytest.raises(SandboxError):
            await sandbox.read_file("/b")
