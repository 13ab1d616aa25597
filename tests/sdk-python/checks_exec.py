"""Commands: arguments, streams, input, ends."""

from typing import Any
import concurrent.futures
import hashlib

import modal
from harness import equal, raises, sandbox, sh, shared
from modal.stream_type import StreamType


def test_exec_stdout_stderr_and_exit_code() -> None:
    """exec: stdout, stderr and exit code"""
    equal(sh(shared(), "echo out; echo err >&2; exit 7"), ("out\n", "err\n", 7))


def test_exec_arguments_arrive_as_they_are_without_a_shell() -> None:
    """exec: arguments arrive as they are, without a shell"""
    process = shared().exec("printf", "%s|", "a b", "", "$HOME", "*", "é\n")
    equal(process.stdout.read(), "a b||$HOME|*|é\n|")
    equal(process.wait(), 0)


def test_exec_bytes_that_are_no_text() -> None:
    """exec: bytes that are no text"""
    process = shared().exec("printf", r"\000\377\200x", text=False)
    equal(process.stdout.read(), b"\x00\xff\x80x")


def test_exec_exit_codes_0_1_42_255() -> None:
    """exec: exit codes 0, 1, 42, 255"""
    for code in (0, 1, 42, 255):
        equal(shared().exec("sh", "-c", f"exit {code}").wait(), code)


def test_exec_death_by_a_signal_is_128_and_the_signal() -> None:
    """exec: death by a signal is 128 and the signal"""
    equal(shared().exec("sh", "-c", "kill -9 $$").wait(), 137)
    equal(shared().exec("sh", "-c", "kill -TERM $$").wait(), 143)


def test_exec_a_program_that_does_not_exist_ends_with_127_and_says_so() -> None:
    """exec: a program that does not exist ends with 127 and says so"""
    process = shared().exec("no-such-program")
    assert "no-such-program" in process.stderr.read()
    equal(process.wait(), 127)


def test_exec_env_and_secrets_the_later_one_wins() -> None:
    """exec: env and secrets, the later one wins"""
    secret = modal.Secret.from_dict({"A": "secret", "B": "secret"})
    process = shared().exec("sh", "-c", "echo $A $B $C", env={"A": "env", "C": "é 'q'"}, secrets=[secret])
    equal(process.stdout.read(), "env secret é 'q'\n")


def test_exec_the_emulator_s_own_environment_stays_outside() -> None:
    """exec: the emulator's own environment stays outside"""
    out, _, _ = sh(shared(), "env")
    for leaked in ("MODAL_TOKEN", "CARGO", "RUST_LOG", "SSH_"):
        assert leaked not in out, out


def test_exec_workdir() -> None:
    """exec: workdir"""
    equal(shared().exec("pwd", workdir="/usr/bin").stdout.read(), "/usr/bin\n")
    equal(shared().exec("pwd").stdout.read(), "/\n")


def test_exec_a_relative_workdir_is_refused() -> None:
    """exec: a relative workdir is refused"""
    raises(modal.exception.InvalidError, shared().exec, "pwd", workdir="tmp")


def test_exec_a_command_that_takes_too_long_is_killed_and_the_client_hears_of_that() -> None:
    """exec: a command that takes too long is killed, and the client hears of that"""
    process = shared().exec("sh", "-c", "echo begun; sleep 60", timeout=1)
    equal(process.stdout.read(), "begun\n")
    equal(process.wait(), 137)
    out, _, _ = sh(shared(), "ps -e -o args= 2>/dev/null || cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "sleep 60" not in out, out


def test_exec_standard_input_then_its_end() -> None:
    """exec: standard input, then its end"""
    process = shared().exec("cat")
    process.stdin.write("one\n")
    process.stdin.write("two\n")
    process.stdin.write_eof()
    process.stdin.drain()
    equal(process.stdout.read(), "one\ntwo\n")
    equal(process.wait(), 0)


def test_exec_a_conversation_line_by_line() -> None:
    """exec: a conversation, line by line"""
    process = shared().exec("sh", "-c", "while read line; do echo got $line; done", bufsize=1)
    lines = iter(process.stdout)
    for word in ("a", "b", "c"):
        process.stdin.write(word + "\n")
        process.stdin.drain()
        equal(next(lines), f"got {word}\n")
    process.stdin.write_eof()
    process.stdin.drain()
    equal(process.wait(), 0)


def test_exec_8_mib_of_input_in_one_write() -> None:
    """exec: 8 MiB of input in one write"""
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


def test_exec_output_is_there_after_the_end_and_for_a_command_nobody_listened_to() -> None:
    """exec: output is there after the end, and for a command nobody listened to"""
    process = shared().exec("sh", "-c", "seq 1 20000; echo e >&2")
    equal(process.wait(), 0)
    equal(process.stdout.read(), "".join(f"{n}\n" for n in range(1, 20001)))
    equal(process.stderr.read(), "e\n")


def test_exec_64_mib_of_output_byte_for_byte() -> None:
    """exec: 64 MiB of output, byte for byte"""
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


def test_exec_output_to_nowhere_does_not_hold_the_command_up() -> None:
    """exec: output to nowhere does not hold the command up"""
    process = shared().exec("sh", "-c", "head -c 4000000 /dev/zero", stdout=StreamType.DEVNULL)
    equal(process.wait(), 0)


def test_exec_a_terminal_is_one_with_its_type_and_carries_stderr_too() -> None:
    """exec: a terminal is one, with its type, and carries stderr too"""
    process = shared().exec("sh", "-c", "test -t 0 && test -t 1 && echo terminal; echo err >&2", pty=True)
    out = process.stdout.read()
    equal(process.wait(), 0)
    equal(out.replace("\r\n", "\n"), "terminal\nerr\n")


def test_exec_what_a_command_leaves_running_does_not_hold_up_its_end() -> None:
    """exec: what a command leaves running does not hold up its end"""
    process = shared().exec("sh", "-c", "sleep 300 & echo done")
    equal(process.stdout.read(), "done\n")
    equal(process.wait(), 0)
    sh(shared(), "pkill sleep -n || true")


def test_exec_50_at_the_same_time() -> None:
    """exec: 50 at the same time"""

    def one(number: Any) -> Any:
        return shared().exec("sh", "-c", f"echo {number}; exit {number}")

    with concurrent.futures.ThreadPoolExecutor(25) as pool:
        processes = list(pool.map(one, range(50)))
        outputs = list(pool.map(lambda p: (p.stdout.read(), p.wait()), processes))
    equal(outputs, [(f"{n}\n", n) for n in range(50)])


def test_exec_more_than_65536_bytes_of_arguments_are_refused() -> None:
    """exec: more than 65536 bytes of arguments are refused"""
    raises(modal.exception.InvalidError, shared().exec, "echo", "x" * 70000)


def test_exec_a_time_limit_ends_the_command_s_children_too() -> None:
    """exec: a time limit ends the command's children, too"""
    with sandbox() as own:
        own.exec("sh", "-c", "sleep 77 & sleep 77", timeout=1).wait()
        out, _, _ = sh(own, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert "sleep 77" not in out, out


def test_exec_processes_of_the_machine_are_invisible() -> None:
    """exec: processes of the machine are invisible"""
    with sandbox() as own:
        out, _, _ = sh(own, "ls -d /proc/[0-9]*")
        assert len(out.split()) < 10, out


def test_exec_50_mb_of_input_in_pieces_byte_for_byte() -> None:
    """exec: 50 MB of input in pieces, byte for byte"""
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


def test_exec_both_streams_full_read_one_after_the_other() -> None:
    """exec: both streams full, read one after the other"""
    script = "for i in 1 2 3 4; do head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; done"
    process = shared().exec("sh", "-c", script, text=False)
    equal((len(process.stderr.read()), len(process.stdout.read()), process.wait()), (4_000_000, 4_000_000, 0))


def test_exec_letters_of_several_bytes_are_not_torn_apart() -> None:
    """exec: letters of several bytes are not torn apart"""
    out, _, _ = sh(shared(), "yes äöü | head -c 700000")
    equal(out, "äöü\n" * 100_000)


def test_exec_the_verdict_on_a_time_limit_is_the_service_s_137_and_there_is_none_when_it_is() -> None:
    """exec: the verdict on a time limit is the service's (137), and there is none when it is kept"""
    process = shared().exec("sh", "-c", "echo partial; exec sleep 60", timeout=1)
    equal(process.stdout.read(), "partial\n")
    equal(process.wait(), 137)
    equal(process.returncode, 137)
    # The client gives up by itself at nearly the same time; then it says -1.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        codes = pool.map(lambda _: shared().exec("sleep", "60", timeout=2).wait(), range(8))
        equal(set(codes), {137})
    equal(shared().exec("true", timeout=60).wait(), 0)


def test_exec_a_workdir_that_does_not_exist_fails_the_command_and_says_so() -> None:
    """exec: a workdir that does not exist fails the command and says so"""
    try:
        process = shared().exec("pwd", workdir="/no/such/directory")
        text, code = process.stderr.read(), process.wait()
    except modal.exception.Error as error:
        text, code = str(error), 1
    assert code != 0 and "/no/such/directory" in text, (text, code)


def test_exec_variables_that_cannot_be_some_are_refused() -> None:
    """exec: variables that cannot be some are refused"""
    for env in ({"A=B": "1"}, {"": "1"}):
        raises(modal.exception.Error, shared().exec, "true", env=env)
