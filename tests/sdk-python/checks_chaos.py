"""Faults ordered at the emulator's own endpoint, as the SDK meets them."""

from typing import Any
import json
import os
import time
import urllib.error
import urllib.request

import modal
from harness import app, check, equal, eventually, raises, sandbox, sh
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
    """Orders faults, for as long as the check runs."""

    class Ordered:
        def __enter__(self) -> None:
            order("faults", list(rules))

        def __exit__(self, *_: Any) -> None:
            self.applied = [entry["applied"] for entry in order("faults", method="GET")]
            order("faults", method="DELETE")

    return Ordered()


def status(code: Any, **more: Any) -> Any:
    return {"status": {"code": code, **more}}


@check
def retried_status() -> None:
    """chaos: UNAVAILABLE is retried and not seen"""
    with faults({"method": "AppGetOrCreate", "times": 2, "fault": status(14)}) as _:
        assert app().app_id


@check
def status_that_stays() -> None:
    """chaos: PERMISSION_DENIED arrives with its text"""
    with faults({"method": "SandboxCreateV2", "times": 1, "fault": status(7, message="not you")}):
        raises(exception.PermissionDeniedError, modal.Sandbox.create, app=app(), containing="not you")


@check
def directed_retry() -> None:
    """chaos: a server-directed wait is kept"""
    with faults({"method": "AppGetOrCreate", "times": 1, "fault": status(8, retry_after_secs=0.5)}):
        began = time.monotonic()
        app()
        assert time.monotonic() - began >= 0.5


@check
def lost_answer() -> None:
    """chaos: a lost answer makes no second sandbox"""
    tag = str(time.time())
    with faults({"method": "SandboxCreateV2", "times": 1, "fault": {"lose_answer": {"code": 14}}}):
        with sandbox(tags={"lost": tag}) as own:
            equal([s.object_id for s in modal.Sandbox.list(app_id=app().app_id, tags={"lost": tag})], [own.object_id])


@check
def cut_output() -> None:
    """chaos: output cut again and again arrives whole"""
    with sandbox() as own:
        with faults({"method": "TaskExecStdioRead", "times": 8, "fault": {"cut": {"after_bytes": 50000}}}) as ordered:
            equal(sh(own, "seq 1 80000")[0], "".join(f"{n}\n" for n in range(1, 80001)))
        del ordered


@check
def cut_upload() -> None:
    """chaos: an upload that is cut is resumed"""
    with sandbox() as own:
        data = os.urandom(3 << 20)
        with faults({"method": "TaskExecStdinWriteStream", "times": 2, "fault": {"cut_request": {"after_bytes": 700000}}}):
            own.filesystem.write_bytes(data, "/tmp/cut")
        assert own.filesystem.read_bytes("/tmp/cut") == data


@check
def closed_connection() -> None:
    """chaos: a closed connection is opened again"""
    with sandbox() as own:
        with faults({"method": "TaskExecStart", "times": 1, "fault": "close"}):
            equal(sh(own, "echo hi"), ("hi\n", "", 0))


@check
def orderly_goodbye() -> None:
    """chaos: GOAWAY is taken in stride"""
    with sandbox() as own:
        with faults({"method": "TaskExecStart", "times": 3, "fault": "goaway"}):
            for _ in range(4):
                equal(sh(own, "echo hi"), ("hi\n", "", 0))


@check
def slow_calls() -> None:
    """chaos: delays are only felt"""
    with sandbox() as own:
        with faults({"method": "TaskExec*", "fault": {"delay": {"millis": 100, "jitter_millis": 50}}}):
            began = time.monotonic()
            equal(sh(own, "echo hi"), ("hi\n", "", 0))
            assert time.monotonic() - began >= 0.3


@check
def creation_rate() -> None:
    """chaos: a creation rate is kept by waiting"""
    with faults({"method": "SandboxCreateV2", "fault": {"rate": {"per_second": 2}}}):
        began = time.monotonic()
        made = [modal.Sandbox.create(app=app()) for _ in range(4)]
        assert time.monotonic() - began >= 0.5
    for one in made:
        one.terminate()


@check
def refused_token() -> None:
    """chaos: a refused router token is not the end"""
    with sandbox() as own:
        equal(sh(own, "echo hi")[0], "hi\n")
        with faults({"method": "TaskExecStart", "times": 1, "fault": status(16)}):
            equal(sh(own, "echo hi")[0], "hi\n")


@check
def lost_worker() -> None:
    """chaos: a lost worker ends its sandbox"""
    with sandbox() as own, sandbox() as other:
        equal(order("lose-worker", {"sandbox_id": own.object_id}), {"lost": 1})
        eventually(lambda: modal.Sandbox.from_id(own.object_id).poll() is not None)
        raises(exception.NotFoundError, own.exec, "true")
        equal(sh(other, "echo hi")[0], "hi\n")


@check
def nonsense() -> None:
    """chaos: a rule that makes no sense is refused"""
    try:
        order("faults", {"method": "*", "fault": "melt"})
    except urllib.error.HTTPError as error:
        equal(error.code, 400)
    else:
        raise AssertionError("taken")


@check
def state() -> None:
    """the emulator shows what it has"""
    with sandbox() as own:
        eventually(lambda: {"running"} == {s["phase"] for s in order("state", method="GET")["sandboxes"] if s["id"] == own.object_id})
