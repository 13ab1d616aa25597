"""Apps, sandboxes and what becomes of them."""

from typing import Any
import concurrent.futures
import datetime
import os
import subprocess
import sys
import time

import modal
from harness import app, check, equal, eventually, fresh, raises, sandbox, sh, shared
from modal import exception


@check
def app_lookup() -> None:
    """apps: the same name is the same app, an unknown one is not found"""
    equal(app().app_id, app().app_id)
    assert app().app_id.startswith("ap-") and len(app().app_id) == 25
    raises(exception.NotFoundError, modal.App.lookup, fresh("missing"))


@check
def bad_names() -> None:
    """apps: a name with a space is refused"""
    raises(exception.InvalidError, modal.App.lookup, "no spaces", create_if_missing=True)


@check
def v2_shape() -> None:
    """create: ids of the second backend"""
    assert len(shared().object_id) == 29, shared().object_id


@check
def entry_point() -> None:
    """create: a command, its output and its exit code"""
    with sandbox("sh", "-c", "echo out; echo err >&2; exit 42") as own:
        equal(own.stdout.read(), "out\n")
        equal(own.stderr.read(), "err\n")
        own.wait()
        equal(own.returncode, 42)
        equal(own.poll(), 42)


@check
def entry_point_after_end() -> None:
    """create: output can be read after the end"""
    with sandbox("echo", "late") as own:
        own.wait()
        equal(own.returncode, 0)
        equal(own.stdout.read(), "late\n")


@check
def entry_point_input() -> None:
    """create: input of the command"""
    with sandbox("sh", "-c", "read line; echo got $line; cat") as own:
        own.stdin.write("one\n")
        own.stdin.drain()
        own.stdin.write("two\n")
        own.stdin.write_eof()
        own.stdin.drain()
        equal(own.stdout.read(), "got one\ntwo\n")


@check
def poll_while_running() -> None:
    """poll: nothing while it runs"""
    equal(shared().poll(), None)


@check
def terminate() -> None:
    """terminate: 137, and wait says so"""
    own = modal.Sandbox.create(app=app())
    own.terminate()
    raises(exception.SandboxTerminatedError, modal.Sandbox.from_id(own.object_id).wait)
    other = modal.Sandbox.from_id(own.object_id)
    equal(other.poll(), 137)


@check
def terminate_and_wait() -> None:
    """terminate: with wait it gives the code; twice is fine"""
    own = modal.Sandbox.create(app=app())
    equal(own.terminate(wait=True), 137)
    modal.Sandbox.from_id(own.object_id).terminate()


@check
def exec_after_end() -> None:
    """exec: in an ended sandbox it is refused"""
    own = modal.Sandbox.create("true", app=app())
    own.wait()
    raises(exception.NotFoundError, own.exec, "true")


@check
def lifetime() -> None:
    """timeout: a sandbox ends by itself, with 124"""
    own = modal.Sandbox.create(app=app(), timeout=1)
    raises(exception.SandboxTimeoutError, own.wait)
    equal(own.poll(), 124)


@check
def idle_timeout() -> None:
    """idle_timeout: ends when nothing happens, but not while something does"""
    own = modal.Sandbox.create(app=app(), idle_timeout=1, timeout=60)
    began = time.monotonic()
    equal(own.exec("sleep", "2").wait(), 0)
    assert time.monotonic() - began >= 2
    equal(modal.Sandbox.from_id(own.object_id).poll(), None)
    own.wait(raise_on_termination=False)
    assert own.returncode != 0


@check
def environment() -> None:
    """create: env, secrets and order"""
    secret = modal.Secret.from_dict({"A": "1", "B": "1"})
    with sandbox("sh", "-c", "echo $A $B $C", secrets=[secret], env={"B": "2", "C": "3"}) as own:
        equal(own.stdout.read(), "1 2 3\n")
    with sandbox(env={"B": "2"}) as own:
        equal(sh(own, "echo $B"), ("2\n", "", 0))


@check
def workdir() -> None:
    """create: workdir, for the command and for execs"""
    with sandbox(workdir="/usr/lib") as own:
        equal(sh(own, "pwd")[0], "/usr/lib\n")


@check
def pty_entry_point() -> None:
    """create: a terminal for the command"""
    with sandbox("sh", "-c", "test -t 1 && echo yes", pty=True) as own:
        equal(own.stdout.read().strip(), "yes")


@check
def names() -> None:
    """names: found by name, unique while it lives, free afterwards"""
    name = fresh()
    with sandbox(name=name) as own:
        equal(modal.Sandbox.from_name("sdk-checks", name).object_id, own.object_id)
        raises(exception.AlreadyExistsError, modal.Sandbox.create, app=app(), name=name)
        own.terminate(wait=True)
        with sandbox(name=name) as next_one:
            equal(modal.Sandbox.from_name("sdk-checks", name).object_id, next_one.object_id)
    raises(exception.NotFoundError, modal.Sandbox.from_name, "sdk-checks", fresh())


@check
def tags() -> None:
    """tags: at creation, changed, gone"""
    with sandbox(tags={"a": "1"}) as own:
        equal(own.get_tags(), {"a": "1"})
        own.set_tags({"b": "2", "c": "3"})
        equal(own.get_tags(), {"b": "2", "c": "3"})
        own.set_tags({})
        equal(own.get_tags(), {})


@check
def listing() -> None:
    """list: by app and tags; ended ones are not in it"""
    tag = fresh()
    with sandbox(tags={"k": tag}) as one, sandbox(tags={"k": tag, "more": "x"}) as two, sandbox():
        found = {s.object_id for s in modal.Sandbox.list(app_id=app().app_id, tags={"k": tag})}
        equal(found, {one.object_id, two.object_id})
        found = {s.object_id for s in modal.Sandbox.list(app_id=app().app_id, tags={"k": tag, "more": "x"})}
        equal(found, {two.object_id})
        one.terminate(wait=True)
        found = {s.object_id for s in modal.Sandbox.list(app_id=app().app_id, tags={"k": tag})}
        equal(found, {two.object_id})


@check
def unknown_ids() -> None:
    """from_id: an unknown sandbox is not found"""
    raises(exception.NotFoundError, lambda: modal.Sandbox.from_id("sb-01AAAAAAAAAAAAAAAAAAAAAAAA").poll())
    raises(exception.NotFoundError, lambda: modal.Sandbox.from_id("sb-0123456789012345678901").poll())


@check
def from_id() -> None:
    """from_id: another handle does everything"""
    other = modal.Sandbox.from_id(shared().object_id)
    equal(sh(other, "echo hi"), ("hi\n", "", 0))
    other.filesystem.write_text("x", "/tmp/from-id")
    equal(shared().filesystem.read_text("/tmp/from-id"), "x")


@check
def readiness_by_command() -> None:
    """readiness: a command that has to succeed"""
    probe = modal.Probe.with_exec("test", "-e", "/tmp/ready", interval_ms=50)
    with sandbox(readiness_probe=probe) as own:
        raises(exception.TimeoutError, own.wait_until_ready, timeout=1)
        own.filesystem.write_text("", "/tmp/ready")
        own.wait_until_ready(timeout=20)


@check
def readiness_by_port() -> None:
    """readiness: a port that has to be listened on"""
    script = "import socket,time; s=socket.create_server(('127.0.0.1',8123)); time.sleep(60)"
    with sandbox("python3", "-c", script, readiness_probe=modal.Probe.with_tcp(8123, interval_ms=50)) as own:
        own.wait_until_ready(timeout=30)


@check
def readiness_not_configured() -> None:
    """readiness: without a probe there is nothing to wait for"""
    raises(exception.InvalidError, shared().wait_until_ready, timeout=1)


@check
def validation() -> None:
    """create: nonsense is refused as the service does"""
    raises(exception.InvalidError, modal.Sandbox.create, app=app(), cloud="nowhere")
    raises(exception.InvalidError, modal.Sandbox.create, app=app(), region="mars-north")
    raises(exception.InvalidError, modal.Sandbox.create, app=app(), outbound_cidr_allowlist=["10.0.0.0/99"], containing="Invalid CIDR")
    raises(exception.InvalidError, modal.Sandbox.create, app=app(), name="no spaces")


@check
def credentials() -> None:
    """credentials: without them nothing is done"""
    url = os.environ["MODAL_SERVER_URL"]
    from modal_proto import api_pb2

    # Clients inside containers send no tokens.
    client = modal.Client(url, api_pb2.CLIENT_TYPE_CONTAINER, None)
    with client:
        raises(exception.AuthError, modal.App.lookup, "x", client=client, create_if_missing=True)


@check
def oauth() -> None:
    """credentials: an OAuth client instead of tokens, not both"""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MODAL_TOKEN_")}
    client = {"MODAL_OAUTH_REFRESH_TOKEN": "rt-x", "MODAL_OAUTH_CLIENT_ID": "c-x", "MODAL_OAUTH_CLIENT_SECRET": "s-x"}
    code = "import modal; print(modal.App.lookup('oauth', create_if_missing=True).app_id)"

    def run(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)

    good = run(plain | client)
    assert good.returncode == 0 and good.stdout.startswith("ap-"), good
    bad = run(plain | {k: v for k, v in client.items() if k != "MODAL_OAUTH_CLIENT_ID"})
    assert bad.returncode != 0, bad


@check
def v1_backend() -> None:
    """first backend: created for a GPU; ids, output, exec, end"""
    own = modal.Sandbox.create("sh", "-c", "echo v1; read x; echo $x; exit 5", app=app(), gpu="T4", env={"V": "1"})
    assert len(own.object_id) == 25, own.object_id
    equal(sh(own, "echo $V"), ("1\n", "", 0))
    own.filesystem.write_text("x", "/tmp/v1")
    equal(own.filesystem.read_text("/tmp/v1"), "x")
    own.stdin.write("typed\n")
    own.stdin.drain()
    equal(own.stdout.read(), "v1\ntyped\n")
    own.wait()
    equal(own.returncode, 5)
    equal(own.get_tags(), {})


@check
def v1_terminate() -> None:
    """first backend: terminated, listed, tagged"""
    own = modal.Sandbox.create(app=app(), gpu="T4", tags={"v": "1"})
    equal(own.get_tags(), {"v": "1"})
    assert own.object_id in {s.object_id for s in modal.Sandbox.list(app_id=app().app_id, tags={"v": "1"})}
    equal(own.terminate(wait=True), 137)


@check
def entry_point_dies() -> None:
    """an entry point that cannot be started is a failure"""
    own = modal.Sandbox.create("no-such-program", app=app())
    own.wait()
    equal(own.returncode, 127)
    assert "no-such-program" in own.stderr.read()


@check
def twenty_of_them() -> None:
    """20 sandboxes at once, each by itself"""
    made = [modal.Sandbox.create(app=app(), env={"N": str(n)}) for n in range(20)]
    try:
        equal([sh(s, "echo $N")[0] for s in made], [f"{n}\n" for n in range(20)])
    finally:
        for s in made:
            s.terminate()
    eventually(lambda: all(s.poll() == 137 for s in map(modal.Sandbox.from_id, [m.object_id for m in made])))


@check
def more_than_a_page() -> None:
    """list: more sandboxes than fit on a page, each once, newest first"""
    tag = fresh()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: modal.Sandbox.create(app=app(), tags={"page": tag}), range(105)))
    try:
        found = [one.object_id for one in modal.Sandbox.list(app_id=app().app_id, tags={"page": tag})]
        equal(len(found), 105)
        equal(set(found), {one.object_id for one in made})
        # Ids of the second backend sort by time of creation, to the millisecond.
        times = [one[:13] for one in found]
        equal(times, sorted(times, reverse=True))
    finally:
        for one in made:
            one.terminate()


@check
def list_of_nothing() -> None:
    """list: an app without sandboxes, an app that does not exist"""
    empty = modal.App.lookup(fresh("app"), create_if_missing=True)
    equal(list(modal.Sandbox.list(app_id=empty.app_id)), [])
    raises(exception.NotFoundError, lambda: list(modal.Sandbox.list(app_id="ap-0000000000000000000000")))


@check
def named_later() -> None:
    """names: given later, only once, found by the experimental forms too"""
    name = fresh()
    with sandbox() as own, sandbox() as other:
        own._experimental_set_name(name)
        own._experimental_set_name(name)
        equal(modal.Sandbox._experimental_from_name("sdk-checks", name).object_id, own.object_id)
        raises(exception.ConflictError, own._experimental_set_name, fresh())
        raises(exception.AlreadyExistsError, other._experimental_set_name, name)
        assert own.object_id in {s.object_id for s in modal.Sandbox._experimental_list(app_id=app().app_id)}


@check
def ended_by_name() -> None:
    """names: one that has ended is found if asked for"""
    name = fresh()
    with sandbox(name=name) as own:
        own.terminate(wait=True)
    raises(exception.NotFoundError, modal.Sandbox.from_name, "sdk-checks", name)
    found = modal.Sandbox.from_name("sdk-checks", name, include_terminated=True)
    equal((found.object_id, found.poll()), (own.object_id, 137))


@check
def detached() -> None:
    """detach: the sandbox goes on without its handle"""
    own = modal.Sandbox.create(app=app(), timeout=120)
    own_id = own.object_id
    own.detach()
    raises(exception.ClientClosed, own.exec, "true")
    other = modal.Sandbox.from_id(own_id)
    equal(sh(other, "echo on"), ("on\n", "", 0))
    other.terminate()


@check
def kept_logs() -> None:
    """logs: lines of the command by time, stream and text, and the last ones"""
    with sandbox("sh", "-c", "echo one; echo two >&2; echo three") as own:
        own.wait()
        now = datetime.datetime.now(datetime.timezone.utc)
        since = now - datetime.timedelta(hours=1)

        def lines(entries: Any) -> list[tuple[str, str]]:
            return sorted((entry.source, entry.message) for entry in entries)

        out = [("stdout", "one\n"), ("stdout", "three\n")]
        equal(lines(own.logs.fetch(since=since)), [("stderr", "two\n"), *out])
        equal(lines(own.logs.fetch(since=since, source="stdout")), out)
        equal(lines(own.logs.fetch(since=since, search_text="thr")), out[1:])
        equal(lines(own.logs.fetch(since=since, until=since + datetime.timedelta(minutes=1))), [])
        equal(lines(own.logs.tail(1, source="stdout")), out[1:])


@check
def environments() -> None:
    """environments: made, found, with apps and secrets of their own"""
    name = fresh("env")
    raises(exception.NotFoundError, modal.Environment.from_name(name).hydrate)
    made = modal.Environment.from_name(name, create_if_missing=True).hydrate()
    assert made.object_id.startswith("en-"), made.object_id
    inside = modal.App.lookup("sdk-checks", environment_name=name, create_if_missing=True)
    assert inside.app_id != app().app_id
    assert name in {one.name for one in modal.Environment.objects.list()}
    with sandbox(app=inside) as own:
        equal(sh(own, "echo inside")[0], "inside\n")
        equal([s.object_id for s in modal.Sandbox.list(app_id=inside.app_id)], [own.object_id])


@check
def second_probe() -> None:
    """readiness: a sandbox that ends before it is ready"""
    probe = modal.Probe.with_exec("false", interval_ms=50)
    own = modal.Sandbox.create("sh", "-c", "read x", app=app(), readiness_probe=probe, timeout=1)
    raises(exception.Error, own.wait_until_ready, timeout=30)
