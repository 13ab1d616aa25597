"""The behaviour of the SDK with faults, which the checks order through the control endpoint of the emulator."""

from typing import Any
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import modal
from harness import app, equal, eventually, raises, sandbox, sh
from modal import exception


def order(path: Any, body: Any = None, method: Any = "POST") -> Any:
    request = urllib.request.Request(
        f"{os.environ['MODAL_SERVER_URL']}/emulator/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def faults(*rules: Any) -> Any:
    """Adds fault rules for the duration of a block."""

    class Ordered:
        def __enter__(self) -> Any:
            order("faults", list(rules))
            return self

        def __exit__(self, *_: Any) -> None:
            self.applied = [entry["applied"] for entry in order("faults", method="GET")]
            order("faults", method="DELETE")

    return Ordered()


def status(code: Any, **more: Any) -> Any:
    return {"status": {"code": code, **more}}


def test_chaos_unavailable_is_retried_without_an_error() -> None:
    """chaos: UNAVAILABLE is retried without an error"""
    with faults({"method": "AppGetOrCreate", "times": 2, "fault": status(14)}) as _:
        assert app().app_id


def test_chaos_permission_denied_arrives_with_its_message() -> None:
    """chaos: PERMISSION_DENIED arrives with its message"""
    with faults({"method": "SandboxCreateV2", "times": 1, "fault": status(7, message="not you")}):
        raises(exception.PermissionDeniedError, modal.Sandbox.create, app=app(), containing="not you")


def test_chaos_the_client_waits_as_long_as_the_server_asks() -> None:
    """chaos: the client waits as long as the server asks"""
    with faults({"method": "AppGetOrCreate", "times": 1, "fault": status(8, retry_after_secs=0.5)}):
        began = time.monotonic()
        app()
        assert time.monotonic() - began >= 0.5


def test_chaos_a_lost_answer_creates_no_second_sandbox() -> None:
    """chaos: a lost answer creates no second sandbox"""
    tag = str(time.time())
    with faults({"method": "SandboxCreateV2", "times": 1, "fault": {"lose_answer": {"code": 14}}}):
        with sandbox(tags={"lost": tag}) as own:
            equal([s.object_id for s in modal.Sandbox.list(app_id=app().app_id, tags={"lost": tag})], [own.object_id])


def test_chaos_output_that_is_cut_off_repeatedly_arrives_complete() -> None:
    """chaos: output that is cut off repeatedly arrives complete"""
    with sandbox() as own:
        with faults({"method": "TaskExecStdioRead", "times": 8, "fault": {"cut": {"after_bytes": 50000}}}) as ordered:
            equal(sh(own, "seq 1 80000")[0], "".join(f"{n}\n" for n in range(1, 80001)))
        del ordered


def test_chaos_an_upload_that_is_cut_off_is_resumed() -> None:
    """chaos: an upload that is cut off is resumed"""
    with sandbox() as own:
        data = os.urandom(3 << 20)
        with faults({"method": "TaskExecStdinWriteStream", "times": 2, "fault": {"cut_request": {"after_bytes": 700000}}}):
            own.filesystem.write_bytes(data, "/tmp/cut")
        assert own.filesystem.read_bytes("/tmp/cut") == data


def test_chaos_a_closed_connection_is_opened_again() -> None:
    """chaos: a closed connection is opened again"""
    with sandbox() as own:
        with faults({"method": "TaskExecStart", "times": 1, "fault": "close"}):
            equal(sh(own, "echo hi"), ("hi\n", "", 0))


def test_chaos_goaway_causes_no_error() -> None:
    """chaos: GOAWAY causes no error"""
    with sandbox() as own:
        with faults({"method": "TaskExecStart", "times": 3, "fault": "goaway"}):
            for _ in range(4):
                equal(sh(own, "echo hi"), ("hi\n", "", 0))


def test_chaos_delays_cause_no_error() -> None:
    """chaos: delays cause no error"""
    with sandbox() as own:
        with faults({"method": "TaskExec*", "fault": {"delay": {"millis": 100, "jitter_millis": 50}}}):
            began = time.monotonic()
            equal(sh(own, "echo hi"), ("hi\n", "", 0))
            assert time.monotonic() - began >= 0.3


def test_chaos_the_client_waits_when_the_creation_rate_is_exceeded() -> None:
    """chaos: the client waits when the creation rate is exceeded"""
    with faults({"method": "SandboxCreateV2", "fault": {"rate": {"per_second": 2}}}):
        began = time.monotonic()
        made = [modal.Sandbox.create(app=app()) for _ in range(4)]
        assert time.monotonic() - began >= 0.5
    for one in made:
        one.terminate()


def test_chaos_a_refused_router_token_is_renewed() -> None:
    """chaos: a refused router token is renewed"""
    with sandbox() as own:
        equal(sh(own, "echo hi")[0], "hi\n")
        with faults({"method": "TaskExecStart", "times": 1, "fault": status(16)}):
            equal(sh(own, "echo hi")[0], "hi\n")


def test_chaos_a_router_token_with_a_lifetime_of_one_second_is_renewed() -> None:
    """chaos: a router token with a lifetime of one second is renewed"""
    rules = [{"method": method, "fault": {"token_life": {"seconds": 1}}} for method in ("SandboxCreateV2", "SandboxGetCommandRouterAccess")]
    with faults(*rules) as ordered, sandbox() as own:
        equal(sh(own, "echo hi")[0], "hi\n")
        # The token must expire, so the check has to wait.
        time.sleep(1.1)
        equal(sh(own, "echo hi")[0], "hi\n")
    made, fetched = ordered.applied
    assert made == 1 and fetched >= 1, ordered.applied


def test_chaos_a_control_plane_token_with_a_lifetime_of_one_second_is_renewed() -> None:
    """chaos: a control-plane token with a lifetime of one second is renewed"""
    with faults({"method": "AuthTokenGet", "fault": {"token_life": {"seconds": 1}}}) as ordered:
        client = modal.Client.from_credentials("ak-short", "as-short")
        own = modal.Sandbox.create(app=app(), client=client)
        time.sleep(1.1)
        equal(own.poll(), None)
        own.terminate()
    assert ordered.applied[0] >= 2, ordered.applied


def test_chaos_refused_router_tokens_that_expire_soon_are_renewed() -> None:
    """chaos: refused router tokens that expire soon are renewed"""
    life = {"method": "SandboxCreateV2", "times": 1, "fault": {"token_life": {"seconds": 20}}}
    with faults(life, {"method": "TaskExecStart", "skip": 1, "times": 1, "fault": "expire_token"}) as ordered, sandbox() as own:
        for _ in range(3):
            equal(sh(own, "echo hi")[0], "hi\n")
    equal(ordered.applied, [1, 1])


def test_chaos_refused_router_tokens_that_do_not_expire_soon_are_not_renewed() -> None:
    """chaos: refused router tokens that do not expire soon are not renewed"""
    with sandbox() as own, sandbox() as other:
        equal(sh(own, "echo hi")[0], "hi\n")
        with faults({"method": "TaskExecStart", "times": 1, "fault": "expire_token"}):
            raises(exception.AuthError, own.exec, "true", containing="expired")
        raises(exception.AuthError, own.exec, "true", containing="expired")
        equal(sh(other, "echo hi")[0], "hi\n")
        equal(sh(modal.Sandbox.from_id(own.object_id), "echo hi")[0], "hi\n")


def test_chaos_control_plane_tokens_that_are_refused_before_they_expire_are_an_error() -> None:
    """chaos: control-plane tokens that are refused before they expire are an error"""
    client = modal.Client.from_credentials("ak-expired", "as-expired")
    own = modal.Sandbox.create(app=app(), client=client)
    with faults({"method": "SandboxWaitV2", "times": 1, "fault": "expire_token"}):
        raises(exception.AuthError, own.poll, containing="expired")
    fresh = modal.Client.from_credentials("ak-expired", "as-expired")
    modal.Sandbox.from_id(own.object_id, client=fresh).terminate()


def test_chaos_a_sandbox_with_a_full_disk_does_not_affect_others() -> None:
    """chaos: a sandbox with a full disk does not affect others"""
    with faults({"method": "SandboxCreateV2", "times": 1, "fault": {"disk": {"mib": 8}}}):
        full = modal.Sandbox.create(app=app(), timeout=120)
    out, err, code = sh(full, "dd if=/dev/zero of=/fill bs=64k; stat -c %s /fill; touch /usr/one/more")
    assert "No space left on device" in err and code != 0, (err, code)
    assert (7 << 20) < int(out) <= (8 << 20), out
    raises(exception.SandboxFilesystemError, full.filesystem.write_bytes, b"x" * 4096, "/tmp/more", containing="no space")
    # Other operations continue, and a removal frees space.
    equal(sh(full, "rm /fill && echo kept > /usr/kept && df -m / | tail -1 | awk '{print $2}'"), ("8\n", "", 0))
    # Many small files fill a disk as well.
    out, _, _ = sh(full, "mkdir /many; i=0; while true > /many/$i; do i=$((i+1)); done 2>/dev/null; echo $i; rm -r /many")
    assert 1024 < int(out) < 8192, out
    with sandbox(image=full.snapshot_filesystem()) as other:
        equal(sh(other, "cat /usr/kept; dd if=/dev/zero of=/fill bs=1M count=16 2>/dev/null; stat -c %s /fill")[0], "kept\n16777216\n")
    full.terminate()


def test_chaos_a_sidecar_and_its_mounts_have_a_disk_limit() -> None:
    """chaos: a sidecar and its mounts have a disk limit"""
    with sandbox() as own:
        with faults({"method": "SandboxContainerCreateV2", "times": 1, "fault": {"disk": {"mib": 1}}}):
            image = modal.Image.debian_slim().build(app())
            side = own._experimental_sidecars.create("sleep", "60", name="s", image=image)
        side.mount_image("/m", modal.Image.from_scratch())
        for place in ("/", "/m"):
            process = side.exec("sh", "-c", f"cd {place}; dd if=/dev/zero of=fill bs=1M count=2")
            assert "No space left on device" in process.stderr.read(), place
            assert process.wait() != 0
        equal(sh(own, "dd if=/dev/zero of=/fill bs=1M count=2 2>/dev/null; stat -c %s /fill")[0], "2097152\n")


def test_chaos_a_fault_that_cannot_occur_in_a_call_is_refused() -> None:
    """chaos: a fault that cannot occur in a call is refused"""
    for rule in (
        {"method": "AppList", "fault": {"disk": {"mib": 8}}},
        {"method": "TaskExecStart", "fault": {"token_life": {"seconds": 1}}},
        {"method": "*", "fault": {"disk": {"mib": 0}}},
    ):
        error = raises(urllib.error.HTTPError, order, "faults", rule)
        equal(error.code, 400)


def test_chaos_a_lost_worker_ends_its_sandbox() -> None:
    """chaos: a lost worker ends its sandbox"""
    with sandbox() as own, sandbox() as other:
        equal(order("lose-worker", {"sandbox_id": own.object_id}), {"lost": 1})
        eventually(lambda: modal.Sandbox.from_id(own.object_id).poll() is not None)
        raises(exception.NotFoundError, own.exec, "true")
        equal(sh(other, "echo hi")[0], "hi\n")


def test_chaos_random_faults_are_the_same_with_the_same_seed() -> None:
    """chaos: random faults are the same with the same seed"""

    def hits() -> list[bool]:
        order("faults", method="DELETE")
        met = []
        with faults({"method": "SandboxTagsGetV2", "probability": 0.5, "fault": status(7)}):
            for _ in range(24):
                try:
                    own.get_tags()
                    met.append(False)
                except exception.PermissionDeniedError:
                    met.append(True)
        return met

    with sandbox() as own:
        first = hits()
        assert True in first and False in first, first
        equal(hits(), first)


def test_chaos_a_fault_applies_after_the_calls_that_it_skips() -> None:
    """chaos: a fault applies after the calls that it skips"""
    with sandbox() as own, faults({"method": "SandboxTagsGetV2", "skip": 2, "times": 1, "fault": status(7)}) as ordered:
        equal([own.get_tags(), own.get_tags()], [{}, {}])
        raises(exception.PermissionDeniedError, own.get_tags)
        equal(own.get_tags(), {})
    equal(ordered.applied, [1])


def test_chaos_an_invalid_rule_is_refused() -> None:
    """chaos: an invalid rule is refused"""
    try:
        order("faults", {"method": "*", "fault": "melt"})
    except urllib.error.HTTPError as error:
        equal(error.code, 400)
    else:
        raise AssertionError("the rule was accepted")


def test_emulator_the_state_endpoint_lists_the_sandboxes() -> None:
    """emulator: the state endpoint lists the sandboxes"""
    with sandbox() as own:
        eventually(lambda: {"running"} == {s["phase"] for s in order("state", method="GET")["sandboxes"] if s["id"] == own.object_id})


FEW_STREAMS = """
import asyncio, gc, h2.connection, modal

async def main():
    app = await modal.App.lookup.aio("streams", create_if_missing=True)
    sandbox = await modal.Sandbox.create.aio(app=app)

    async def one(number):
        process = await sandbox.exec.aio("sh", "-c", f"echo {number}; exit {number}")
        assert await process.stdout.read.aio() == f"{number}\\n"
        return await process.wait.aio()

    print(await asyncio.gather(*map(one, range(30))) == list(range(30)))
    connections = [one for one in gc.get_objects() if isinstance(one, h2.connection.H2Connection)]
    print({one.remote_settings.max_concurrent_streams for one in connections})
    await sandbox.terminate.aio()

asyncio.run(main())
"""


def test_chaos_all_calls_are_made_with_few_streams_per_connection() -> None:
    """chaos: all calls are made with few streams per connection"""
    # The second emulator permits four streams per connection.
    env = {**os.environ, "MODAL_SERVER_URL": os.environ["SERVER_URL_WITHOUT_NETWORK"]}
    done = subprocess.run([sys.executable, "-c", FEW_STREAMS], env=env, capture_output=True, text=True)
    equal((done.stdout, done.returncode), ("True\n{4}\n", 0))
