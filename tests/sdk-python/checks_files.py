"""Files, through the SDK's file system object."""

from typing import Any
import hashlib
import os
import tempfile

import modal
from harness import equal, raises, sandbox, sh, shared
from modal import exception


def fs() -> Any:
    return shared().filesystem


def test_files_text_and_bytes_are_read_as_they_were_written() -> None:
    """files: text and bytes are read as they were written"""
    fs().write_text("grüße\n", "/tmp/f/text")
    equal(fs().read_text("/tmp/f/text"), "grüße\n")
    data = bytes(range(256)) * 41
    fs().write_bytes(data, "/tmp/f/bytes")
    equal(fs().read_bytes("/tmp/f/bytes"), data)
    fs().write_bytes(b"", "/tmp/f/bytes")
    equal(fs().read_bytes("/tmp/f/bytes"), b"")


def test_files_a_write_creates_the_parent_directories() -> None:
    """files: a write creates the parent directories"""
    fs().write_text("x", "/tmp/p/a/b/c/d")
    equal(sh(shared(), "cat /tmp/p/a/b/c/d")[0], "x")


def test_files_commands_and_the_file_api_see_each_others_files() -> None:
    """files: commands and the file API see each other's files"""
    sh(shared(), "echo from-inside > /tmp/both; chmod 640 /tmp/both")
    equal(fs().read_text("/tmp/both"), "from-inside\n")
    info = fs().stat("/tmp/both")
    equal((info.size, info.permissions, info.owner, info.type.value), (12, "0640", "root", "file"))


def test_files_reading_a_missing_file_fails() -> None:
    """files: reading a missing file fails"""
    raises(exception.SandboxFilesystemNotFoundError, fs().read_text, "/tmp/not-there")
    raises(exception.SandboxFilesystemNotFoundError, fs().stat, "/tmp/not-there")
    raises(exception.SandboxFilesystemNotFoundError, fs().list_files, "/tmp/not-there")
    raises(exception.SandboxFilesystemNotFoundError, fs().remove, "/tmp/not-there")


def test_files_a_directory_can_be_neither_read_nor_written_as_a_file() -> None:
    """files: a directory can be neither read nor written as a file"""
    raises(exception.SandboxFilesystemIsADirectoryError, fs().read_bytes, "/tmp")
    raises(exception.SandboxFilesystemIsADirectoryError, fs().write_text, "x", "/tmp")


def test_files_a_file_in_the_place_of_a_directory_is_an_error() -> None:
    """files: a file in the place of a directory is an error"""
    fs().write_text("x", "/tmp/way")
    raises(exception.SandboxFilesystemNotADirectoryError, fs().write_text, "y", "/tmp/way/below")
    raises(exception.SandboxFilesystemNotADirectoryError, fs().list_files, "/tmp/way")
    raises(exception.SandboxFilesystemPathAlreadyExistsError, fs().make_directory, "/tmp/way")


def test_files_the_entries_of_a_directory_are_sorted_and_have_their_kinds() -> None:
    """files: the entries of a directory are sorted and have their kinds"""
    sh(shared(), "mkdir -p /tmp/l/sub; echo 123 > /tmp/l/b; ln -s b /tmp/l/link; : > /tmp/l/a")
    entries = fs().list_files("/tmp/l")
    equal([(e.name, e.type.value) for e in entries], [("a", "file"), ("b", "file"), ("link", "symlink"), ("sub", "directory")])
    equal(entries[2].symlink_target, "b")
    equal(entries[1].path, "/tmp/l/b")


def test_files_directories_are_created_with_and_without_parents() -> None:
    """files: directories are created with and without parents"""
    fs().make_directory("/tmp/m/a/b")
    fs().make_directory("/tmp/m/a/b")
    raises(exception.SandboxFilesystemNotFoundError, fs().make_directory, "/tmp/m/x/y", create_parents=False)
    raises(exception.SandboxFilesystemPathAlreadyExistsError, fs().make_directory, "/tmp/m/a", create_parents=False)
    equal(fs().stat("/tmp/m/a/b").type.value, "directory")


def test_files_files_links_and_directories_are_removed_as_requested() -> None:
    """files: files, links and directories are removed as requested"""
    sh(shared(), "mkdir -p /tmp/r/full/x; : > /tmp/r/file; ln -s file /tmp/r/link")
    fs().remove("/tmp/r/link")
    equal(fs().read_text("/tmp/r/file"), "")
    raises(exception.SandboxFilesystemDirectoryNotEmptyError, fs().remove, "/tmp/r/full")
    fs().remove("/tmp/r/full", recursive=True)
    fs().remove("/tmp/r/file")
    equal(fs().list_files("/tmp/r"), [])


def test_files_relative_paths_are_refused() -> None:
    """files: relative paths are refused"""
    raises(exception.InvalidError, fs().read_text, "tmp/x")


def test_files_48_mib_are_transferred_both_ways_unchanged() -> None:
    """files: 48 MiB are transferred both ways unchanged"""
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


def test_files_a_file_of_more_than_5_gib_is_not_read() -> None:
    """files: a file of more than 5 GiB is not read"""
    sh(shared(), "truncate -s 6G /tmp/huge")
    raises(exception.SandboxFilesystemFileTooLargeError, fs().read_bytes, "/tmp/huge")
    fs().remove("/tmp/huge")


def test_files_a_watch_reports_new_files() -> None:
    """files: a watch reports new files"""
    with sandbox() as own:
        own.filesystem.make_directory("/tmp/w")
        writer = own.exec("sh", "-c", "n=0; while :; do n=$((n+1)); : > /tmp/w/new$n; read -t 0.1 x; done 2>/dev/null")
        for event in own.filesystem.watch("/tmp/w", timeout=30):
            if any("/tmp/w/new" in str(path) for path in event.paths):
                break
        else:
            raise AssertionError("the watch reported no event")
        del writer


def test_files_files_of_another_sandbox_are_invisible() -> None:
    """files: files of another sandbox are invisible"""
    fs().write_text("mine", "/root/mine")
    with sandbox() as other:
        raises(exception.SandboxFilesystemNotFoundError, other.filesystem.read_text, "/root/mine")


def test_files_home_temporary_and_runtime_files_of_the_machine_are_invisible() -> None:
    """files: home, temporary and runtime files of the machine are invisible"""
    with sandbox() as own:
        out, _, _ = sh(own, "ls -A /home ~ /tmp /run /var/log")
        for leaked in (".ssh", ".cargo", "modal-emulator"):
            assert leaked not in out, out
        out, _, _ = sh(own, "cat /etc/shadow 2>/dev/null | cut -d: -f2 | sort -u")
        assert all(line in ("", "*", "!", "!!", "x", "!*") for line in out.split()), out
        assert modal.__version__


def test_files_a_missing_local_file_is_an_error_and_local_parent_directories_are_created() -> None:
    """files: a missing local file is an error, and local parent directories are created"""
    with tempfile.TemporaryDirectory() as directory:
        raises(FileNotFoundError, fs().copy_from_local, os.path.join(directory, "none"), "/tmp/lp")
        fs().write_text("x", "/tmp/lp/there")
        back = os.path.join(directory, "deep", "er", "back")
        fs().copy_to_local("/tmp/lp/there", back)
        with open(back) as file:
            equal(file.read(), "x")
        raises(exception.SandboxFilesystemNotFoundError, fs().copy_to_local, "/tmp/lp/none", back)


def test_files_names_may_contain_spaces_line_ends_and_any_letters_and_files_may_be_empty() -> None:
    """files: names may contain spaces, line ends and any letters, and files may be empty"""
    names = ["-dash", "a b", "empty", "new\nline", "ünï"]
    for name in names:
        fs().write_bytes(b"", f"/tmp/names/{name}")
        equal(fs().read_bytes(f"/tmp/names/{name}"), b"")
    equal([entry.name for entry in fs().list_files("/tmp/names")], names)


def test_files_a_link_is_described_read_through_and_removed_without_its_target() -> None:
    """files: a link is described, read through, and removed without its target"""
    sh(shared(), "mkdir -p /tmp/links; echo target > /tmp/links/t; ln -sf t /tmp/links/l; ln -sf nowhere /tmp/links/d")
    info = fs().stat("/tmp/links/l")
    equal((info.type.value, info.symlink_target), ("symlink", "t"))
    equal(fs().read_text("/tmp/links/l"), "target\n")
    raises(exception.SandboxFilesystemNotFoundError, fs().read_text, "/tmp/links/d")
    fs().remove("/tmp/links/l")
    equal(fs().read_text("/tmp/links/t"), "target\n")


def test_files_a_write_replaces_the_content_and_keeps_the_mode() -> None:
    """files: a write replaces the content and keeps the mode"""
    sh(shared(), "mkdir -p /tmp/kept; echo a long line > /tmp/kept/f; chmod 751 /tmp/kept/f")
    fs().write_text("b", "/tmp/kept/f")
    equal(sh(shared(), "cat /tmp/kept/f; stat -c ' %a' /tmp/kept/f")[0], "b 751\n")


def test_files_file_permissions_apply_to_the_user_of_the_sandbox() -> None:
    """files: file permissions apply to the user of the sandbox"""
    # An unprivileged emulator has no other users.
    if sh(shared(), "touch /tmp/owned && chown nobody /tmp/owned")[2] != 0:
        return
    image = modal.Image.from_registry("debian:bookworm").dockerfile_commands("RUN mkdir -p /root/d; echo x > /root/x", "USER nobody")
    with sandbox("sleep", "60", image=image) as own:
        files = own.filesystem
        refused = exception.SandboxFilesystemPermissionError
        raises(refused, files.read_text, "/root/x")
        raises(refused, files.list_files, "/root")
        raises(refused, files.stat, "/root/x")
        raises(refused, files.write_text, "x", "/etc/new")
        raises(refused, files.make_directory, "/etc/new")
        raises(refused, files.remove, "/etc/hostname")
        raises(refused, lambda: list(files.watch("/root/d", timeout=1)))


def seen(own: Any, path: str, script: str, **options: Any) -> Any:
    """Returns the first event of a watch, while a command repeats a change."""
    writer = own.exec("sh", "-c", f"n=0; while :; do n=$((n+1)); {script}; sleep 0.05; done")
    for event in own.filesystem.watch(path, timeout=30, **options):
        del writer
        return event.type.value, list(event.paths)
    raise AssertionError("the watch reported no event")


def test_files_a_watch_of_a_file_or_a_tree_filters_events_and_reports_both_sides_of_a_rename() -> None:
    """files: a watch of a file or a tree filters events and reports both sides of a rename"""
    from modal.types import FileWatchEventType as Kind

    with sandbox() as own:
        sh(own, "mkdir -p /tmp/w/a/b /tmp/r; : > /tmp/w/file; ln -s w /tmp/link")
        equal(seen(own, "/tmp/w/file", "echo x >> /tmp/w/file", filter=[Kind.Modify]), ("Modify", ["/tmp/w/file"]))
        script = ": > /tmp/w/a/b/f; rm /tmp/w/a/b/f"
        equal(seen(own, "/tmp/w", script, filter=[Kind.Remove], recursive=True), ("Remove", ["/tmp/w/a/b/f"]))
    with sandbox() as own:
        sh(own, "mkdir /tmp/r; : > /tmp/r/0")
        script = "mv /tmp/r/$((n-1)) /tmp/r/$n"
        kind, paths = seen(own, "/tmp/r", script, filter=[Kind.Modify])
        equal((kind, len(paths)), ("Modify", 2))


def test_files_a_watch_ends_with_its_timeout_and_needs_an_existing_path() -> None:
    """files: a watch ends with its timeout and needs an existing path"""
    equal(list(fs().watch("/usr/share", timeout=1)), [])
    raises(exception.SandboxFilesystemNotFoundError, lambda: list(fs().watch("/tmp/nowhere", timeout=1)))


def test_files_1_gib_is_transferred_both_ways_and_the_emulators_memory_does_not_grow() -> None:
    """files: 1 GiB is transferred both ways and the emulator's memory does not grow"""
    process = f"/proc/{os.environ['EMULATOR_PID']}"

    def memory(what: str) -> int:
        with open(f"{process}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(what)) >> 10

    with tempfile.TemporaryDirectory() as directory, sandbox() as own:
        there, back = os.path.join(directory, "there"), os.path.join(directory, "back")
        with open(there, "wb") as file:
            file.truncate(1 << 30)
            file.seek(1 << 29)
            file.write(b"in the middle")
        before = memory("VmRSS")
        with open(f"{process}/clear_refs", "w") as clear:
            clear.write("5")
        own.filesystem.copy_from_local(there, "/tmp/big")
        equal(own.filesystem.stat("/tmp/big").size, 1 << 30)
        own.filesystem.copy_to_local("/tmp/big", back)
        grown = memory("VmHWM") - before
        equal(os.path.getsize(back), 1 << 30)
        with open(back, "rb") as arrived:
            arrived.seek(1 << 29)
            equal(arrived.read(13), b"in the middle")
        assert grown < 64, f"the memory grew by {grown} MiB"
