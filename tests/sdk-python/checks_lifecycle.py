"""Apps and sandboxes: creation, lookup, tags, readiness, logs and termination."""

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


def test_apps_the_same_name_is_the_same_app_and_an_unknown_one_is_not_found() -> None:
    """apps: the same name is the same app, and an unknown one is not found"""
    equal(app().app_id, app().app_id)
    assert app().app_id.startswith("ap-") and len(app().app_id) == 25
    raises(exception.NotFoundError, modal.App.lookup, fresh("missing"))


def test_apps_a_name_with_a_space_is_refused() -> None:
    """apps: a name with a space is refused"""
    raises(exception.InvalidError, modal.App.lookup, "no spaces", create_if_missing=True)


def test_create_ids_have_the_format_of_the_v2_backend() -> None:
    """create: ids have the format of the V2 backend"""
    assert len(shared().object_id) == 29, shared().object_id


def test_create_the_output_and_the_exit_code_of_the_command_are_returned() -> None:
    """create: the output and the exit code of the command are returned"""
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


def test_create_the_command_reads_standard_input() -> None:
    """create: the command reads standard input"""
    with sandbox("sh", "-c", "read line; echo got $line; cat") as own:
        own.stdin.write("one\n")
        own.stdin.drain()
        own.stdin.write("two\n")
        own.stdin.write_eof()
        own.stdin.drain()
        equal(own.stdout.read(), "got one\ntwo\n")


def test_poll_returns_none_while_the_sandbox_runs() -> None:
    """poll: returns None while the sandbox runs"""
    equal(shared().poll(), None)


def test_terminate_wait_reports_137() -> None:
    """terminate: wait reports 137"""
    own = modal.Sandbox.create(app=app())
    own.terminate()
    raises(exception.SandboxTerminatedError, modal.Sandbox.from_id(own.object_id).wait)
    other = modal.Sandbox.from_id(own.object_id)
    equal(other.poll(), 137)


def test_terminate_with_wait_it_returns_the_exit_code_and_a_second_call_succeeds() -> None:
    """terminate: with wait it returns the exit code, and a second call succeeds"""
    own = modal.Sandbox.create(app=app())
    equal(own.terminate(wait=True), 137)
    modal.Sandbox.from_id(own.object_id).terminate()


def test_exec_in_an_ended_sandbox_it_is_refused() -> None:
    """exec: in an ended sandbox it is refused"""
    own = modal.Sandbox.create("true", app=app())
    own.wait()
    raises(exception.NotFoundError, own.exec, "true")


def test_timeout_a_sandbox_ends_with_124() -> None:
    """timeout: a sandbox ends with 124"""
    own = modal.Sandbox.create(app=app(), timeout=1)
    raises(exception.SandboxTimeoutError, own.wait)
    equal(own.poll(), 124)


def test_idle_timeout_a_sandbox_ends_when_it_is_idle_but_not_while_a_command_runs() -> None:
    """idle_timeout: a sandbox ends when it is idle, but not while a command runs"""
    own = modal.Sandbox.create(app=app(), idle_timeout=1, timeout=60)
    began = time.monotonic()
    equal(own.exec("sleep", "2").wait(), 0)
    assert time.monotonic() - began >= 2
    equal(modal.Sandbox.from_id(own.object_id).poll(), None)
    own.wait(raise_on_termination=False)
    assert own.returncode != 0


def test_create_env_takes_precedence_over_secrets() -> None:
    """create: env takes precedence over secrets"""
    secret = modal.Secret.from_dict({"A": "1", "B": "1"})
    with sandbox("sh", "-c", "echo $A $B $C", secrets=[secret], env={"B": "2", "C": "3"}) as own:
        equal(own.stdout.read(), "1 2 3\n")
    with sandbox(env={"B": "2"}) as own:
        equal(sh(own, "echo $B"), ("2\n", "", 0))


def test_create_workdir_applies_to_the_command_and_to_execs() -> None:
    """create: workdir applies to the command and to execs"""
    with sandbox(workdir="/usr/lib") as own:
        equal(sh(own, "pwd")[0], "/usr/lib\n")


def test_create_the_command_can_have_a_terminal() -> None:
    """create: the command can have a terminal"""
    with sandbox("sh", "-c", "test -t 1 && echo yes", pty=True) as own:
        equal(own.stdout.read().strip(), "yes")


def test_names_a_sandbox_is_found_by_its_name_which_is_unique_until_the_sandbox_ends() -> None:
    """names: a sandbox is found by its name, which is unique until the sandbox ends"""
    name = fresh()
    with sandbox(name=name) as own:
        equal(modal.Sandbox.from_name("sdk-checks", name).object_id, own.object_id)
        raises(exception.AlreadyExistsError, modal.Sandbox.create, app=app(), name=name)
        own.terminate(wait=True)
        with sandbox(name=name) as next_one:
            equal(modal.Sandbox.from_name("sdk-checks", name).object_id, next_one.object_id)
    raises(exception.NotFoundError, modal.Sandbox.from_name, "sdk-checks", fresh())


def test_tags_tags_are_set_at_creation_changed_and_removed() -> None:
    """tags: tags are set at creation, changed and removed"""
    with sandbox(tags={"a": "1"}) as own:
        equal(own.get_tags(), {"a": "1"})
        own.set_tags({"b": "2", "c": "3"})
        equal(own.get_tags(), {"b": "2", "c": "3"})
        own.set_tags({})
        equal(own.get_tags(), {})


def test_list_sandboxes_are_listed_by_app_and_tags_without_ended_ones() -> None:
    """list: sandboxes are listed by app and tags, without ended ones"""
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


def test_from_id_another_handle_supports_all_operations() -> None:
    """from_id: another handle supports all operations"""
    other = modal.Sandbox.from_id(shared().object_id)
    equal(sh(other, "echo hi"), ("hi\n", "", 0))
    other.filesystem.write_text("x", "/tmp/from-id")
    equal(shared().filesystem.read_text("/tmp/from-id"), "x")


def test_readiness_a_sandbox_is_ready_when_a_command_succeeds() -> None:
    """readiness: a sandbox is ready when a command succeeds"""
    probe = modal.Probe.with_exec("test", "-e", "/tmp/ready", interval_ms=50)
    with sandbox(readiness_probe=probe) as own:
        raises(exception.TimeoutError, own.wait_until_ready, timeout=1)
        own.filesystem.write_text("", "/tmp/ready")
        own.wait_until_ready(timeout=20)


def test_readiness_a_sandbox_is_ready_when_a_port_is_listened_on() -> None:
    """readiness: a sandbox is ready when a port is listened on"""
    script = "import socket,time; s=socket.create_server(('127.0.0.1',8123)); time.sleep(60)"
    with sandbox("python3", "-c", script, readiness_probe=modal.Probe.with_tcp(8123, interval_ms=50)) as own:
        own.wait_until_ready(timeout=30)


def test_readiness_without_a_probe_waiting_is_refused() -> None:
    """readiness: without a probe, waiting is refused"""
    raises(exception.InvalidError, shared().wait_until_ready, timeout=1)


def test_create_invalid_settings_are_refused_as_by_the_service() -> None:
    """create: invalid settings are refused as by the service"""
    raises(exception.InvalidError, modal.Sandbox.create, app=app(), cloud="nowhere")
    raises(exception.InvalidError, modal.Sandbox.create, app=app(), region="mars-north")
    raises(exception.InvalidError, modal.Sandbox.create, app=app(), outbound_cidr_allowlist=["10.0.0.0/99"], containing="Invalid CIDR")
    raises(exception.InvalidError, modal.Sandbox.create, app=app(), name="no spaces")


def test_credentials_calls_without_credentials_are_refused() -> None:
    """credentials: calls without credentials are refused"""
    url = os.environ["MODAL_SERVER_URL"]
    from modal_proto import api_pb2

    # Clients of this type send no tokens, like those inside containers.
    client = modal.Client(url, api_pb2.CLIENT_TYPE_CONTAINER, None)
    with client:
        raises(exception.AuthError, modal.App.lookup, "x", client=client, create_if_missing=True)


def test_credentials_an_oauth_client_replaces_tokens_and_excludes_them() -> None:
    """credentials: an OAuth client replaces tokens and excludes them"""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MODAL_TOKEN_")}
    client = {"MODAL_OAUTH_REFRESH_TOKEN": "rt-x", "MODAL_OAUTH_CLIENT_ID": "c-x", "MODAL_OAUTH_CLIENT_SECRET": "s-x"}
    code = "import modal; print(modal.App.lookup('oauth', create_if_missing=True).app_id)"

    def run(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)

    good = run(plain | client)
    assert good.returncode == 0 and good.stdout.startswith("ap-"), good
    bad = run(plain | {k: v for k, v in client.items() if k != "MODAL_OAUTH_CLIENT_ID"})
    assert bad.returncode != 0, bad


def test_v1_backend_a_sandbox_with_a_gpu_has_an_id_output_execs_and_an_exit_code() -> None:
    """V1 backend: a sandbox with a GPU has an id, output, execs and an exit code"""
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


def test_v1_backend_a_sandbox_is_listed_tagged_and_terminated() -> None:
    """V1 backend: a sandbox is listed, tagged and terminated"""
    own = modal.Sandbox.create(app=app(), gpu="T4", tags={"v": "1"})
    equal(own.get_tags(), {"v": "1"})
    assert own.object_id in {s.object_id for s in modal.Sandbox.list(app_id=app().app_id, tags={"v": "1"})}
    equal(own.terminate(wait=True), 137)


def test_create_a_command_that_cannot_be_started_is_a_failure() -> None:
    """create: a command that cannot be started is a failure"""
    own = modal.Sandbox.create("no-such-program", app=app())
    own.wait()
    equal(own.returncode, 127)
    assert "no-such-program" in own.stderr.read()


def test_create_20_concurrent_sandboxes_are_independent() -> None:
    """create: 20 concurrent sandboxes are independent"""
    made = [modal.Sandbox.create(app=app(), env={"N": str(n)}) for n in range(20)]
    try:
        equal([sh(s, "echo $N")[0] for s in made], [f"{n}\n" for n in range(20)])
    finally:
        for s in made:
            s.terminate()
    eventually(lambda: all(s.poll() == 137 for s in map(modal.Sandbox.from_id, [m.object_id for m in made])))


def test_list_more_sandboxes_than_one_page_holds_are_each_listed_once_newest_first() -> None:
    """list: more sandboxes than one page holds are each listed once, newest first"""
    tag = fresh()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: modal.Sandbox.create(app=app(), tags={"page": tag}), range(105)))
    try:
        found = [one.object_id for one in modal.Sandbox.list(app_id=app().app_id, tags={"page": tag})]
        equal(len(found), 105)
        equal(set(found), {one.object_id for one in made})
        # Ids of the V2 backend sort by the time of creation, in milliseconds.
        times = [one[:13] for one in found]
        equal(times, sorted(times, reverse=True))
    finally:
        for one in made:
            one.terminate()


def test_list_an_app_without_sandboxes_is_empty_and_an_unknown_app_is_an_error() -> None:
    """list: an app without sandboxes is empty, and an unknown app is an error"""
    empty = modal.App.lookup(fresh("app"), create_if_missing=True)
    equal(list(modal.Sandbox.list(app_id=empty.app_id)), [])
    raises(exception.NotFoundError, lambda: list(modal.Sandbox.list(app_id="ap-0000000000000000000000")))


def test_names_a_name_can_be_given_later_only_once_and_is_found_by_the_experimental_api_too() -> None:
    """names: a name can be given later, only once, and is found by the experimental API too"""
    name = fresh()
    with sandbox() as own, sandbox() as other:
        own._experimental_set_name(name)
        own._experimental_set_name(name)
        equal(modal.Sandbox._experimental_from_name("sdk-checks", name).object_id, own.object_id)
        raises(exception.ConflictError, own._experimental_set_name, fresh())
        raises(exception.AlreadyExistsError, other._experimental_set_name, name)
        assert own.object_id in {s.object_id for s in modal.Sandbox._experimental_list(app_id=app().app_id)}


def test_names_an_ended_sandbox_is_found_on_request() -> None:
    """names: an ended sandbox is found on request"""
    name = fresh()
    with sandbox(name=name) as own:
        own.terminate(wait=True)
    raises(exception.NotFoundError, modal.Sandbox.from_name, "sdk-checks", name)
    found = modal.Sandbox.from_name("sdk-checks", name, include_terminated=True)
    equal((found.object_id, found.poll()), (own.object_id, 137))


def test_detach_a_detached_sandbox_continues_to_run() -> None:
    """detach: a detached sandbox continues to run"""
    own = modal.Sandbox.create(app=app(), timeout=120)
    own_id = own.object_id
    own.detach()
    raises(exception.ClientClosed, own.exec, "true")
    other = modal.Sandbox.from_id(own_id)
    equal(sh(other, "echo on"), ("on\n", "", 0))
    other.terminate()


def test_logs_the_lines_of_the_command_are_filtered_by_time_stream_and_text() -> None:
    """logs: the lines of the command are filtered by time, stream and text"""
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


def test_environments_an_environment_has_its_own_apps_and_secrets() -> None:
    """environments: an environment has its own apps and secrets"""
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


def test_readiness_a_sandbox_that_ends_before_it_is_ready_is_an_error() -> None:
    """readiness: a sandbox that ends before it is ready is an error"""
    probe = modal.Probe.with_exec("false", interval_ms=50)
    own = modal.Sandbox.create("sh", "-c", "read x", app=app(), readiness_probe=probe, timeout=1)
    raises(exception.Error, own.wait_until_ready, timeout=30)
