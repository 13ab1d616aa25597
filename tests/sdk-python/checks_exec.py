"""Commands: arguments, streams, input and exit codes."""

from typing import Any
import concurrent.futures
import hashlib

import modal
from harness import equal, raises, sandbox, sh, shared
from modal.stream_type import StreamType


def test_exec_stdout_stderr_and_the_exit_code_are_returned() -> None:
    """exec: stdout, stderr and the exit code are returned"""
    equal(sh(shared(), "echo out; echo err >&2; exit 7"), ("out\n", "err\n", 7))


def test_exec_arguments_are_passed_unchanged_without_a_shell() -> None:
    """exec: arguments are passed unchanged, without a shell"""
    process = shared().exec("printf", "%s|", "a b", "", "$HOME", "*", "é\n")
    equal(process.stdout.read(), "a b||$HOME|*|é\n|")
    equal(process.wait(), 0)


def test_exec_output_need_not_be_text() -> None:
    """exec: output need not be text"""
    process = shared().exec("printf", r"\000\377\200x", text=False)
    equal(process.stdout.read(), b"\x00\xff\x80x")


def test_exec_exit_codes_0_1_42_and_255_are_returned() -> None:
    """exec: exit codes 0, 1, 42 and 255 are returned"""
    for code in (0, 1, 42, 255):
        equal(shared().exec("sh", "-c", f"exit {code}").wait(), code)


def test_exec_death_by_a_signal_is_reported_as_128_plus_the_signal() -> None:
    """exec: death by a signal is reported as 128 plus the signal"""
    equal(shared().exec("sh", "-c", "kill -9 $$").wait(), 137)
    equal(shared().exec("sh", "-c", "kill -TERM $$").wait(), 143)


def test_exec_a_program_that_does_not_exist_ends_with_127_and_a_message() -> None:
    """exec: a program that does not exist ends with 127 and a message"""
    process = shared().exec("no-such-program")
    assert "no-such-program" in process.stderr.read()
    equal(process.wait(), 127)


def test_exec_of_env_and_secrets_the_later_value_is_used() -> None:
    """exec: of env and secrets, the later value is used"""
    secret = modal.Secret.from_dict({"A": "secret", "B": "secret"})
    process = shared().exec("sh", "-c", "echo $A $B $C", env={"A": "env", "C": "é 'q'"}, secrets=[secret])
    equal(process.stdout.read(), "env secret é 'q'\n")


def test_exec_a_command_does_not_see_the_environment_of_the_emulator() -> None:
    """exec: a command does not see the environment of the emulator"""
    out, _, _ = sh(shared(), "env")
    for leaked in ("MODAL_TOKEN", "CARGO", "RUST_LOG", "SSH_"):
        assert leaked not in out, out


def test_exec_workdir_sets_the_working_directory() -> None:
    """exec: workdir sets the working directory"""
    equal(shared().exec("pwd", workdir="/usr/bin").stdout.read(), "/usr/bin\n")
    equal(shared().exec("pwd").stdout.read(), "/\n")


def test_exec_a_relative_workdir_is_refused() -> None:
    """exec: a relative workdir is refused"""
    raises(modal.exception.InvalidError, shared().exec, "pwd", workdir="tmp")


def test_exec_a_command_that_exceeds_its_time_limit_is_killed_and_the_client_is_told() -> None:
    """exec: a command that exceeds its time limit is killed and the client is told"""
    process = shared().exec("sh", "-c", "echo begun; sleep 60", timeout=1)
    equal(process.stdout.read(), "begun\n")
    equal(process.wait(), 137)
    out, _, _ = sh(shared(), "ps -e -o args= 2>/dev/null || cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "sleep 60" not in out, out


def test_exec_standard_input_ends_when_it_is_closed() -> None:
    """exec: standard input ends when it is closed"""
    process = shared().exec("cat")
    process.stdin.write("one\n")
    process.stdin.write("two\n")
    process.stdin.write_eof()
    process.stdin.drain()
    equal(process.stdout.read(), "one\ntwo\n")
    equal(process.wait(), 0)


def test_exec_input_and_output_alternate_line_by_line() -> None:
    """exec: input and output alternate line by line"""
    process = shared().exec("sh", "-c", "while read line; do echo got $line; done", bufsize=1)
    lines = iter(process.stdout)
    for word in ("a", "b", "c"):
        process.stdin.write(word + "\n")
        process.stdin.drain()
        equal(next(lines), f"got {word}\n")
    process.stdin.write_eof()
    process.stdin.drain()
    equal(process.wait(), 0)


def test_exec_8_mib_of_input_are_written_at_once() -> None:
    """exec: 8 MiB of input are written at once"""
    data = bytes(range(256)) * 32768
    process = shared().exec("sha256sum", text=False)
    process.stdin.write(data)
    process.stdin.write_eof()
    process.stdin.drain()
    equal(process.stdout.read().split()[0].decode(), hashlib.sha256(data).hexdigest())


def test_exec_input_to_a_command_that_has_ended_is_refused() -> None:
    """exec: input to a command that has ended is refused"""
    process = shared().exec("true")
    process.wait()
    process.stdin.write("late\n")
    raises(modal.exception.Error, process.stdin.drain)


def test_exec_output_can_be_read_after_the_end_of_the_command() -> None:
    """exec: output can be read after the end of the command"""
    process = shared().exec("sh", "-c", "seq 1 20000; echo e >&2")
    equal(process.wait(), 0)
    equal(process.stdout.read(), "".join(f"{n}\n" for n in range(1, 20001)))
    equal(process.stderr.read(), "e\n")


def test_exec_64_mib_of_output_arrive_unchanged() -> None:
    """exec: 64 MiB of output arrive unchanged"""
    process = shared().exec("sh", "-c", "head -c 67108864 /dev/zero | tr '\\0' x", text=False)
    digest = hashlib.sha256()
    for piece in process.stdout:
        digest.update(piece)
    equal(digest.hexdigest(), hashlib.sha256(b"x" * 67108864).hexdigest())


def test_exec_output_arrives_while_the_command_runs() -> None:
    """exec: output arrives while the command runs"""
    process = shared().exec("sh", "-c", "echo first; read x; echo second")
    lines = iter(process.stdout)
    equal(next(lines), "first\n")
    equal(process.poll(), None)
    process.stdin.write("go\n")
    process.stdin.drain()
    equal(next(lines), "second\n")
    equal(process.wait(), 0)
    equal(process.poll(), 0)


def test_exec_discarded_output_does_not_block_the_command() -> None:
    """exec: discarded output does not block the command"""
    process = shared().exec("sh", "-c", "head -c 4000000 /dev/zero", stdout=StreamType.DEVNULL)
    equal(process.wait(), 0)


def test_exec_a_pty_has_a_terminal_type_and_also_carries_stderr() -> None:
    """exec: a pty has a terminal type and also carries stderr"""
    process = shared().exec("sh", "-c", "test -t 0 && test -t 1 && echo terminal; echo err >&2", pty=True)
    out = process.stdout.read()
    equal(process.wait(), 0)
    equal(out.replace("\r\n", "\n"), "terminal\nerr\n")


def test_exec_a_background_process_does_not_delay_the_end_of_the_command() -> None:
    """exec: a background process does not delay the end of the command"""
    process = shared().exec("sh", "-c", "sleep 300 & echo done")
    equal(process.stdout.read(), "done\n")
    equal(process.wait(), 0)
    sh(shared(), "pkill sleep -n || true")


def test_exec_50_commands_run_at_the_same_time() -> None:
    """exec: 50 commands run at the same time"""

    def one(number: Any) -> Any:
        return shared().exec("sh", "-c", f"echo {number}; exit {number}")

    with concurrent.futures.ThreadPoolExecutor(25) as pool:
        processes = list(pool.map(one, range(50)))
        outputs = list(pool.map(lambda p: (p.stdout.read(), p.wait()), processes))
    equal(outputs, [(f"{n}\n", n) for n in range(50)])


def test_exec_arguments_of_more_than_65536_bytes_are_refused() -> None:
    """exec: arguments of more than 65536 bytes are refused"""
    raises(modal.exception.InvalidError, shared().exec, "echo", "x" * 70000)


def test_exec_a_time_limit_also_ends_the_children_of_the_command() -> None:
    """exec: a time limit also ends the children of the command"""
    with sandbox() as own:
        own.exec("sh", "-c", "sleep 77 & sleep 77", timeout=1).wait()
        out, _, _ = sh(own, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert "sleep 77" not in out, out


def test_exec_the_processes_of_the_machine_are_invisible() -> None:
    """exec: the processes of the machine are invisible"""
    with sandbox() as own:
        out, _, _ = sh(own, "ls -d /proc/[0-9]*")
        assert len(out.split()) < 10, out


def test_exec_50_mb_of_input_in_pieces_arrive_unchanged() -> None:
    """exec: 50 MB of input in pieces arrive unchanged"""
    process = shared().exec("sha256sum", text=False)
    digest = hashlib.sha256()
    for number in range(50):
        piece = bytes([number]) * 1_000_000
        digest.update(piece)
        process.stdin.write(piece)
        process.stdin.drain()
    process.stdin.write_eof()
    process.stdin.drain()
    equal(process.stdout.read().split()[0].decode(), digest.hexdigest())
    equal(process.wait(), 0)


def test_exec_two_full_streams_can_be_read_one_after_the_other() -> None:
    """exec: two full streams can be read one after the other"""
    script = "for i in 1 2 3 4; do head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; done"
    process = shared().exec("sh", "-c", script, text=False)
    equal((len(process.stderr.read()), len(process.stdout.read()), process.wait()), (4_000_000, 4_000_000, 0))


def test_exec_characters_of_several_bytes_are_not_split() -> None:
    """exec: characters of several bytes are not split"""
    out, _, _ = sh(shared(), "yes äöü | head -c 700000")
    equal(out, "äöü\n" * 100_000)


def test_exec_a_command_beyond_its_time_limit_exits_with_137_and_one_within_it_is_not_affected() -> None:
    """exec: a command beyond its time limit exits with 137, and one within it is not affected"""
    process = shared().exec("sh", "-c", "echo partial; exec sleep 60", timeout=1)
    equal(process.stdout.read(), "partial\n")
    equal(process.wait(), 137)
    equal(process.returncode, 137)
    # The client stops waiting by itself at nearly the same time, and then returns -1.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        codes = pool.map(lambda _: shared().exec("sleep", "60", timeout=2).wait(), range(8))
        equal(set(codes), {137})
    equal(shared().exec("true", timeout=60).wait(), 0)


def test_exec_a_workdir_that_does_not_exist_fails_the_command_and_is_named() -> None:
    """exec: a workdir that does not exist fails the command and is named"""
    try:
        process = shared().exec("pwd", workdir="/no/such/directory")
        text, code = process.stderr.read(), process.wait()
    except modal.exception.Error as error:
        text, code = str(error), 1
    assert code != 0 and "/no/such/directory" in text, (text, code)


def test_exec_invalid_names_of_variables_are_refused() -> None:
    """exec: invalid names of variables are refused"""
    for env in ({"A=B": "1"}, {"": "1"}):
        raises(modal.exception.Error, shared().exec, "true", env=env)
