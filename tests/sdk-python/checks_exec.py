"""Commands: arguments, streams, input, ends."""

from typing import Any
import concurrent.futures
import hashlib

import modal
from harness import check, equal, raises, sandbox, sh, shared
from modal.stream_type import StreamType


@check
def streams_apart() -> None:
    """exec: stdout, stderr and exit code"""
    equal(sh(shared(), "echo out; echo err >&2; exit 7"), ("out\n", "err\n", 7))


@check
def argv_as_given() -> None:
    """exec: arguments arrive as they are, without a shell"""
    process = shared().exec("printf", "%s|", "a b", "", "$HOME", "*", "é\n")
    equal(process.stdout.read(), "a b||$HOME|*|é\n|")
    equal(process.wait(), 0)


@check
def bytes_arrive() -> None:
    """exec: bytes that are no text"""
    process = shared().exec("printf", r"\000\377\200x", text=False)
    equal(process.stdout.read(), b"\x00\xff\x80x")


@check
def codes() -> None:
    """exec: exit codes 0, 1, 42, 255"""
    for code in (0, 1, 42, 255):
        equal(shared().exec("sh", "-c", f"exit {code}").wait(), code)


@check
def death_by_signal() -> None:
    """exec: death by a signal is 128 and the signal"""
    equal(shared().exec("sh", "-c", "kill -9 $$").wait(), 137)
    equal(shared().exec("sh", "-c", "kill -TERM $$").wait(), 143)


@check
def missing_program() -> None:
    """exec: a program that does not exist ends with 127 and says so"""
    process = shared().exec("no-such-program")
    assert "no-such-program" in process.stderr.read()
    equal(process.wait(), 127)


@check
def environment() -> None:
    """exec: env and secrets, the later one wins"""
    secret = modal.Secret.from_dict({"A": "secret", "B": "secret"})
    process = shared().exec("sh", "-c", "echo $A $B $C", env={"A": "env", "C": "é 'q'"}, secrets=[secret])
    equal(process.stdout.read(), "env secret é 'q'\n")


@check
def nothing_inherited() -> None:
    """exec: the emulator's own environment stays outside"""
    out, _, _ = sh(shared(), "env")
    for leaked in ("MODAL_TOKEN", "CARGO", "RUST_LOG", "SSH_"):
        assert leaked not in out, out


@check
def workdir() -> None:
    """exec: workdir"""
    equal(shared().exec("pwd", workdir="/usr/bin").stdout.read(), "/usr/bin\n")
    equal(shared().exec("pwd").stdout.read(), "/\n")


@check
def relative_workdir() -> None:
    """exec: a relative workdir is refused"""
    raises(modal.exception.InvalidError, shared().exec, "pwd", workdir="tmp")


@check
def time_limit() -> None:
    """exec: a command that takes too long is killed, and the client hears of that"""
    process = shared().exec("sh", "-c", "echo begun; sleep 60", timeout=1)
    equal(process.stdout.read(), "begun\n")
    equal(process.wait(), 137)
    out, _, _ = sh(shared(), "ps -e -o args= 2>/dev/null || cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "sleep 60" not in out, out


@check
def standard_input() -> None:
    """exec: standard input, then its end"""
    process = shared().exec("cat")
    process.stdin.write("one\n")
    process.stdin.write("two\n")
    process.stdin.write_eof()
    process.stdin.drain()
    equal(process.stdout.read(), "one\ntwo\n")
    equal(process.wait(), 0)


@check
def conversation() -> None:
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


@check
def much_input() -> None:
    """exec: 8 MiB of input in one write"""
    data = bytes(range(256)) * 32768
    process = shared().exec("sha256sum", text=False)
    process.stdin.write(data)
    process.stdin.write_eof()
    process.stdin.drain()
    equal(process.stdout.read().split()[0].decode(), hashlib.sha256(data).hexdigest())


@check
def input_to_the_dead() -> None:
    """exec: input to a command that has ended is refused"""
    process = shared().exec("true")
    process.wait()
    process.stdin.write("late\n")
    raises(modal.exception.Error, process.stdin.drain)


@check
def output_after_the_end() -> None:
    """exec: output is there after the end, and for a command nobody listened to"""
    process = shared().exec("sh", "-c", "seq 1 20000; echo e >&2")
    equal(process.wait(), 0)
    equal(process.stdout.read(), "".join(f"{n}\n" for n in range(1, 20001)))
    equal(process.stderr.read(), "e\n")


@check
def much_output() -> None:
    """exec: 64 MiB of output, byte for byte"""
    process = shared().exec("sh", "-c", "head -c 67108864 /dev/zero | tr '\\0' x", text=False)
    digest = hashlib.sha256()
    for piece in process.stdout:
        digest.update(piece)
    equal(digest.hexdigest(), hashlib.sha256(b"x" * 67108864).hexdigest())


@check
def output_while_running() -> None:
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


@check
def thrown_away() -> None:
    """exec: output to nowhere does not hold the command up"""
    process = shared().exec("sh", "-c", "head -c 4000000 /dev/zero", stdout=StreamType.DEVNULL)
    equal(process.wait(), 0)


@check
def terminal() -> None:
    """exec: a terminal is one, with its type, and carries stderr too"""
    process = shared().exec("sh", "-c", "test -t 0 && test -t 1 && echo terminal; echo err >&2", pty=True)
    out = process.stdout.read()
    equal(process.wait(), 0)
    equal(out.replace("\r\n", "\n"), "terminal\nerr\n")


@check
def background() -> None:
    """exec: what a command leaves running does not hold up its end"""
    process = shared().exec("sh", "-c", "sleep 300 & echo done")
    equal(process.stdout.read(), "done\n")
    equal(process.wait(), 0)
    sh(shared(), "pkill sleep -n || true")


@check
def many_at_once() -> None:
    """exec: 50 at the same time"""

    def one(number: Any) -> Any:
        return shared().exec("sh", "-c", f"echo {number}; exit {number}")

    with concurrent.futures.ThreadPoolExecutor(25) as pool:
        processes = list(pool.map(one, range(50)))
        outputs = list(pool.map(lambda p: (p.stdout.read(), p.wait()), processes))
    equal(outputs, [(f"{n}\n", n) for n in range(50)])


@check
def too_many_arguments() -> None:
    """exec: more than 65536 bytes of arguments are refused"""
    raises(modal.exception.InvalidError, shared().exec, "echo", "x" * 70000)


@check
def process_group() -> None:
    """exec: a time limit ends the command's children, too"""
    with sandbox() as own:
        own.exec("sh", "-c", "sleep 77 & sleep 77", timeout=1).wait()
        out, _, _ = sh(own, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert "sleep 77" not in out, out


@check
def own_process_table() -> None:
    """exec: processes of the machine are invisible"""
    with sandbox() as own:
        out, _, _ = sh(own, "ls -d /proc/[0-9]*")
        assert len(out.split()) < 10, out


@check
def fifty_megabytes_of_input() -> None:
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


@check
def both_streams_full() -> None:
    """exec: both streams full, read one after the other"""
    script = "for i in 1 2 3 4; do head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; done"
    process = shared().exec("sh", "-c", script, text=False)
    equal((len(process.stderr.read()), len(process.stdout.read()), process.wait()), (4_000_000, 4_000_000, 0))


@check
def letters_in_pieces() -> None:
    """exec: letters of several bytes are not torn apart"""
    out, _, _ = sh(shared(), "yes äöü | head -c 700000")
    equal(out, "äöü\n" * 100_000)


@check
def codes_of_time_limits() -> None:
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


@check
def missing_workdir() -> None:
    """exec: a workdir that does not exist fails the command and says so"""
    try:
        process = shared().exec("pwd", workdir="/no/such/directory")
        text, code = process.stderr.read(), process.wait()
    except modal.exception.Error as error:
        text, code = str(error), 1
    assert code != 0 and "/no/such/directory" in text, (text, code)


@check
def refused_variables() -> None:
    """exec: variables that cannot be some are refused"""
    for env in ({"A=B": "1"}, {"": "1"}):
        raises(modal.exception.Error, shared().exec, "true", env=env)
