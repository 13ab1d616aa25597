"""Behaviour that Inspect relies on and its own checks do not cover, called through the same proxy as in evaluations."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import pty
import random
import shlex
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from conftest import OUTSIDE, Emulator
from inspect_ai.tool import ToolError
from inspect_ai.util import (
    OutputLimitExceededError,
    SandboxEnvironment,
    SandboxUnavailableError,
    SandboxUserUnsupportedError,
    override_sandbox_output_limit,
)
from inspect_ai.util._sandbox.events import SandboxEnvironmentProxy, SandboxTimeoutError
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv
from inspect_modal_sandbox import ModalSandboxConfig, files
from inspect_modal_sandbox.lifecycle.run import current_run

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = ModalSandboxConfig(image="debian:13", workdir="/srv/project")


def provider() -> Any:
    return registry_find_sandboxenv("modal")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box() -> AsyncIterator[SandboxEnvironment]:
    await provider().task_init("startup", CONFIG)
    environments = await provider().sample_init("contract", CONFIG, {"__sample_id__": 1})
    proxy = SandboxEnvironmentProxy(environments["default"])
    yield proxy
    await provider().sample_cleanup("contract", CONFIG, environments, False)
    await provider().task_cleanup("shutdown", CONFIG, True)


async def until(box: SandboxEnvironment, command: str) -> None:
    """Waits in the sandbox until a command succeeds."""
    result = await box.exec(["sh", "-c", f"until {command}; do sleep 0.1; done"], timeout=60)
    assert result.success, result.stderr


# ---- commands -------------------------------------------------------------------------------------------------------


async def test_background_child_that_holds_stdout(box: SandboxEnvironment) -> None:
    begun = time.monotonic()
    result = await box.exec(["sh", "-c", "sleep 300 & echo started"])
    assert result.stdout == "started\n"
    assert time.monotonic() - begun < 60, "exec waited for the child after the command had ended"
    assert (await box.exec(["pkill", "-x", "sleep"])).success, "the child did not survive the command"


async def test_missing_program(box: SandboxEnvironment) -> None:
    result = await box.exec(["no-such-program"])
    assert (result.success, result.returncode) == (False, 127)


async def test_missing_directory(box: SandboxEnvironment) -> None:
    result = await box.exec(["pwd"], cwd="/no/such/directory")
    assert not result.success and "/no/such/directory" in result.stderr


async def test_no_directory_means_the_working_directory(box: SandboxEnvironment) -> None:
    assert (await box.exec(["pwd"])).stdout == "/srv/project\n"
    await box.write_file("below/file", "x")
    assert (await box.exec(["pwd"], cwd="below")).stdout == "/srv/project/below\n"
    assert await box.read_file("/srv/project/below/file") == "x"


@pytest.mark.parametrize("limit", [1000, 40 << 20])
async def test_output_over_the_limit_keeps_its_end(box: SandboxEnvironment, limit: int) -> None:
    with override_sandbox_output_limit(limit, "exec"):
        result = await box.exec(["sh", "-c", f"head -c {limit} /dev/zero | tr '\\0' a; printf end"])
    assert result.success
    assert len(result.stdout) == limit and result.stdout.endswith("aaend")


async def test_100_mib_under_an_override(box: SandboxEnvironment) -> None:
    with override_sandbox_output_limit(150 << 20, "exec"):
        result = await box.exec(["sh", "-c", "head -c 104857600 /dev/zero | tr '\\0' b"])
    assert len(result.stdout) == 100 << 20 and set(result.stdout[:: 1 << 20]) == {"b"}


async def test_invalid_utf8_is_replaced(box: SandboxEnvironment) -> None:
    result = await box.exec(["printf", r"a\377b"])
    assert result.stdout == "a\N{REPLACEMENT CHARACTER}b"


async def test_a_nul_byte_anywhere_is_a_tool_error(box: SandboxEnvironment) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: box.exec(["echo", "a\0b"]),
        lambda: box.exec(["true"], env={"A": "x\0y"}),
        lambda: box.exec(["true"], env={"A\0": "x"}),
        lambda: box.exec(["true"], cwd="a\0b"),
        lambda: box.exec(["true"], user="a\0b"),
        lambda: box.read_file("a\0b"),
        lambda: box.write_file("a\0b", "x"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="embedded null byte"):
            await call()


async def test_a_command_that_cannot_be_run_has_failed(box: SandboxEnvironment) -> None:
    for cmd in ([], [""]):
        result = await box.exec(cmd)
        assert (result.success, result.returncode, result.stderr) == (False, 126, "the command is empty\n")
    for env in ({"A": "x" * 200_000}, {f"A{number}": "x" * 100_000 for number in range(50)}):
        result = await box.exec(["true"], env=env)
        assert (result.returncode, result.stderr) == (126, "true: Argument list too long\n")
    result = await box.exec(["true", "x" * 200_000])
    assert (result.returncode, result.stderr) == (126, "true: Argument list too long\n")
    for name in ("", "=A"):
        result = await box.exec(["true"], env={name: "x"})
        assert result.returncode == 126 and "invalid environment variable" in result.stderr
    for user in ("ghost", "a;b", "-x", ":"):
        result = await box.exec(["true"], user=user)
        assert result.returncode == 126 and "no matching entries in passwd file" in result.stderr
    for timeout in (0, -1):
        with pytest.raises(SandboxTimeoutError, match=f"after {timeout} seconds"):
            await box.exec(["touch", "/tmp/never"], timeout=timeout)
    assert not (await box.exec(["test", "-e", "/tmp/never"])).success


async def test_variables_of_any_name(box: SandboxEnvironment) -> None:
    result = await box.exec(["env"], env={"discovery.type": "single-node", "A=B": "x"})
    assert "discovery.type=single-node\n" in result.stdout and "\nA=B=x\n" in f"\n{result.stdout}"


async def test_the_environment_does_not_reveal_the_harness(box: SandboxEnvironment) -> None:
    said = (await box.exec(["env"])).stdout.lower()
    assert not any(word in said for word in ("sandbox", "inspect", "exec_id")), said


async def test_a_program_that_may_not_be_executed(box: SandboxEnvironment) -> None:
    for user in (None, "nobody"):
        with pytest.raises(PermissionError):
            await box.exec(["/etc/passwd"], user=user)
    with pytest.raises(PermissionError):
        await box.exec(["/etc"], cwd="/tmp")


@pytest.mark.parametrize(
    "script",
    [
        "echo result; echo 'x: Permission denied' >&2; exit 126",
        "echo 'x: Permission denied' >&2; exit 126",
        "echo 'Permission denied'; exit 126",
        "/etc/passwd",
        'echo "$0: Permission denied" >&2; exit 126',
    ],
)
async def test_the_output_of_a_command_that_exits_with_126_is_kept(box: SandboxEnvironment, script: str) -> None:
    await box.write_file("/tmp/speaks", f"#!/bin/sh\n{script}\n")
    await box.exec(["chmod", "755", "/tmp/speaks"])
    for cmd in (["/tmp/speaks"], ["sh", "-c", script]):
        result = await box.exec(cmd)
        assert result.returncode == 126 and "permission denied" in (result.stdout + result.stderr).lower()


async def test_a_time_limit_sends_sigterm_first(box: SandboxEnvironment) -> None:
    with pytest.raises(SandboxTimeoutError) as raised:
        await box.exec(["sh", "-c", "trap 'echo saved; exit 0' TERM; echo working; sleep 4715 & wait"], timeout=1)
    assert raised.value.truncated_output == "working\nsaved\n"
    await until(box, "! pgrep -f 'sleep 471[5]'")


async def test_a_command_that_ignores_sigterm_is_killed_after_its_time_limit(box: SandboxEnvironment) -> None:
    with pytest.raises(SandboxTimeoutError):
        await box.exec(["sh", "-c", "trap '' TERM; setsid sleep 4716 & sleep 4716"], timeout=1)
    await until(box, "! pgrep -f 'sleep 471[6]'")


@pytest.mark.parametrize(
    "script", ["printf 'ab\\303\\244'", "head -c 5000 /dev/zero | tr '\\0' '\\377'", "yes ä | head -n 3000"]
)
@pytest.mark.parametrize("limit", [1, 3, 100, 1000])
async def test_output_that_is_not_utf8_fits_the_limit(box: SandboxEnvironment, script: str, limit: int) -> None:
    with override_sandbox_output_limit(limit, "exec"):
        result = await box.exec(["sh", "-c", script])
    assert result.success and len(result.stdout.encode()) <= limit


async def test_the_end_of_output_that_is_not_utf8_is_kept(box: SandboxEnvironment) -> None:
    bad = "\N{REPLACEMENT CHARACTER}"
    for script, kept in [
        ("yes ä | head -n 100 | tr -d '\\n'; printf end", "ä" * 48 + "end"),
        ("head -c 200 /dev/zero | tr '\\0' x; printf '\\377end'", "x" * 94 + bad + "end"),
    ]:
        with override_sandbox_output_limit(100, "exec"):
            result = await box.exec(["sh", "-c", script])
        assert result.stdout == kept


async def test_lone_surrogates_are_replaced(box: SandboxEnvironment) -> None:
    assert (await box.exec(["echo", "\ud800"], input="\udfff")).stdout == "?\n"


async def test_cancelling_kills_the_command(box: SandboxEnvironment) -> None:
    task = asyncio.ensure_future(box.exec(["sh", "-c", "touch /tmp/begun; exec sleep 4711"]))
    await until(box, "[ -e /tmp/begun ]")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(box, "! pgrep -f 'sleep 471[1]'")


async def test_time_limit_keeps_what_was_printed(box: SandboxEnvironment) -> None:
    with pytest.raises(SandboxTimeoutError) as raised:
        await box.exec(["sh", "-c", "echo before; echo error >&2; sleep 4712 & sleep 4712"], timeout=1)
    assert raised.value.truncated_output == "before\nerror\n"
    await until(box, "! pgrep -f 'sleep 471[2]'")


async def test_a_command_that_was_started_is_never_run_again(box: SandboxEnvironment) -> None:
    with pytest.raises(TimeoutError):
        await box.exec(["sh", "-c", "echo once >>/tmp/runs; sleep 60"], timeout=1, timeout_retry=True)
    assert await box.read_file("/tmp/runs") == "once\n"


async def test_50_commands_at_once(box: SandboxEnvironment) -> None:
    results = await asyncio.gather(*[box.exec(["sh", "-c", f"sleep 0.2; echo {number}"]) for number in range(50)])
    assert [result.stdout for result in results] == [f"{number}\n" for number in range(50)]


async def test_commands_run_as_other_users(box: SandboxEnvironment) -> None:
    assert (await box.exec(["id", "-u"], user="65534")).stdout == "65534\n"
    assert (await box.exec(["id", "-u"], user="1234")).stdout == "1234\n"
    assert (await box.exec(["sh", "-c", "echo $HOME"], user="root")).stdout == "/root\n"


async def test_an_image_of_another_user_cannot_become_root(tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM debian:13\nUSER nobody\n")
    environments = await provider().sample_init("contract", str(dockerfile), {"__sample_id__": 3})
    try:
        environment = environments["default"]
        assert (await environment.exec(["id", "-un"])).stdout == "nobody\n"
        with pytest.raises(SandboxUserUnsupportedError):
            await environment.exec(["id"], user="root")
    finally:
        await provider().sample_cleanup("contract", str(dockerfile), environments, False)


async def test_a_build_context_arrives_as_with_docker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM debian:13\nCOPY \"data/\" '/out/'\n")
    (tmp_path / "data" / "empty").mkdir(parents=True)
    (tmp_path / "data" / "file").write_text("text")
    (tmp_path / "data" / "link").symlink_to("file")
    (tmp_path / "data" / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "data" / "pipe")
    with caplog.at_level(logging.WARNING):
        environments = await provider().sample_init("contract", str(dockerfile), {"__sample_id__": 5})
    try:
        script = "cd /out && ls -A | sort && readlink link broken && cat link && ls -A empty"
        result = await environments["default"].exec(["sh", "-c", script])
        assert result.stdout == "broken\nempty\nfile\nlink\nfile\nnowhere\ntext", result
    finally:
        await provider().sample_cleanup("contract", str(dockerfile), environments, False)
    assert "not in the build context: data/pipe: it is a named pipe" in caplog.text


async def test_path_may_be_replaced(box: SandboxEnvironment) -> None:
    result = await box.exec(["sh", "-c", "echo $PATH"], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert result.stdout == "/usr/sbin:/usr/bin:/sbin:/bin\n"


async def test_50_mib_of_input_arrive_byte_for_byte(box: SandboxEnvironment) -> None:
    data = random.Random(1).randbytes(50 << 20)
    result = await box.exec(["sha256sum"], input=data)
    assert result.stdout.split() == [hashlib.sha256(data).hexdigest(), "-"]


async def test_a_command_may_ignore_its_input(box: SandboxEnvironment) -> None:
    result = await box.exec(["true"], input=b"x" * (20 << 20))
    assert result.success


# ---- files ----------------------------------------------------------------------------------------------------------


async def test_line_ends_are_kept_and_invalid_utf8_is_an_error(box: SandboxEnvironment) -> None:
    await box.write_file("crlf", "a\r\nb\rc\n")
    assert await box.read_file("crlf") == "a\r\nb\rc\n"
    await box.write_file("bytes", b"\xff\xfe")
    with pytest.raises(UnicodeDecodeError):
        await box.read_file("bytes")


async def test_a_path_through_a_file_does_not_exist(box: SandboxEnvironment) -> None:
    await box.write_file("parent", "x")
    with pytest.raises(FileNotFoundError, match="parent/child"):
        await box.read_file("parent/child")
    with pytest.raises(OSError):
        await box.write_file("parent/child", "x")


async def test_file_errors_have_number_text_and_path(box: SandboxEnvironment) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        await box.read_file("nowhere")
    assert raised.value.strerror == "No such file or directory" and raised.value.filename == "nowhere"


async def test_a_file_that_is_too_large_is_refused(box: SandboxEnvironment) -> None:
    await box.exec(["truncate", "-s", "5G", "/tmp/sparse"])
    begun = time.monotonic()
    with pytest.raises(OutputLimitExceededError, match="100 MiB"):
        await box.read_file("/tmp/sparse", False)
    assert time.monotonic() - begun < 60


async def test_a_special_file_is_refused_at_once(box: SandboxEnvironment) -> None:
    script = "import socket; socket.socket(socket.AF_UNIX).bind('/tmp/socket')"
    assert (await box.exec(["sh", "-c", f'mkfifo /tmp/pipe /tmp/unread; python3 -c "{script}"'])).success
    begun = time.monotonic()
    for name in ("/tmp/pipe", "/tmp/socket", "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file") as raised:
            await box.read_file(name)
        assert isinstance(raised.value, ToolError) and raised.value.filename == name
    # Not the pipe that was just opened for reading: until its reader is gone, a write to it succeeds.
    with pytest.raises(OSError) as raised:
        await box.write_file("/tmp/unread", "x")
    assert isinstance(raised.value, ToolError)
    assert time.monotonic() - begun < 60
    with pytest.raises(OSError, match="name too long"):
        await box.read_file("/tmp/" + "x" * 5000)


async def test_a_special_file_is_refused_at_once_for_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the configuration names a user, commands of that user read and write the files."""
    monkeypatch.setattr(files, "TRANSFER_SECS", 30.0)
    config = ModalSandboxConfig(image="debian:13", workdir="/tmp", user="nobody")
    environments = await provider().sample_init("contract", config, {"__sample_id__": 27})
    environment = environments["default"]
    try:
        script = "import socket; socket.socket(socket.AF_UNIX).bind('socket')"
        assert (await environment.exec(["sh", "-c", f'mkfifo pipe; python3 -c "{script}"'])).success
        for name in ("pipe", "socket", "/dev/zero"):
            with pytest.raises(OSError, match="not a regular file") as raised:
                await environment.read_file(name)
            assert isinstance(raised.value, ToolError) and raised.value.filename == name
        for name in ("pipe", "socket"):
            with pytest.raises(OSError, match="not a regular file"):
                await environment.write_file(name, "x")
    finally:
        await provider().sample_cleanup("contract", config, environments, False)


async def test_errors_that_a_model_sees_do_not_reveal_the_harness(emulator: Emulator) -> None:
    environments = await provider().sample_init("contract", CONFIG, {"__sample_id__": 20})
    environment = environments["default"]
    await environment.created.sandbox.terminate()
    for call in (environment.exec(["true"]), environment.read_file("/etc/passwd"), environment.write_file("/x", "x")):
        with pytest.raises(SandboxUnavailableError) as raised:
            await call
        assert str(raised.value) == "The sandbox is not available."
    await provider().sample_cleanup("contract", CONFIG, environments, False)


async def test_the_connection_opens_a_shell(box: SandboxEnvironment) -> None:
    connection = await box.connection(user="nobody")
    assert connection.type == "modal"
    words = shlex.split(connection.command)
    assert Path(words[0]).name == "sandbox-host" and words[1] == "shell" and words[2].startswith("sb-")
    assert connection.command.endswith("--user nobody") and connection.ports is None
    assert box.default_polling_interval() == 0.2


async def test_services_without_a_network_and_their_commands(tmp_path: Path) -> None:
    """The network of a sidecar cannot be blocked, so it gets an empty allow-list. Time limits apply in sidecars too."""
    path = tmp_path / "compose.yaml"
    path.write_text(
        """
services:
  default: {image: debian:13, command: tail -f /dev/null, network_mode: none}
  other: {image: debian:13, command: tail -f /dev/null, network_mode: none, user: nobody, working_dir: /tmp}
"""
    )
    environments = await provider().sample_init("contract", str(path), {"__sample_id__": 4})
    try:
        assert list(environments) == ["default", "other"]
        other = environments["other"]
        assert (await other.exec(["id", "-un"])).stdout == "nobody\n"
        await other.write_file("file", "x")
        assert (await other.exec(["stat", "-c", "%U", "/tmp/file"])).stdout == "nobody\n"
        assert not (await environments["default"].exec(["test", "-e", "/tmp/file"])).success
        addresses = await other.exec(["getent", "ahostsv4", "default"])
        assert "127.0.0.1" in addresses.stdout, "the default service has no other address"
        with pytest.raises(TimeoutError):
            await other.exec(["sh", "-c", "sleep 4713 & sleep 4713"], timeout=1)
        await until(other, "! pgrep -f 'sleep 471[3]'")
    finally:
        await provider().sample_cleanup("contract", str(path), environments, False)


SERVER = "import socket; s = socket.create_server(('', 8000))\nwhile True:\n c = s.accept()[0]; c.sendall(b'%s'); c.close()"

ASK = """
import socket, sys
while True:
    try:
        print(socket.create_connection((sys.argv[1], 8000)).makefile().read())
        break
    except ConnectionRefusedError:
        pass
"""


async def test_services_reach_each_other_by_all_their_names(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    services: dict[str, Any] = {
        name: {"image": "python:3.13", "command": ["python3", "-c", SERVER % name], "networks": ["inner"]}
        for name in ("default", "other", "late")
    }
    services["other"] |= {"networks": {"inner": {"aliases": ["elsewhere"]}}, "container_name": "box"}
    services["other"]["healthcheck"] = {"test": ["CMD", "python3", "-c", ASK, "other"], "interval": "1s"}
    services["late"]["depends_on"] = {"other": {"condition": "service_healthy"}}
    services["default"]["extra_hosts"] = {"further": "192.0.2.7"}
    path.write_text(json.dumps({"services": services, "networks": {"inner": {"internal": True}}}))
    environments = await provider().sample_init("contract", str(path), {"__sample_id__": 5})
    try:
        assert list(environments) == ["default", "other", "late"]
        for source in environments:
            for name, target in [*zip(environments, environments, strict=True), ("elsewhere", "other"), ("box", "other")]:
                answer = await environments[source].exec(["python3", "-c", ASK, name], timeout=60)
                assert answer.stdout == f"{target}\n", (source, name, answer)
        hosts = await environments["default"].exec(["getent", "hosts", "further"])
        assert hosts.stdout.split() == ["192.0.2.7", "further"]
        out = await environments["default"].exec(["python3", "-c", ASK, "192.0.2.7"])
        assert "No route to host" in out.stderr, "an internal network does not reach the outside"
        # Some machines have no route to that address either.
        for name in environments:
            assert not (await environments[name].exec(["getent", "hosts", OUTSIDE])).success, name
    finally:
        await provider().sample_cleanup("contract", str(path), environments, False)


async def compose(tmp_path: Path, text: str) -> Path:
    """Writes a compose file. `IDLE` stands for the keys of a service that only stays alive."""
    path = tmp_path / "compose.yaml"
    path.write_text(text.replace("IDLE", "image: debian:13, command: tail -f /dev/null"))
    return path


async def test_the_connection_has_the_public_ports(tmp_path: Path) -> None:
    path = await compose(tmp_path, "services: {default: {IDLE, ports: ['8080:8080', 9000]}, other: {IDLE}}")
    environments = await provider().sample_init("contract", str(path), {"__sample_id__": 20})
    try:
        ports = (await environments["default"].connection()).ports
        assert ports is not None and sorted(port.container_port for port in ports) == [8080, 9000]
        assert all(port.protocol == "tcp" and port.mappings[0].host_port > 0 for port in ports)
        assert (await environments["other"].connection()).ports is None
    finally:
        await provider().sample_cleanup("contract", str(path), environments, False)


async def test_a_service_that_has_done_its_work_does_not_fail_the_sample(tmp_path: Path) -> None:
    path = await compose(
        tmp_path, "services: {default: {IDLE}, once: {image: debian:13, command: 'true'}, app: {IDLE, depends_on: [once]}}"
    )
    environments = await provider().sample_init("contract", str(path), {"__sample_id__": 21})
    try:
        assert [name for name in environments if name != "once"] == ["default", "app"]
    finally:
        await provider().sample_cleanup("contract", str(path), environments, False)


async def test_a_service_that_fails_is_named_with_its_exit_code_and_output(tmp_path: Path) -> None:
    path = await compose(
        tmp_path,
        """
services:
  default: {IDLE}
  db: {image: debian:13, command: [sh, -c, 'echo starting; echo no space left >&2; exit 7']}
""",
    )
    before = set(current_run().alive)
    with pytest.raises(RuntimeError, match=r"(?s)'db' has ended: .*exit code 7.*no space left") as raised:
        await provider().sample_init("contract", str(path), {"__sample_id__": 22})
    assert "starting" in str(raised.value) and "db |" not in str(raised.value)
    assert set(current_run().alive) == before, "the sandbox was not terminated"


async def test_a_service_that_fails_before_it_answers_is_named(tmp_path: Path, emulator: Emulator) -> None:
    path = await compose(
        tmp_path, "services: {default: {IDLE}, db: {image: debian:13, command: [sh, -c, 'echo no space left; exit 7']}}"
    )
    # The first command in the container starts when the container has ended.
    emulator.ask("faults", {"method": "TaskExecStart", "fault": {"delay": {"millis": 2000}}})
    try:
        with pytest.raises(RuntimeError, match=r"'db' has ended: .*exit code 7.*no space left"):
            await provider().sample_init("contract", str(path), {"__sample_id__": 28})
    finally:
        emulator.ask("faults", method="DELETE")


FAILS_WHEN_ASKED = """
import socket
socket.create_server(("", 8000)).accept()
print("no space left", flush=True)
raise SystemExit(7)
"""

HAS_SEEN_ITS_END = """
import pathlib, socket
try:
    socket.create_connection(("db", 8000), 10)
    pathlib.Path("/tmp/seen").touch()
except OSError:
    raise SystemExit(not pathlib.Path("/tmp/seen").exists())
raise SystemExit(1)
"""


async def test_a_service_that_fails_after_it_has_answered_is_named(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    check = {"test": ["CMD", "python3", "-c", HAS_SEEN_ITS_END], "interval": "1s", "retries": 60}
    services = {
        "default": {"image": "python:3.13", "command": "tail -f /dev/null", "healthcheck": check},
        "db": {"image": "python:3.13", "command": ["python3", "-c", FAILS_WHEN_ASKED]},
    }
    path.write_text(json.dumps({"services": services}))
    with pytest.raises(RuntimeError, match=r"'db' has ended: .*exit code 7.*no space left"):
        await provider().sample_init("contract", str(path), {"__sample_id__": 29})


async def test_the_health_check_of_an_image_counts(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM debian:13\nHEALTHCHECK --interval=1s --retries=60 CMD test -e /tmp/ready\n"
        'CMD ["sh", "-c", "sleep 2; touch /tmp/ready; tail -f /dev/null"]\n'
    )
    path = await compose(
        tmp_path, "services: {default: {IDLE, depends_on: {app: {condition: service_healthy}}}, app: {build: .}}"
    )
    environments = await provider().sample_init("contract", str(path), {"__sample_id__": 23})
    try:
        assert (await environments["app"].exec(["test", "-e", "/tmp/ready"])).success
    finally:
        await provider().sample_cleanup("contract", str(path), environments, False)


async def test_read_only_mounts_are_copied_in_before_the_service_starts(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index").write_bytes(b"\0\xff$HOME")
    (tmp_path / "settings").write_text("colour = red\n")
    path = await compose(
        tmp_path,
        """
services:
  default: {IDLE, volumes: ['./site:/srv/site:ro']}
  app:
    image: debian:13
    command: [sh, -c, 'cp /etc/app/settings /tmp/seen && exec tail -f /dev/null']
    volumes: [{type: bind, source: settings, target: /etc/app/settings, read_only: true}]
""",
    )
    environments = await provider().sample_init("contract", str(path), {"__sample_id__": 24})
    try:
        assert await environments["default"].read_file("/srv/site/index", False) == b"\0\xff$HOME"
        await until(environments["app"], "[ -s /tmp/seen ]")
        assert await environments["app"].read_file("/tmp/seen") == "colour = red\n"
    finally:
        await provider().sample_cleanup("contract", str(path), environments, False)


async def test_one_service_of_an_internal_network_may_reach_the_internet(tmp_path: Path) -> None:
    """The agent is in an internal network. Its proxy is in that one and in a second one, which is not internal."""
    path = tmp_path / "compose.yaml"
    services: dict[str, Any] = {
        name: {"image": "python:3.13", "command": ["python3", "-c", SERVER % name], "networks": networks}
        for name, networks in {"default": ["inside"], "proxy": ["inside", "outside"]}.items()
    }
    path.write_text(json.dumps({"services": services, "networks": {"inside": {"internal": True}, "outside": {}}}))
    environments = await provider().sample_init("contract", str(path), {"__sample_id__": 25})
    try:
        for source, target in [("default", "proxy"), ("proxy", "default")]:
            answer = await environments[source].exec(["python3", "-c", ASK, target], timeout=60)
            assert answer.stdout == f"{target}\n", answer
        out = await environments["default"].exec(["python3", "-c", ASK, "192.0.2.7"])
        assert "No route to host" in out.stderr
        assert (await environments["proxy"].exec(["getent", "hosts", OUTSIDE])).success
        assert not (await environments["default"].exec(["getent", "hosts", OUTSIDE])).success
    finally:
        await provider().sample_cleanup("contract", str(path), environments, False)


async def test_a_default_service_without_a_network_reaches_no_other(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    services: dict[str, Any] = {
        name: {"image": "python:3.13", "command": ["python3", "-c", SERVER % name]} for name in ("default", "one", "two")
    }
    services["default"]["network_mode"] = "none"
    path.write_text(json.dumps({"services": services}))
    environments = await provider().sample_init("contract", str(path), {"__sample_id__": 26})
    try:
        answer = await environments["one"].exec(["python3", "-c", ASK, "two"], timeout=60)
        assert answer.stdout == "two\n", answer
        for name in ("one", "two", OUTSIDE):
            assert not (await environments["default"].exec(["getent", "hosts", name])).success
        assert (await environments["one"].exec(["getent", "hosts", OUTSIDE])).success
    finally:
        await provider().sample_cleanup("contract", str(path), environments, False)


async def test_a_service_that_others_wait_for_may_fail(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(
        """
services:
  default: {image: debian:13, command: tail -f /dev/null}
  setup: {image: debian:13, command: [sh, -c, 'exit $${CODE:-3}'], environment: [CODE]}
  app: {image: debian:13, command: tail -f /dev/null, depends_on: {setup: {condition: service_completed_successfully}}}
"""
    )
    before = set(current_run().alive)
    with pytest.raises(RuntimeError, match=r"'setup', which others depend on, did not complete.*3"):
        await provider().sample_init("contract", str(path), {"__sample_id__": 6})
    assert set(current_run().alive) == before, "the sandbox was not terminated"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODE", "0")
        environments = await provider().sample_init("contract", str(path), {"__sample_id__": 7})
    assert list(environments) == ["default", "app"], "a service that has completed is not an environment"
    await provider().sample_cleanup("contract", str(path), environments, False)


async def test_a_connection_opens_a_shell_in_its_container(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    idle = "image: debian:13, command: tail -f /dev/null"
    path.write_text(f"services: {{default: {{{idle}}}, other: {{{idle}, environment: {{WHERE: other}}, user: nobody}}}}")
    environments = await provider().sample_init("contract", str(path), {"__sample_id__": 8})
    try:
        connection = await environments["other"].connection()
        words = shlex.split(connection.command)
        # The program that was installed with the package.
        assert Path(words[0]).samefile(Path(sys.executable).with_name("sandbox-host"))
        said = await asyncio.to_thread(type_into, words, "echo in-$WHERE as $(id -un)\nexit\n")
        assert "in-other as nobody" in said
        connection = await environments["other"].connection(user="root")
        assert "--user root" in connection.command
    finally:
        await provider().sample_cleanup("contract", str(path), environments, False)


def type_into(argv: list[str], text: str) -> str:
    """Runs a program on a terminal, types a text, and returns what the terminal showed when the program has ended."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    os.write(ours, text.encode())
    seen = b""
    # Reading fails when the program has closed the terminal.
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 65536):
            seen += piece
    os.close(ours)
    process.wait(timeout=60)
    return seen.decode(errors="replace")


# ---- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"method": "TaskExecStdioRead", "times": 3, "fault": {"cut": {"after_bytes": 1000}}},
        {"method": "TaskExecStart", "times": 2, "fault": {"lose_answer": {"code": 14}}},
        {"method": "TaskExecStart", "times": 2, "fault": {"status": {"code": 14, "message": "try again"}}},
        {"method": "TaskExecStdinWrite*", "times": 2, "fault": {"cut_request": {"after_bytes": 4096}}},
        {"method": "*", "times": 3, "fault": "goaway"},
    ],
    ids=lambda fault: f"{fault['method']}-{next(iter(fault['fault']))}" if isinstance(fault["fault"], dict) else "goaway",
)
async def test_faults_are_not_visible(box: SandboxEnvironment, emulator: Emulator, fault: dict[str, Any]) -> None:
    await box.exec(["rm", "-f", "/tmp/ran"])
    emulator.ask("faults", fault)
    try:
        result = await box.exec(["sh", "-c", "echo ran >>/tmp/ran; sha256sum; head -c 100000 /dev/zero"], input=b"y" * 100_000)
    finally:
        emulator.ask("faults", method="DELETE")
    import hashlib

    assert result.success and result.stdout.startswith(hashlib.sha256(b"y" * 100_000).hexdigest())
    assert result.stdout.count("\0") == 100_000
    assert await box.read_file("/tmp/ran") == "ran\n"
