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


def test_files_text_and_bytes_come_back_as_they_were() -> None:
    """files: text and bytes come back as they were"""
    fs().write_text("grüße\n", "/tmp/f/text")
    equal(fs().read_text("/tmp/f/text"), "grüße\n")
    data = bytes(range(256)) * 41
    fs().write_bytes(data, "/tmp/f/bytes")
    equal(fs().read_bytes("/tmp/f/bytes"), data)
    fs().write_bytes(b"", "/tmp/f/bytes")
    equal(fs().read_bytes("/tmp/f/bytes"), b"")


def test_files_writing_makes_the_directories_above() -> None:
    """files: writing makes the directories above"""
    fs().write_text("x", "/tmp/p/a/b/c/d")
    equal(sh(shared(), "cat /tmp/p/a/b/c/d")[0], "x")


def test_files_commands_see_what_the_api_wrote_and_the_other_way_round() -> None:
    """files: commands see what the API wrote, and the other way round"""
    sh(shared(), "echo from-inside > /tmp/both; chmod 640 /tmp/both")
    equal(fs().read_text("/tmp/both"), "from-inside\n")
    info = fs().stat("/tmp/both")
    equal((info.size, info.permissions, info.owner, info.type.value), (12, "0640", "root", "file"))


def test_files_reading_what_is_not_there() -> None:
    """files: reading what is not there"""
    raises(exception.SandboxFilesystemNotFoundError, fs().read_text, "/tmp/not-there")
    raises(exception.SandboxFilesystemNotFoundError, fs().stat, "/tmp/not-there")
    raises(exception.SandboxFilesystemNotFoundError, fs().list_files, "/tmp/not-there")
    raises(exception.SandboxFilesystemNotFoundError, fs().remove, "/tmp/not-there")


def test_files_a_directory_is_neither_read_nor_written_as_a_file() -> None:
    """files: a directory is neither read nor written as a file"""
    raises(exception.SandboxFilesystemIsADirectoryError, fs().read_bytes, "/tmp")
    raises(exception.SandboxFilesystemIsADirectoryError, fs().write_text, "x", "/tmp")


def test_files_a_file_where_a_directory_is_needed() -> None:
    """files: a file where a directory is needed"""
    fs().write_text("x", "/tmp/way")
    raises(exception.SandboxFilesystemNotADirectoryError, fs().write_text, "y", "/tmp/way/below")
    raises(exception.SandboxFilesystemNotADirectoryError, fs().list_files, "/tmp/way")
    raises(exception.SandboxFilesystemPathAlreadyExistsError, fs().make_directory, "/tmp/way")


def test_files_a_directory_s_entries_sorted_with_their_kinds() -> None:
    """files: a directory's entries, sorted, with their kinds"""
    sh(shared(), "mkdir -p /tmp/l/sub; echo 123 > /tmp/l/b; ln -s b /tmp/l/link; : > /tmp/l/a")
    entries = fs().list_files("/tmp/l")
    equal([(e.name, e.type.value) for e in entries], [("a", "file"), ("b", "file"), ("link", "symlink"), ("sub", "directory")])
    equal(entries[2].symlink_target, "b")
    equal(entries[1].path, "/tmp/l/b")


def test_files_directories_with_and_without_parents() -> None:
    """files: directories with and without parents"""
    fs().make_directory("/tmp/m/a/b")
    fs().make_directory("/tmp/m/a/b")
    raises(exception.SandboxFilesystemNotFoundError, fs().make_directory, "/tmp/m/x/y", create_parents=False)
    raises(exception.SandboxFilesystemPathAlreadyExistsError, fs().make_directory, "/tmp/m/a", create_parents=False)
    equal(fs().stat("/tmp/m/a/b").type.value, "directory")


def test_files_files_links_empty_and_full_directories_are_removed_as_asked() -> None:
    """files: files, links, empty and full directories are removed as asked"""
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


def test_files_48_mib_up_and_down_byte_for_byte() -> None:
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


def test_files_more_than_5_gib_is_not_read() -> None:
    """files: more than 5 GiB is not read"""
    sh(shared(), "truncate -s 6G /tmp/huge")
    raises(exception.SandboxFilesystemFileTooLargeError, fs().read_bytes, "/tmp/huge")
    fs().remove("/tmp/huge")


def test_files_a_watch_reports_what_is_made() -> None:
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


def test_files_another_sandbox_s_files_are_invisible() -> None:
    """files: another sandbox's files are invisible"""
    fs().write_text("mine", "/root/mine")
    with sandbox() as other:
        raises(exception.SandboxFilesystemNotFoundError, other.filesystem.read_text, "/root/mine")


def test_files_homes_temporary_and_run_time_files_of_the_machine_are_invisible() -> None:
    """files: homes, temporary and run-time files of the machine are invisible"""
    with sandbox() as own:
        out, _, _ = sh(own, "ls -A /home ~ /tmp /run /var/log")
        for leaked in (".ssh", ".cargo", "modal-emulator"):
            assert leaked not in out, out
        out, _, _ = sh(own, "cat /etc/shadow 2>/dev/null | cut -d: -f2 | sort -u")
        assert all(line in ("", "*", "!", "!!", "x", "!*") for line in out.split()), out
        assert modal.__version__


def test_files_local_files_that_are_missing_directories_above_that_are_made() -> None:
    """files: local files that are missing, directories above that are made"""
    with tempfile.TemporaryDirectory() as directory:
        raises(FileNotFoundError, fs().copy_from_local, os.path.join(directory, "none"), "/tmp/lp")
        fs().write_text("x", "/tmp/lp/there")
        back = os.path.join(directory, "deep", "er", "back")
        fs().copy_to_local("/tmp/lp/there", back)
        with open(back) as file:
            equal(file.read(), "x")
        raises(exception.SandboxFilesystemNotFoundError, fs().copy_to_local, "/tmp/lp/none", back)


def test_files_names_with_spaces_letters_of_all_sorts_line_ends_empty_files() -> None:
    """files: names with spaces, letters of all sorts, line ends; empty files"""
    names = ["-dash", "a b", "empty", "new\nline", "ünï"]
    for name in names:
        fs().write_bytes(b"", f"/tmp/names/{name}")
        equal(fs().read_bytes(f"/tmp/names/{name}"), b"")
    equal([entry.name for entry in fs().list_files("/tmp/names")], names)


def test_files_a_link_is_described_read_through_removed_without_its_target() -> None:
    """files: a link is described, read through, removed without its target"""
    sh(shared(), "mkdir -p /tmp/links; echo target > /tmp/links/t; ln -sf t /tmp/links/l; ln -sf nowhere /tmp/links/d")
    info = fs().stat("/tmp/links/l")
    equal((info.type.value, info.symlink_target), ("symlink", "t"))
    equal(fs().read_text("/tmp/links/l"), "target\n")
    raises(exception.SandboxFilesystemNotFoundError, fs().read_text, "/tmp/links/d")
    fs().remove("/tmp/links/l")
    equal(fs().read_text("/tmp/links/t"), "target\n")


def test_files_writing_replaces_the_content_and_keeps_the_mode() -> None:
    """files: writing replaces the content and keeps the mode"""
    sh(shared(), "mkdir -p /tmp/kept; echo a long line > /tmp/kept/f; chmod 751 /tmp/kept/f")
    fs().write_text("b", "/tmp/kept/f")
    equal(sh(shared(), "cat /tmp/kept/f; stat -c ' %a' /tmp/kept/f")[0], "b 751\n")


def test_files_what_a_user_may_not_do() -> None:
    """files: what a user may not do"""
    # Where the emulator has no privileges there are no other users.
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
    """The first event of a watch, while a command goes on making changes."""
    writer = own.exec("sh", "-c", f"n=0; while :; do n=$((n+1)); {script}; sleep 0.05; done")
    for event in own.filesystem.watch(path, timeout=30, **options):
        del writer
        return event.type.value, list(event.paths)
    raise AssertionError("nothing was seen")


def test_files_a_watch_of_a_file_below_directories_for_some_kinds_of_events_for_both_sides() -> None:
    """files: a watch of a file, below directories, for some kinds of events, for both sides of a renaming"""
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


def test_files_a_watch_ends_with_its_time_and_needs_something_to_watch() -> None:
    """files: a watch ends with its time, and needs something to watch"""
    equal(list(fs().watch("/usr/share", timeout=1)), [])
    raises(exception.SandboxFilesystemNotFoundError, lambda: list(fs().watch("/tmp/nowhere", timeout=1)))


def test_files_1_gib_up_and_down_and_the_emulator_s_memory_stays_as_it_was() -> None:
    """files: 1 GiB up and down, and the emulator's memory stays as it was"""
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
        assert grown < 64, f"{grown} MiB more"
