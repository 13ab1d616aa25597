"""Specifications, records, exceptions and the import, without a provider."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import subprocess
import sys
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import sandbox_host
from sandbox_host import (
    BucketMount,
    CommandError,
    Dockerfile,
    Gpu,
    Image,
    Limits,
    Login,
    Network,
    Port,
    Probe,
    Pty,
    SandboxError,
    SandboxInfo,
    SandboxSettings,
    SandboxSpec,
    SidecarSpec,
    Tunnel,
    Usage,
    Verdict,
    VolumeMount,
)
from sandbox_host._convert import millis, moment, timestamp
from sandbox_host.errors import class_of, from_fault


def test_settings_are_the_fields_of_the_specification() -> None:
    assert {each.name for each in fields(SandboxSpec)} == set(get_type_hints(SandboxSettings))


def test_a_whole_specification() -> None:
    spec = SandboxSpec(
        image=Image(registry="a", login=Login("s", "aws-secret"), commands=["RUN x"], gpu="T4", extra={"k": [1]}),
        command=["sleep", "5"],
        user="u:g",
        env={"A": "1"},
        secrets=["s"],
        workdir="/w",
        cpu=0.5,
        cpu_limit=2,
        memory_mib=100,
        memory_limit_mib=200,
        disk_mib=300,
        gpu="H100:2",
        lifetime=timedelta(minutes=1),
        idle_timeout=1.5,
        regions=["r"],
        network=Network(outbound="x", settings={"a": 1}, inbound_cidrs=["10.0.0.0/8"]),
        ports=[80, Port(81, "tcp")],
        volumes=[VolumeMount("v", "/v", read_only=True)],
        buckets=[BucketMount("b", "/b", prefix="p/")],
        name="n",
        tags={"t": "1"},
        readiness=Probe(tcp=80, interval=0.1),
        sidecars=[SidecarSpec(name="s", command=["x"])],
        pty=Pty(),
        proxy="p",
        key="k",
        options={"o": {"deep": True}},
        lease=False,
    )
    assert spec.to_json() == {
        "image": {
            "registry": "a",
            "login": {"aws-secret": "s"},
            "commands": ["RUN x"],
            "gpu": {"model": "T4", "count": 1},
            "extra": {"k": [1]},
        },
        "entry_point": {"command": ["sleep", "5"]},
        "user": "u:g",
        "env": [["A", "1"]],
        "secrets": ["s"],
        "workdir": "/w",
        "resources": {
            "cpu_request_millicores": 500,
            "cpu_limit_millicores": 2000,
            "memory_request_mib": 100,
            "memory_limit_mib": 200,
            "disk_mib": 300,
            "gpu": {"model": "H100", "count": 2},
        },
        "lifetime": 60000,
        "idle_timeout": 1500,
        "regions": ["r"],
        "network": {"outbound": {"other": ["x", {"a": 1}]}, "inbound_cidrs": ["10.0.0.0/8"]},
        "ports": [{"number": 80, "kind": "tls"}, {"number": 81, "kind": "tcp"}],
        "volumes": [{"volume": "v", "path": "/v", "read_only": True, "sub_path": None, "create": False}],
        "buckets": [
            {
                "bucket": "b",
                "path": "/b",
                "endpoint": None,
                "prefix": "p/",
                "secret": None,
                "read_only": False,
                "extra": {},
            }
        ],
        "name": "n",
        "tags": [["t", "1"]],
        "readiness": {"check": {"tcp": 80}, "interval": 100},
        "sidecars": [{"name": "s", "image": {}, "entry_point": {"command": ["x"]}, "outbound": "open"}],
        "pty": {"rows": 24, "columns": 80, "term": "xterm-256color"},
        "proxy": "p",
        "key": "k",
        "options": [["o", {"deep": True}]],
        "lease": False,
    }


def test_an_empty_specification_has_only_defaults() -> None:
    assert SandboxSpec().to_json() == {
        "image": {},
        "entry_point": "keep-alive",
        "network": {"outbound": "open", "inbound_cidrs": []},
    }


def test_images() -> None:
    assert Image.of("debian").to_json() == {"registry": "debian"}
    assert Image(id="im-1").to_json() == {"id": "im-1"}
    assert Image(dockerfile=Dockerfile(path="Dockerfile", target="t")).to_json() == {
        "dockerfile": {"path": os.path.abspath("Dockerfile"), "target": "t"}
    }
    for wrong in (Dockerfile(), Dockerfile(path="a", text="b")):
        with pytest.raises(ValueError, match="either `path` or `text`"):
            wrong.to_json()
    assert Gpu.of("a:b:3") == Gpu("a:b", 3)


def test_contradictions() -> None:
    for probe in (Probe(), Probe(tcp=1, command=["x"])):
        with pytest.raises(ValueError):
            probe.to_json()
    with pytest.raises(ValueError, match="image_command"):
        SandboxSpec(command=["x"], image_command=True).to_json()
    with pytest.raises(ValueError, match="keep_alive"):
        SidecarSpec(name="s", command=["x"], keep_alive=True).to_json()


@pytest.mark.parametrize(
    ("value", "wanted"), [(0, 0), (0.0001, 1), (1, 1000), (1.2345, 1234), (timedelta(days=1), 86_400_000), (None, None)]
)
def test_durations(value: Any, wanted: int | None) -> None:
    assert millis(value, "x") == wanted


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_wrong_durations(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="`x`"):
        millis(value, "x")


def test_points_in_time() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert moment(timestamp(now, "x")) == now
    assert moment(2**63) == datetime.max.replace(tzinfo=timezone.utc)
    with pytest.raises(ValueError, match="time zone"):
        timestamp(datetime(2026, 1, 1), "x")


def test_verdicts_are_read() -> None:
    read = Verdict.from_json
    assert (read({"exited": 0}).ok, str(read({"exited": 3}))) == (True, "exit code 3")
    assert (read({"signaled": 9}).signal, str(read({"signaled": 9}))) == (9, "signal 9")
    assert str(read("deadline")) == "deadline"
    assert str(read({"sandbox-ended": "lifetime"})) == "sandbox ended: lifetime"
    assert str(read({"lost": "gone"})) == "lost: gone"
    assert read({"new-kind": {"deep": 1}}).kind == "new-kind"


def test_records_ignore_new_fields() -> None:
    info = SandboxInfo.from_json(
        {"id": "a", "state": {"ended": {"finished": 2}}, "tags": [["a", "1"]], "extra": [["x", "[1]"], ["y", "{"]], "new": 1}
    )
    assert info.state.end is not None and info.state.end.code == 2
    assert (info.tags, info.extra, info.created) == ({"a": "1"}, {"x": [1], "y": "{"}, None)
    usage = Usage.from_json({"totals": {"cpu_core_millis": 1500, "memory_mib_millis": 0, "gpu_millis": 0}, "running": 2500})
    assert (usage.cpu_core_seconds, usage.running, usage.cost) == (1.5, 2.5, None)


def test_the_url_of_a_tunnel() -> None:
    assert Tunnel(1, "tls", "h", 443).url == "https://h:443"
    with pytest.raises(ValueError, match="no URL"):
        _ = Tunnel(1, "tcp", "h", 1).url


def test_limits() -> None:
    assert Limits(memory_bytes=1, call_time=2).to_json() == {"memory": 1, "call_time": 2000}


KINDS = (
    "invalid-argument unsupported unauthenticated permission-denied not-found already-exists conflict resource-exhausted "
    "build-failed sandbox-ended timed-out unavailable forbidden internal config closed cancelled"
).split()


@pytest.mark.parametrize("kind", [*KINDS, "file:not-found", "file:already-exists", "file:no-space", "trap:memory", "io:other"])
def test_each_kind_has_a_class(kind: str) -> None:
    found = class_of(kind)
    assert found is not SandboxError and issubclass(found, SandboxError)
    assert found.__name__ in sandbox_host.errors.__all__


def test_an_error_has_fields_and_can_be_copied() -> None:
    fault = {
        "kind": "file:too-large",
        "message": "cannot read /a: it is large",
        "reason": "it is large",
        "happened": "unknown",
        "retryable": True,
        "retry_after_ms": 1500,
        "subject": "/a",
    }
    error = from_fault(json.dumps(fault))
    for each in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(each) is sandbox_host.FileError
        assert (str(each), each.kind, each.general_kind) == ("cannot read /a: it is large", "file:too-large", "file")
        assert (each.reason, each.happened, each.retryable) == ("it is large", "unknown", True)
        assert (each.retry_after, each.subject) == (1.5, "/a")
    assert type(from_fault('{"kind": "other:new"}')) is SandboxError


def test_the_error_of_a_command_can_be_pickled() -> None:
    result = sandbox_host.RunResult(Verdict("exited", code=1), b"", b"why\n", 0, 4, 0.1, 0)
    with pytest.raises(CommandError) as error:
        result.check()
    again = pickle.loads(pickle.dumps(error.value))
    assert (again.result, str(again)) == (result, "the command failed: exit code 1: why")


# ---- the import ---------------------------------------------------------------------------------------------------------


def python(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return ran.stdout.strip()


def test_the_import_loads_no_other_module() -> None:
    code = "import sys; before = set(sys.modules); import sandbox_host; print(*sorted(set(sys.modules) - before))"
    new = {name for name in python(code).split() if name.startswith("sandbox_host") or name in ("asyncio", "dataclasses")}
    assert new == {"sandbox_host"}


def test_the_native_module_is_loaded_by_the_first_call() -> None:
    code = """
import sys
from sandbox_host import Provider, SandboxSpec, SandboxError
from sandbox_host.sync import Sandbox
SandboxSpec().to_json()
print("sandbox_host._native" in sys.modules)
"""
    assert python(code) == "False"


def test_every_name_is_found() -> None:
    for name in sandbox_host.__all__:
        assert getattr(sandbox_host, name) is not None
    assert set(sandbox_host.__all__) <= set(dir(sandbox_host))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sandbox_host.nothing


def test_every_public_name_is_documented() -> None:
    for name in sandbox_host.__all__:
        kind = getattr(sandbox_host, name)
        assert kind.__doc__, name
        if isinstance(kind, type) and kind.__module__.startswith("sandbox_host"):
            for key, value in vars(kind).items():
                if not key.startswith("_") and callable(value):
                    assert value.__doc__, f"{name}.{key}"


def test_the_stub_of_the_native_module_is_complete() -> None:
    import ast

    from sandbox_host import _native

    path = Path(sandbox_host.__file__).parent / "_native.pyi"
    stub = ast.parse(path.read_text())
    named = {node.name for node in stub.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    real = {name for name in dir(_native) if not name.startswith("_")}
    assert named == real
    call = next(node for node in stub.body if isinstance(node, ast.ClassDef))
    methods = {node.name for node in call.body if isinstance(node, ast.FunctionDef)}
    assert methods == {name for name in dir(_native.Call) if not name.startswith("_")}
