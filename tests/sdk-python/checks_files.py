"""Files, through the SDK's file system object."""

from typing import Any
import hashlib
import os
import tempfile

import modal
from harness import check, equal, raises, sandbox, sh, shared
from modal import exception


def fs() -> Any:
    return shared().filesystem


@check
def text_and_bytes() -> None:
    """files: text and bytes come back as they were"""
    fs().write_text("grüße\n", "/tmp/f/text")
    equal(fs().read_text("/tmp/f/text"), "grüße\n")
    data = bytes(range(256)) * 41
    fs().write_bytes(data, "/tmp/f/bytes")
    equal(fs().read_bytes("/tmp/f/bytes"), data)
    fs().write_bytes(b"", "/tmp/f/bytes")
    equal(fs().read_bytes("/tmp/f/bytes"), b"")


@check
def parents() -> None:
    """files: writing makes the directories above"""
    fs().write_text("x", "/tmp/p/a/b/c/d")
    equal(sh(shared(), "cat /tmp/p/a/b/c/d")[0], "x")


@check
def seen_from_both_sides() -> None:
    """files: commands see what the API wrote, and the other way round"""
    sh(shared(), "echo from-inside > /tmp/both; chmod 640 /tmp/both")
    equal(fs().read_text("/tmp/both"), "from-inside\n")
    info = fs().stat("/tmp/both")
    equal((info.size, info.permissions, info.owner, info.type.value), (12, "0640", "root", "file"))


@check
def missing_file() -> None:
    """files: reading what is not there"""
    raises(exception.SandboxFilesystemNotFoundError, fs().read_text, "/tmp/not-there")
    raises(exception.SandboxFilesystemNotFoundError, fs().stat, "/tmp/not-there")
    raises(exception.SandboxFilesystemNotFoundError, fs().list_files, "/tmp/not-there")
    raises(exception.SandboxFilesystemNotFoundError, fs().remove, "/tmp/not-there")


@check
def directories_are_not_files() -> None:
    """files: a directory is neither read nor written as a file"""
    raises(exception.SandboxFilesystemIsADirectoryError, fs().read_bytes, "/tmp")
    raises(exception.SandboxFilesystemIsADirectoryError, fs().write_text, "x", "/tmp")


@check
def file_in_the_way() -> None:
    """files: a file where a directory is needed"""
    fs().write_text("x", "/tmp/way")
    raises(exception.SandboxFilesystemNotADirectoryError, fs().write_text, "y", "/tmp/way/below")
    raises(exception.SandboxFilesystemNotADirectoryError, fs().list_files, "/tmp/way")
    raises(exception.SandboxFilesystemPathAlreadyExistsError, fs().make_directory, "/tmp/way")


@check
def listing() -> None:
    """files: a directory's entries, sorted, with their kinds"""
    sh(shared(), "mkdir -p /tmp/l/sub; echo 123 > /tmp/l/b; ln -s b /tmp/l/link; : > /tmp/l/a")
    entries = fs().list_files("/tmp/l")
    equal([(e.name, e.type.value) for e in entries], [("a", "file"), ("b", "file"), ("link", "symlink"), ("sub", "directory")])
    equal(entries[2].symlink_target, "b")
    equal(entries[1].path, "/tmp/l/b")


@check
def making_directories() -> None:
    """files: directories with and without parents"""
    fs().make_directory("/tmp/m/a/b")
    fs().make_directory("/tmp/m/a/b")
    raises(exception.SandboxFilesystemNotFoundError, fs().make_directory, "/tmp/m/x/y", create_parents=False)
    raises(exception.SandboxFilesystemPathAlreadyExistsError, fs().make_directory, "/tmp/m/a", create_parents=False)
    equal(fs().stat("/tmp/m/a/b").type.value, "directory")


@check
def removing() -> None:
    """files: files, links, empty and full directories are removed as asked"""
    sh(shared(), "mkdir -p /tmp/r/full/x; : > /tmp/r/file; ln -s file /tmp/r/link")
    fs().remove("/tmp/r/link")
    equal(fs().read_text("/tmp/r/file"), "")
    raises(exception.SandboxFilesystemDirectoryNotEmptyError, fs().remove, "/tmp/r/full")
    fs().remove("/tmp/r/full", recursive=True)
    fs().remove("/tmp/r/file")
    equal(fs().list_files("/tmp/r"), [])


@check
def relative_path() -> None:
    """files: relative paths are refused"""
    raises(exception.InvalidError, fs().read_text, "tmp/x")


@check
def big_file() -> None:
    """files: 48 MiB up and down, byte for byte"""
    with tempfile.TemporaryDirectory() as directory:
        there, back = os.path.join(directory, "there"), os.path.join(directory, "back")
        with open(there, "wb") as file:
            for number in range(48):
                file.write(hashlib.sha256(bytes([number])).digest() * 32768)
        fs().copy_from_local(there, "/tmp/big")
        equal(fs().stat("/tmp/big").size, 48 << 20)
        fs().copy_to_local("/tmp/big", back)
        with open(there, "rb") as one, open(back, "rb") as other:
            assert one.read() == other.read()
    fs().remove("/tmp/big")


@check
def too_big() -> None:
    """files: more than 5 GiB is not read"""
    sh(shared(), "truncate -s 6G /tmp/huge")
    raises(exception.SandboxFilesystemFileTooLargeError, fs().read_bytes, "/tmp/huge")
    fs().remove("/tmp/huge")


@check
def watching() -> None:
    """files: a watch reports what is made"""
    with sandbox() as own:
        own.filesystem.make_directory("/tmp/w")
        writer = own.exec("sh", "-c", "n=0; while :; do n=$((n+1)); : > /tmp/w/new$n; read -t 0.1 x; done 2>/dev/null")
        for event in own.filesystem.watch("/tmp/w", timeout=30):
            if any("/tmp/w/new" in str(path) for path in event.paths):
                break
        else:
            raise AssertionError("nothing was seen")
        del writer


@check
def files_of_others() -> None:
    """files: another sandbox's files are invisible"""
    fs().write_text("mine", "/root/mine")
    with sandbox() as other:
        raises(exception.SandboxFilesystemNotFoundError, other.filesystem.read_text, "/root/mine")


@check
def nobodys_home() -> None:
    """files: homes, temporary and run-time files of the machine are invisible"""
    with sandbox() as own:
        out, _, _ = sh(own, "ls -A /home /tmp /run /var/log /root/.ssh /root/.cargo 2>/dev/null")
        for leaked in (".ssh", "cargo", "modal-emulator"):
            assert leaked not in out.replace("/root/.ssh", "").replace("/root/.cargo", ""), out
        out, _, _ = sh(own, "cat /etc/shadow 2>/dev/null | cut -d: -f2 | sort -u")
        assert all(line in ("", "*", "!", "!!", "x", "!*") for line in out.split()), out
        assert modal.__version__
