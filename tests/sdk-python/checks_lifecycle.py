"""Apps, sandboxes and what becomes of them."""

from typing import Any
import concurrent.futures
import datetime
import os
import subprocess
import sys
import time

import modal
from harness import app, equal, eventually, fresh, raises, sandbox, sh, shared
from modal import exception


def test_apps_the_same_name_is_the_same_app_an_unknown_one_is_not_found() -> None:
    """apps: the same name is the same app, an unknown one is not found"""
    equal(app().app_id, app().app_id)
    assert app().app_id.startswith("ap-") and len(app().app_id) == 25
    raises(exception.NotFoundError, modal.App.lookup, fresh("missing"))


def test_apps_a_name_with_a_space_is_refused() -> None:
    """apps: a name with a space is refused"""
    raises(exception.InvalidError, modal.App.lookup, "no spaces", create_if_missing=True)


def test_create_ids_of_the_second_backend() -> None:
    """create: ids of the second backend"""
    assert len(shared().object_id) == 29, shared().object_id


def test_create_a_command_its_output_and_its_exit_code() -> None:
    """create: a command, its output and its exit code"""
    with sandbox("sh", "-c", "echo out; echo err >&2; exit 42") as own:
        equal(own.stdout.read(), "out\n")
        equal(own.stderr.read(), "err\n")
        own.wait()
        equal(own.returncode, 42)
        equal(own.poll(), 42)


def test_create_output_can_be_read_after_the_end() -> None:
    """create: output can be read after the end"""
    with sandbox("echo", "late") as own:
        own.wait()
        equal(own.returncode, 0)
        equal(own.stdout.read(), "late\n")


def test_create_input_of_the_command() -> None:
    """create: input of the command"""
    with sandbox("sh", "-c", "read line; echo got $line; cat") as own:
        own.stdin.write("one\n")
        own.stdin.drain()
        own.stdin.write("two\n")
        own.stdin.write_eof()
        own.stdin.drain()
        equal(own.stdout.read(), "got one\ntwo\n")


def test_poll_nothing_while_it_runs() -> None:
    """poll: nothing while it runs"""
    equal(shared().poll(), None)


def test_terminate_137_and_wait_says_so() -> None:
    """terminate: 137, and wait says so"""
    own = modal.Sandbox.create(app=app())
    own.terminate()
    raises(exception.SandboxTerminatedError, modal.Sandbox.from_id(own.object_id).wait)
    other = modal.Sandbox.from_id(own.object_id)
    equal(other.poll(), 137)


def test_terminate_with_wait_it_gives_the_code_twice_is_fine() -> None:
    """terminate: with wait it gives the code; twice is fine"""
    own = modal.Sandbox.create(app=app())
    equal(own.terminate(wait=True), 137)
    modal.Sandbox.from_id(own.object_id).terminate()


def test_exec_in_an_ended_sandbox_it_is_refused() -> None:
    """exec: in an ended sandbox it is refused"""
    own = modal.Sandbox.create("true", app=app())
    own.wait()
    raises(exception.NotFoundError, own.exec, "true")


def test_timeout_a_sandbox_ends_by_itself_with_124() -> None:
    """timeout: a sandbox ends by itself, with 124"""
    own = modal.Sandbox.create(app=app(), timeout=1)
    raises(exception.SandboxTimeoutError, own.wait)
    equal(own.poll(), 124)


def test_idle_timeout_ends_when_nothing_happens_but_not_while_something_does() -> None:
    """idle_timeout: ends when nothing happens, but not while something does"""
    own = modal.Sandbox.create(app=app(), idle_timeout=1, timeout=60)
    began = time.monotonic()
    equal(own.exec("sleep", "2").wait(), 0)
    assert time.monotonic() - began >= 2
    equal(modal.Sandbox.from_id(own.object_id).poll(), None)
    own.wait(raise_on_termination=False)
    assert own.returncode != 0


def test_create_env_secrets_and_order() -> None:
    """create: env, secrets and order"""
    secret = modal.Secret.from_dict({"A": "1", "B": "1"})
    with sandbox("sh", "-c", "echo $A $B $C", secrets=[secret], env={"B": "2", "C": "3"}) as own:
        equal(own.stdout.read(), "1 2 3\n")
    with sandbox(env={"B": "2"}) as own:
        equal(sh(own, "echo $B"), ("2\n", "", 0))


def test_create_workdir_for_the_command_and_for_execs() -> None:
    """create: workdir, for the command and for execs"""
    with sandbox(workdir="/usr/lib") as own:
        equal(sh(own, "pwd")[0], "/usr/lib\n")


def test_create_a_terminal_for_the_command() -> None:
    """create: a terminal for the command"""
    with sandbox("sh", "-c", "test -t 1 && echo yes", pty=True) as own:
        equal(own.stdout.read().strip(), "yes")


def test_names_found_by_name_unique_while_it_lives_free_afterwards() -> None:
    """names: found by name, unique while it lives, free afterwards"""
    name = fresh()
    with sandbox(name=name) as own:
        equal(modal.Sandbox.from_name("sdk-checks", name).object_id, own.object_id)
        raises(exception.AlreadyExistsError, modal.Sandbox.create, app=app(), name=name)
        own.terminate(wait=True)
        with sandbox(name=name) as next_one:
            equal(modal.Sandbox.from_name("sdk-checks", name).object_id, next_one.object_id)
    raises(exception.NotFoundError, modal.Sandbox.from_name, "sdk-checks", fresh())


def test_tags_at_creation_changed_gone() -> None:
    """tags: at creation, changed, gone"""
    with sandbox(tags={"a": "1"}) as own:
        equal(own.get_tags(), {"a": "1"})
        own.set_tags({"b": "2", "c": "3"})
        equal(own.get_tags(), {"b": "2", "c": "3"})
        own.set_tags({})
        equal(own.get_tags(), {})


def test_list_by_app_and_tags_ended_ones_are_not_in_it() -> None:
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


def test_from_id_an_unknown_sandbox_is_not_found() -> None:
    """from_id: an unknown sandbox is not found"""
    raises(exception.NotFoundError, lambda: modal.Sandbox.from_id("sb-01AAAAAAAAAAAAAAAAAAAAAAAA").poll())
    raises(exception.NotFoundError, lambda: modal.Sandbox.from_id("sb-0123456789012345678901").poll())


def test_from_id_another_handle_does_everything() -> None:
    """from_id: another handle does everything"""
    other = modal.Sandbox.from_id(shared().object_id)
    equal(sh(other, "echo hi"), ("hi\n", "", 0))
    other.filesystem.write_text("x", "/tmp/from-id")
    equal(shared().filesystem.read_text("/tmp/from-id"), "x")


def test_readiness_a_command_that_has_to_succeed() -> None:
    """readiness: a command that has to succeed"""
    probe = modal.Probe.with_exec("test", "-e", "/tmp/ready", interval_ms=50)
    with sandbox(readiness_probe=probe) as own:
        raises(exception.TimeoutError, own.wait_until_ready, timeout=1)
        own.filesystem.write_text("", "/tmp/ready")
        own.wait_until_ready(timeout=20)


def test_readiness_a_port_that_has_to_be_listened_on() -> None:
    """readiness: a port that has to be listened on"""
    script = "import socket,time; s=socket.create_server(('127.0.0.1',8123)); time.sleep(60)"
    with sandbox("python3", "-c", script, readiness_probe=modal.Probe.with_tcp(8123, interval_ms=50)) as own:
        own.wait_until_ready(timeout=30)


def test_readiness_without_a_probe_there_is_nothing_to_wait_for() -> None:
    """readiness: without a probe there is nothing to wait for"""
    raises(exception.InvalidError, shared().wait_until_ready, timeout=1)


def test_create_nonsense_is_refused_as_the_service_does() -> None:
    """create: nonsense is refused as the service does"""
    raises(exception.InvalidError, modal.Sandbox.create, app=app(), cloud="nowhere")
    raises(exception.InvalidError, modal.Sandbox.create, app=app(), region="mars-north")
    raises(exception.InvalidError, modal.Sandbox.create, app=app(), outbound_cidr_allowlist=["10.0.0.0/99"], containing="Invalid CIDR")
    raises(exception.InvalidError, modal.Sandbox.create, app=app(), name="no spaces")


def test_credentials_without_them_nothing_is_done() -> None:
    """credentials: without them nothing is done"""
    url = os.environ["MODAL_SERVER_URL"]
    from modal_proto import api_pb2

    # Clients inside containers send no tokens.
    client = modal.Client(url, api_pb2.CLIENT_TYPE_CONTAINER, None)
    with client:
        raises(exception.AuthError, modal.App.lookup, "x", client=client, create_if_missing=True)


def test_credentials_an_oauth_client_instead_of_tokens_not_both() -> None:
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


def test_first_backend_created_for_a_gpu_ids_output_exec_end() -> None:
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


def test_first_backend_terminated_listed_tagged() -> None:
    """first backend: terminated, listed, tagged"""
    own = modal.Sandbox.create(app=app(), gpu="T4", tags={"v": "1"})
    equal(own.get_tags(), {"v": "1"})
    assert own.object_id in {s.object_id for s in modal.Sandbox.list(app_id=app().app_id, tags={"v": "1"})}
    equal(own.terminate(wait=True), 137)


def test_an_entry_point_that_cannot_be_started_is_a_failure() -> None:
    """an entry point that cannot be started is a failure"""
    own = modal.Sandbox.create("no-such-program", app=app())
    own.wait()
    equal(own.returncode, 127)
    assert "no-such-program" in own.stderr.read()


def test_20_sandboxes_at_once_each_by_itself() -> None:
    """20 sandboxes at once, each by itself"""
    made = [modal.Sandbox.create(app=app(), env={"N": str(n)}) for n in range(20)]
    try:
        equal([sh(s, "echo $N")[0] for s in made], [f"{n}\n" for n in range(20)])
    finally:
        for s in made:
            s.terminate()
    eventually(lambda: all(s.poll() == 137 for s in map(modal.Sandbox.from_id, [m.object_id for m in made])))


def test_list_more_sandboxes_than_fit_on_a_page_each_once_newest_first() -> None:
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


def test_list_an_app_without_sandboxes_an_app_that_does_not_exist() -> None:
    """list: an app without sandboxes, an app that does not exist"""
    empty = modal.App.lookup(fresh("app"), create_if_missing=True)
    equal(list(modal.Sandbox.list(app_id=empty.app_id)), [])
    raises(exception.NotFoundError, lambda: list(modal.Sandbox.list(app_id="ap-0000000000000000000000")))


def test_names_given_later_only_once_found_by_the_experimental_forms_too() -> None:
    """names: given later, only once, found by the experimental forms too"""
    name = fresh()
    with sandbox() as own, sandbox() as other:
        own._experimental_set_name(name)
        own._experimental_set_name(name)
        equal(modal.Sandbox._experimental_from_name("sdk-checks", name).object_id, own.object_id)
        raises(exception.ConflictError, own._experimental_set_name, fresh())
        raises(exception.AlreadyExistsError, other._experimental_set_name, name)
        assert own.object_id in {s.object_id for s in modal.Sandbox._experimental_list(app_id=app().app_id)}


def test_names_one_that_has_ended_is_found_if_asked_for() -> None:
    """names: one that has ended is found if asked for"""
    name = fresh()
    with sandbox(name=name) as own:
        own.terminate(wait=True)
    raises(exception.NotFoundError, modal.Sandbox.from_name, "sdk-checks", name)
    found = modal.Sandbox.from_name("sdk-checks", name, include_terminated=True)
    equal((found.object_id, found.poll()), (own.object_id, 137))


def test_detach_the_sandbox_goes_on_without_its_handle() -> None:
    """detach: the sandbox goes on without its handle"""
    own = modal.Sandbox.create(app=app(), timeout=120)
    own_id = own.object_id
    own.detach()
    raises(exception.ClientClosed, own.exec, "true")
    other = modal.Sandbox.from_id(own_id)
    equal(sh(other, "echo on"), ("on\n", "", 0))
    other.terminate()


def test_logs_lines_of_the_command_by_time_stream_and_text_and_the_last_ones() -> None:
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


def test_environments_made_found_with_apps_and_secrets_of_their_own() -> None:
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


def test_readiness_a_sandbox_that_ends_before_it_is_ready() -> None:
    """readiness: a sandbox that ends before it is ready"""
    probe = modal.Probe.with_exec("false", interval_ms=50)
    own = modal.Sandbox.create("sh", "-c", "read x", app=app(), readiness_probe=probe, timeout=1)
    raises(exception.Error, own.wait_until_ready, timeout=30)
