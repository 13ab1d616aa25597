"""The contract of Harbor's `BaseEnvironment`, method by method, in sandboxes of the emulator."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import DOCKERFILE, Emulator, Make, Start
from harbor.environments.base import HealthcheckError, SandboxBuildFailedError, ServiceOperationsUnsupportedError
from harbor.environments.factory import EnvironmentFactory
from harbor.models.task.config import EnvironmentConfig, HealthcheckConfig, NetworkMode, NetworkPolicy, TpuSpec
from harbor.models.trial.config import EnvironmentConfig as TrialEnvironmentConfig
from harbor.models.trial.config import ResourceMode
from harbor.models.trial.paths import TrialPaths
from sandbox_host import Gpu, Provider, SandboxSpec
from sandbox_host import harbor as under_test
from sandbox_host.harbor import SandboxEnvironment, SandboxOptions

pytestmark = pytest.mark.asyncio

PATH = "sandbox_host.harbor:SandboxEnvironment"
DEADLINE = 60.0
BLOCKED = NetworkPolicy(network_mode=NetworkMode.NO_NETWORK)
PUBLIC = NetworkPolicy()
LISTED = NetworkPolicy(
    network_mode=NetworkMode.ALLOWLIST, allowed_hosts=["example.org", "*.example.com", "10.1.2.3", "10.2.0.0/16"]
)


def running(emulator: Emulator) -> set[str]:
    """Returns the ids of all sandboxes that have not ended."""
    return {each["id"] for each in emulator.ask("state")["sandboxes"] if each["phase"] in ("starting", "running")}


async def until(check: Callable[[], bool], what: str) -> None:
    """Waits until a check returns true."""
    end = time.monotonic() + DEADLINE
    while not check():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        await asyncio.sleep(0.05)


# ---- class and options ------------------------------------------------------------------------------------------


async def test_the_package_does_not_import_harbor() -> None:
    code = "import sandbox_host, sys; sandbox_host.Provider, sandbox_host.sync; print('harbor' in sys.modules)"
    ran = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "False\n", ran.stderr


async def test_harbor_finds_the_class_by_its_path() -> None:
    assert EnvironmentFactory.get_environment_class(import_path=PATH) is SandboxEnvironment
    assert SandboxEnvironment.type() == "sandbox-host"
    found = EnvironmentFactory.resource_capabilities(None, PATH)
    assert found is not None and found.cpu_limit and found.cpu_request and found.memory_limit and found.memory_request


async def test_harbor_creates_an_environment_from_the_configuration_of_a_trial(tmp_path: Path) -> None:
    config = TrialEnvironmentConfig(import_path=PATH, override_cpus=3, kwargs={"provider": "memory", "owner": None})
    EnvironmentFactory.validate_resource_policies(config)
    (tmp_path / "Dockerfile").write_text("FROM debian:13\n")
    environment = EnvironmentFactory.create_environment_from_config(
        config=config,
        environment_dir=tmp_path,
        environment_name="name",
        session_id="session",
        trial_paths=TrialPaths(tmp_path),
        task_env_config=EnvironmentConfig(cpus=1),
    )
    assert isinstance(environment, SandboxEnvironment)
    assert environment.options.provider == "memory" and environment.task_env_config.cpus == 3


async def test_options_are_checked_without_a_provider(make: Make) -> None:
    with pytest.raises(ValueError, match="Unknown option 'providr'"):
        SandboxEnvironment.parse_options({"providr": "modal"})
    with pytest.raises(ValueError, match="lifetime_sec"):
        make(lifetime_sec="long")
    with pytest.raises(ValueError, match="there is no provider `modl`"):
        make(provider="modl")
    with pytest.raises(ValueError, match="label `harbor"):
        make(labels={"harbor.managed": "no"})
    with pytest.raises(ValueError, match="has no apps"):
        make(provider="docker", app="mine")


async def test_all_options_are_described() -> None:
    properties = SandboxEnvironment.options_schema()["properties"]
    own = properties.keys() & SandboxOptions.__annotations__.keys()
    assert len(own) == len(SandboxOptions.__annotations__)
    assert all(properties[name].get("description") for name in own)


async def test_preflight_checks_options_address_and_credentials(monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    before = emulator.ids()
    EnvironmentFactory.run_preflight(None, PATH, {"provider": "modal"})
    assert not emulator.ids() - before
    with pytest.raises(ValueError, match="Unknown option"):
        SandboxEnvironment.preflight({"nothing": 1})
    with pytest.raises(SystemExit, match="cannot be used"):
        SandboxEnvironment.preflight({"variables": {"MODAL_SERVER_URL": "http://127.0.0.1:9"}})
    monkeypatch.delenv("MODAL_TOKEN_ID")
    monkeypatch.delenv("MODAL_TOKEN_SECRET")
    with pytest.raises(SystemExit, match="cannot be used"):
        SandboxEnvironment.preflight({})


# ---- capabilities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        (
            "modal",
            "gpus disable_internet network_allowlist network_allowlist_hostnames network_allowlist_wildcard_hostnames "
            "network_allowlist_ipv4_addresses network_allowlist_ipv4_cidrs dynamic_network_policy docker_compose",
        ),
        ("docker", "gpus disable_internet mounted"),
    ],
)
async def test_capabilities_are_those_of_the_provider(
    provider: str, expected: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    found = make(provider=provider).capabilities.model_dump()
    assert {name for name, value in found.items() if value} == set(expected.split())


async def test_an_engine_of_another_machine_mounts_no_directories(make: Make) -> None:
    environment = make(provider="docker", variables={"DOCKER_HOST": "tcp://192.0.2.1:2375"})
    assert not environment.capabilities.mounted
    with pytest.raises(ValueError, match="does not support automatic host mounts"):
        make(provider="docker", variables={"DOCKER_HOST": "tcp://192.0.2.1:2375"}, auto_mounting=True)


async def test_what_a_provider_lacks_is_refused_at_once(make: Make) -> None:
    with pytest.raises(RuntimeError, match="TPU"):
        make(config={"tpu": TpuSpec(type="v6e", topology="2x2")})
    with pytest.raises(RuntimeError, match="windows"):
        make(config={"os": "windows"})
    with pytest.raises(ValueError, match="allowlist"):
        make(provider="docker", network_policy=LISTED)
    with pytest.raises(ValueError, match="IPv6"):
        make(network_policy=NetworkPolicy(network_mode=NetworkMode.ALLOWLIST, allowed_hosts=["2001:db8::1"]))
    with pytest.raises(ValueError, match="cannot mount directories of this machine"):
        make(mounts=[{"type": "bind", "source": "/tmp", "target": "/data"}])
    with pytest.raises(ValueError, match="type `image`"):
        make(mounts=[{"type": "image", "source": "debian", "target": "/data"}])
    with pytest.raises(ValueError, match="stream"):
        make(stream=True)
    with pytest.raises(FileNotFoundError):
        make(dockerfile=None)


# ---- start -------------------------------------------------------------------------------------------------------


async def test_start_builds_the_dockerfile_with_its_context(environment: SandboxEnvironment) -> None:
    result = await environment.exec('pwd; cat words.txt; echo "$FROM_IMAGE"; id -u')
    assert (result.stdout, result.stderr, result.return_code) == ("/app\npear\napple\nyes\n0\n", "", 0)


async def test_start_makes_the_directories_of_a_trial(make: Make) -> None:
    targets = [{"type": "bind", "source": "/nowhere", "target": path} for path in ("/logs/agent", "/logs/verifier")]
    environment = make(auto_mounts=targets, config={"workdir": "/made/here"})
    await environment.start(force_build=False)
    try:
        found = await environment.exec("pwd; stat -c '%a %n' /logs/agent /logs/verifier")
        assert found.stdout == "/made/here\n777 /logs/agent\n777 /logs/verifier\n"
    finally:
        await environment.stop(delete=True)


async def test_a_prebuilt_image_gets_the_files_of_the_environment(start: Start) -> None:
    environment = await start(config={"docker_image": "debian:13", "workdir": "/work"}, dockerfile=None)
    assert (await environment.exec("cat words.txt; pwd")).stdout == "pear\napple\n/work\n"
    without = await start(config={"docker_image": "debian:13"}, dockerfile=None, enable_environment_dir_upload=False)
    assert (await without.exec("find / -xdev -name words.txt")).stdout == ""


async def test_force_build_prefers_the_dockerfile_and_builds_again(start: Start) -> None:
    both: dict[str, Any] = {"config": {"docker_image": "python:3.12"}, "dockerfile": DOCKERFILE + "RUN date +%N >/built\n"}
    assert (await (await start(**both)).exec("cat /built")).return_code != 0
    first = (await (await start(force_build=True, **both)).exec("cat /built")).stdout
    second = (await (await start(force_build=True, **both)).exec("cat /built")).stdout
    cached = (await (await start(dockerfile=both["dockerfile"])).exec("cat /built")).stdout
    assert first and second and first != second and cached in (first, second)


async def test_a_failed_build_leaves_nothing_running(make: Make, emulator: Emulator) -> None:
    before = running(emulator)
    environment = make(dockerfile="FROM debian:13\nRUN echo the reason >&2; exit 3\n")
    with pytest.raises(SandboxBuildFailedError, match="the reason"):
        await environment.start(force_build=False)
    assert running(emulator) <= before
    with pytest.raises(RuntimeError, match="not running"):
        await environment.exec("true")
    await environment.stop(delete=True)


async def test_a_start_that_is_cancelled_leaves_nothing_running(make: Make, emulator: Emulator) -> None:
    before = running(emulator)
    environment = make(dockerfile=None, config={"docker_image": "debian:13", "workdir": "/work"})
    created = asyncio.Event()
    original = environment._prepare

    async def slow(sandbox: Any) -> None:
        created.set()
        await original(sandbox)
        await asyncio.Event().wait()

    environment._prepare = slow  # type: ignore[method-assign]
    task = asyncio.ensure_future(environment.start(force_build=False))
    await created.wait()
    assert running(emulator) > before
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: running(emulator) <= before, "the sandbox is terminated")


async def test_an_environment_can_be_started_again_after_its_stop(start: Start) -> None:
    environment = await start()
    await environment.exec("touch /mark")
    with pytest.raises(RuntimeError, match="started already"):
        await environment.start(force_build=False)
    await environment.stop(delete=True)
    await environment.stop(delete=True)
    await environment.start(force_build=False)
    assert (await environment.exec("test -e /mark")).return_code == 1


async def test_an_image_without_bash_uses_sh(start: Start) -> None:
    environment = await start(dockerfile="FROM debian:13\nRUN rm -f /bin/bash /usr/bin/bash /usr/local/bin/bash\n")
    assert (await environment.exec('echo "$0 $((1 + 1))"')).stdout == "/bin/sh 2\n"


async def test_resources_follow_the_policies(start: Start, specs: list[SandboxSpec]) -> None:
    config = {"cpus": 1.5, "memory_mb": 512, "storage_mb": 4096}
    await start(config=config)
    await start(
        config=config,
        cpu_enforcement_policy=ResourceMode.LIMIT,
        memory_enforcement_policy=ResourceMode.GUARANTEE,
        override_cpus=2,
    )
    await start(config=config, cpu_enforcement_policy=ResourceMode.IGNORE, memory_enforcement_policy=ResourceMode.REQUEST)
    found = [(spec.cpu, spec.cpu_limit, spec.memory_mib, spec.memory_limit_mib) for spec in specs]
    assert found == [(1.5, 1.5, 512, None), (None, 2, 512, 512), (None, None, 512, None)]


@pytest.mark.parametrize(
    ("types", "count", "expected"),
    [
        (["RTX4090", "nvidia-a100-80gb", "H100"], 2, Gpu("A100-80GB", 2)),
        (["H100"], 1, Gpu("H100", 1)),
        (["NEWEST-9"], 1, Gpu("NEWEST-9", 1)),
        (None, 3, Gpu("ANY", 3)),
        (["H100"], 0, None),
    ],
)
async def test_gpu_types_are_honoured(types: list[str] | None, count: int, expected: Gpu | None, make: Make) -> None:
    assert make(config={"gpus": count, "gpu_types": types})._gpu() == expected


async def test_gpus_reach_the_sandbox(start: Start, specs: list[SandboxSpec]) -> None:
    environment = await start(config={"gpus": 2, "gpu_types": ["RTX4090", "H100"]})
    assert specs[0].gpu == Gpu("H100", 2)
    with pytest.raises(Exception, match="Unknown GPU type"):
        await start(config={"gpus": 1, "gpu_types": ["NEWEST-9"]})
    assert (await environment.exec("true")).return_code == 0


async def test_options_reach_the_sandbox(start: Start, specs: list[SandboxSpec]) -> None:
    # The option names volumes that exist; a mount makes one.
    await start(mounts=[{"type": "volume", "source": "shared", "target": "/first"}])
    specs.clear()
    environment = await start(
        app="harbor-tests",
        region=["us-east", "eu"],
        options={"backend": "v1"},
        labels={"team": "blue"},
        lifetime_sec=900,
        idle_timeout_sec=600,
        volumes={"/data": "shared"},
        mounts=[{"type": "volume", "source": "more", "target": "/more"}],
    )
    (spec,) = specs
    assert (spec.regions, spec.options, spec.lifetime, spec.idle_timeout) == (["us-east", "eu"], {"backend": "v1"}, 900, 600)
    assert [(each.volume, each.path) for each in spec.volumes] == [("shared", "/data"), ("more", "/more")]
    async with Provider.open("modal", env={"MODAL_APP_NAME": "harbor-tests"}) as provider:
        (found,) = await provider.list(tags={"team": "blue"})
    assert found.tags["harbor.session_id"] == environment.session_id
    assert found.name == under_test._name(environment.session_id)


async def test_long_sessions_have_short_names(start: Start) -> None:
    session = "a task with a long name/" + "x" * 80 + "__env"
    environment = await start(session_id=session)
    async with Provider.open("modal") as provider:
        found = await provider.find(under_test._name(session))
        assert (await found.tags())["harbor.session_id"] == session
    assert len(under_test._name(session)) == 64 and (await environment.exec("true")).return_code == 0


async def test_the_sandbox_of_an_earlier_attempt_is_replaced(start: Start, emulator: Emulator) -> None:
    first = await start(session_id="same__env")
    assert first._sandbox is not None
    second = await start(session_id="same__env")
    await until(lambda: first._sandbox is not None and first._sandbox.id not in running(emulator), "the first one has ended")
    assert (await second.exec("echo second")).stdout == "second\n"


async def test_a_name_that_something_else_has_is_left_to_it(start: Start) -> None:
    async with Provider.open("modal") as provider, provider.create(name="taken__env") as other:
        environment = await start(session_id="taken__env")
        assert (await environment.exec("echo mine")).stdout == "mine\n"
        assert (await other.run("echo theirs")).text == "theirs\n"
        tagged = await provider.list(tags={"harbor.session_id": "taken__env"})
        assert [each.name for each in tagged] == [None]


# ---- stop --------------------------------------------------------------------------------------------------------


async def test_stop_without_delete_keeps_the_sandbox(start: Start) -> None:
    environment = await start(owner="keepers")
    await environment.exec("echo kept >/mark")
    assert environment._sandbox is not None
    id = environment._sandbox.id
    await environment.stop(delete=False)
    async with Provider.open("modal") as provider:
        sandbox = provider.sandbox(id)
        assert (await sandbox.run("cat /mark")).text == "kept\n"
        assert "sandbox-lease" not in await sandbox.tags()
        await sandbox.terminate()


async def test_a_failed_termination_is_logged(start: Start, emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    environment = await start(owner="failures")
    sandbox = environment._sandbox
    assert sandbox is not None
    emulator.ask("faults", {"method": "SandboxTerminate*", "fault": {"status": {"code": 7, "message": "not permitted"}}})
    try:
        with pytest.raises(Exception, match="not permitted"):
            await environment.stop(delete=True)
    finally:
        emulator.ask("faults", method="DELETE")
    assert f"the sandbox {sandbox.id} was not terminated" in caplog.text
    async with Provider.open("modal") as provider:
        await provider.sandbox(sandbox.id).terminate()


def in_terminal(command: list[str], env: dict[str, str], typed: bytes) -> tuple[bytes, int]:
    """Runs a program in a terminal and returns its output and its exit code."""
    here, there = os.openpty()
    process = subprocess.Popen(command, env=env, stdin=there, stdout=there, stderr=there, start_new_session=True)
    os.close(there)
    os.write(here, typed)
    output = b""
    try:
        while data := os.read(here, 4096):
            output += data
    except OSError:
        pass  # The program has closed the terminal.
    finally:
        os.close(here)
    return output, process.wait(timeout=60)


async def test_attach_opens_a_shell(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = await start(owner="attached")
    monkeypatch.setenv("PATH", f"{Path(os.environ['SANDBOX_PROGRAM']).parent}:{os.environ['PATH']}")
    called: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: called.append(arguments))
    await environment.attach()
    ((program, arguments, env),) = called
    output, code = await asyncio.to_thread(in_terminal, [program, *arguments[1:]], env, b"cat words.txt; exit 5\n")
    assert b"apple" in output and code == 5, output
    assert environment._sandbox is not None and "sandbox-lease" not in await environment._sandbox.tags()


KILLED = """
import asyncio, logging, os, signal, sys
from pathlib import Path
from harbor.models.task.config import EnvironmentConfig
from harbor.models.trial.paths import TrialPaths
from sandbox_host.harbor import SandboxEnvironment
here = Path(sys.argv[1])
async def main():
    config = EnvironmentConfig(docker_image="debian:13")
    more = {"owner": "killed-harbor", "lease_sec": 30}
    environment = SandboxEnvironment(here, "killed", "killed__env", TrialPaths(here), config, **more)
    await environment.start(False)
    print(environment._sandbox.id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_a_killed_run_can_be_swept(tmp_path: Path) -> None:
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    async with Provider.open("modal") as provider:
        sandbox = provider.sandbox(ran.stdout.strip())
        tags = await sandbox.tags()
        assert tags["sandbox-owner"] == "killed-harbor", ran.stderr
        # As if the lease had ended long ago.
        await sandbox.set_tags({**tags, "sandbox-lease": "1000"})
        assert [each.id for each in await provider.sweep("killed-harbor") if each.terminated] == [sandbox.id]


async def test_environments_share_one_provider(start: Start) -> None:
    first, second = await asyncio.gather(start(), start())
    assert first._sandbox is not None and second._sandbox is not None
    provider = first._sandbox.provider
    assert second._sandbox.provider is provider
    other = await start(app="another")
    assert other._sandbox is not None and other._sandbox.provider is not provider
    await first.stop(delete=True)
    assert (await second.exec("echo still")).stdout == "still\n"
    await second.stop(delete=True)
    assert "closed" in repr(provider)
    assert len(under_test._opened[asyncio.get_running_loop()]) == 1


# ---- commands ----------------------------------------------------------------------------------------------------


async def test_exec_has_directory_variables_and_user(environment: SandboxEnvironment) -> None:
    result = await environment.exec(
        'pwd; echo "$A $B"; id -un; echo "$HOME"', cwd="/tmp", env={"A": "1", "B": "2 3"}, user="tester"
    )
    assert result.stdout == "/tmp\n1 2 3\ntester\n/home/tester\n"
    assert (await environment.exec("id -un", user=1234)).stdout == "tester\n"
    with environment.with_default_user("tester"):
        assert (await environment.exec("id -un")).stdout == "tester\n"
        assert (await environment.exec("id -un", user="root")).stdout == "root\n"


async def test_exec_separates_the_streams_and_returns_the_code(environment: SandboxEnvironment) -> None:
    result = await environment.exec("echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.return_code) == ("out\n", "err\n", 7)
    assert (await environment.exec("kill -TERM $$")).return_code == 143
    assert (await environment.exec("no-such-program")).return_code == 127
    assert (await environment.exec("cat")).stdout == ""
    assert (await environment.exec("[[ a < b ]] && echo bash")).stdout == "bash\n"
    assert (await environment.exec(r"printf 'a\377b'")).stdout == "a\ufffdb"


async def test_exec_has_a_time_limit(environment: SandboxEnvironment) -> None:
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="2 seconds had passed") as raised:
        await environment.exec("sleep 300 & sleep 301", timeout_sec=2)
    # Harbor would take a TimeoutError for the end of the phase.
    assert not isinstance(raised.value, TimeoutError) and time.monotonic() - begun < 30
    assert (await environment.exec("pgrep -cf '[s]leep 30'")).stdout == "0\n"


async def test_a_cancelled_command_is_killed(environment: SandboxEnvironment) -> None:
    task = asyncio.ensure_future(environment.exec("touch /begun; sleep 300"))
    while not await environment.is_file("/begun"):
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    end = time.monotonic() + DEADLINE
    while (await environment.exec("pgrep -cf '[s]leep 30'")).stdout != "0\n":
        assert time.monotonic() < end


async def test_variables_come_from_task_trial_and_command(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ON_THIS_MACHINE", "secret")
    environment = await start(
        config={"env": {"TASK": "${ON_THIS_MACHINE}", "BOTH": "task", "ELSE": "${NOT_SET:-default}"}},
        persistent_env={"BOTH": "trial"},
    )
    command = 'echo "$TASK $BOTH $ELSE $MORE"'
    assert (await environment.exec(command)).stdout == "secret trial default \n"
    assert (await environment.exec(command, env={"MORE": "x", "TASK": "y"})).stdout == "y trial default x\n"
    with environment.scoped_exec_env({"MORE": "scoped"}):
        assert (await environment.exec(command, env={"MORE": "x"})).stdout == "secret trial default scoped\n"


async def test_output_is_streamed_to_callbacks(environment: SandboxEnvironment) -> None:
    seen: list[tuple[str, str]] = []
    arrived = asyncio.Event()

    async def take(text: str, stream: str) -> None:
        seen.append((stream, text))
        arrived.set()

    with environment.scoped_output_callback(take):
        task = asyncio.ensure_future(
            environment.exec(
                r"echo one; until [ -e /go ]; do sleep 0.05; done; printf '\303'; printf '\274'; echo e >&2; exit 4"
            )
        )
        await arrived.wait()
    assert seen == [("stdout", "one\n")] and not task.done()
    assert (await environment.exec("touch /go")).return_code == 0
    result = await task
    assert (result.stdout, result.stderr, result.return_code) == ("one\nü", "e\n", 4)
    assert "".join(text for stream, text in seen if stream == "stdout") == "one\nü"
    assert ("stderr", "e\n") in seen


async def test_a_failing_callback_ends_the_command(environment: SandboxEnvironment) -> None:
    async def fail(text: str, stream: str) -> None:
        raise LookupError(text)

    with environment.scoped_output_callback(fail), pytest.raises(LookupError):
        await environment.exec("echo one; sleep 300")
    with environment.scoped_output_callback(fail), pytest.raises(RuntimeError, match="seconds had passed"):
        await environment.exec("sleep 300", timeout_sec=1)
    end = time.monotonic() + DEADLINE
    while (await environment.exec("pgrep -cf '[s]leep 30'")).stdout != "0\n":
        assert time.monotonic() < end


async def test_of_long_output_the_end_is_kept(start: Start) -> None:
    environment = await start(output_max_mib=1)
    command = "head -c 3000000 /dev/zero | tr '\\0' x; echo end"

    async def ignore(text: str, stream: str) -> None:
        pass

    whole = (await environment.exec(command)).stdout
    with environment.scoped_output_callback(ignore):
        streamed = (await environment.exec(command)).stdout
    assert whole is not None and streamed is not None
    assert len(whole) == 1 << 20 and whole.endswith("xend\n")
    assert 1 << 20 <= len(streamed) < (1 << 20) + 200_000 and streamed.endswith("xend\n")


async def test_health_is_checked_by_commands(environment: SandboxEnvironment) -> None:
    await environment.run_healthcheck(HealthcheckConfig(command="test -s /app/words.txt"))
    with pytest.raises(HealthcheckError):
        await environment.run_healthcheck(HealthcheckConfig(command="false", retries=2, interval_sec=0.01))


async def test_a_sandbox_that_ended_is_an_error(start: Start, emulator: Emulator) -> None:
    environment = await start()
    assert environment._sandbox is not None
    task = asyncio.ensure_future(environment.exec("touch /begun; sleep 300"))
    while not await environment.is_file("/begun"):
        assert not task.done()
    emulator.ask("lose-worker", {"sandbox_id": environment._sandbox.id})
    with pytest.raises(Exception, match=r"(?i)ended|lost|gone|not"):
        await task


async def test_only_the_main_service_exists(environment: SandboxEnvironment) -> None:
    assert (await environment.service_exec("echo main", service="main")).stdout == "main\n"
    assert (await environment.service_is_dir("/app")) is True
    with pytest.raises(ServiceOperationsUnsupportedError):
        await environment.service_exec("echo other", service="store")


# ---- files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with everything that a transfer has to keep."""
    top = tmp_path / "tree"
    (top / "deep/er").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (top / "run.sh").chmod(0o750)
    (top / "deep/er/ü ").write_text("name")
    (top / "link").symlink_to("deep/er")
    return top


LISTING = "find . -mindepth 1 -printf '%y %m %P %l\\n' | sort"
EXPECTED = ["d 755 deep ", "d 755 deep/er ", "d 755 empty ", "f 644 deep/er/ü  ", "f 750 run.sh ", "l 777 link deep/er"]


async def test_files_keep_content_and_mode(environment: SandboxEnvironment, tmp_path: Path) -> None:
    source = tmp_path / "tool"
    source.write_bytes(b"#!/bin/sh\necho tool\n")
    source.chmod(0o755)
    await environment.upload_file(source, "/new/parents/tool")
    assert (await environment.exec("/new/parents/tool; stat -c %a /new/parents/tool")).stdout == "tool\n755\n"
    await environment.upload_file(str(source), "/app")
    await environment.upload_file(source, "/new/")
    assert (await environment.exec("/app/tool; /new/tool")).stdout == "tool\ntool\n"
    await environment.download_file("/app/tool", tmp_path / "back/parents/copy")
    assert (tmp_path / "back/parents/copy").read_bytes() == source.read_bytes()
    await environment.download_file("/app/words.txt", tmp_path / "back")
    assert (tmp_path / "back/words.txt").read_text() == "pear\napple\n"
    with pytest.raises(Exception, match="no such file"):
        await environment.download_file("/not/there", tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        await environment.upload_file(tmp_path / "missing", "/x")


async def test_big_files_keep_all_bytes(environment: SandboxEnvironment, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(40 << 20)
    (tmp_path / "big").write_bytes(data)
    await environment.upload_file(tmp_path / "big", "/big")
    digest = hashlib.sha256(data).hexdigest()
    assert ((await environment.exec("sha256sum </big")).stdout or "").split()[0] == digest
    await environment.download_file("/big", tmp_path / "back")
    assert hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest() == digest


async def test_directories_are_uploaded_with_everything(environment: SandboxEnvironment, tree: Path) -> None:
    await environment.exec("mkdir -p /target/deep && echo old >/target/run.sh && echo kept >/target/deep/kept")
    await environment.upload_dir(tree, "/target")
    found = (await environment.exec(f"rm /target/deep/kept && {LISTING}", cwd="/target")).stdout or ""
    assert found.splitlines() == EXPECTED
    assert (await environment.exec("/target/run.sh; cat '/target/link/ü '")).stdout == "ran\nname"
    with pytest.raises(FileNotFoundError):
        await environment.upload_dir(tree / "missing", "/target")


async def test_directories_are_downloaded_with_everything(
    environment: SandboxEnvironment, tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await environment.upload_dir(tree, "/source")
    await environment.exec("mkfifo /source/pipe && ln -s /etc/passwd /source/outside && ln -s ../../x /source/up")
    target = tmp_path / "target"
    target.mkdir()
    (target / "run.sh").write_text("old")
    (target / "kept").write_text("kept")
    await environment.download_dir("/source", target)
    assert (target / "kept").read_text() == "kept"
    (target / "kept").unlink()
    found = await asyncio.to_thread(subprocess.run, LISTING, shell=True, cwd=target, capture_output=True, text=True)
    assert found.stdout.splitlines() == EXPECTED
    assert (target / "run.sh").read_text() == "#!/bin/sh\necho ran\n"
    with pytest.raises(Exception, match=r"(?i)no such file"):
        await environment.download_dir("/not/there", target)


async def test_directories_are_downloaded_in_parts(environment: SandboxEnvironment, tree: Path, tmp_path: Path) -> None:
    await environment.upload_dir(tree, "/source")
    await environment.download_dir_with_exclusions(
        source_dir="/source", target_dir=tmp_path / "most", exclude=["deep", "empty"]
    )
    assert sorted(os.listdir(tmp_path / "most")) == ["link", "run.sh"]
    await environment.download_dir_filtered(source_dir="/source", target_dir=tmp_path / "some", include=["*.sh"])
    assert os.listdir(tmp_path / "some") == ["run.sh"]


async def test_kinds_of_paths_are_known(environment: SandboxEnvironment) -> None:
    await environment.exec("ln -s /app /to-dir; ln -s /app/words.txt /to-file; ln -s /gone /dangling; mkfifo /pipe")
    for path, is_dir, is_file in [
        ("/app", True, False),
        ("/to-dir", True, False),
        ("/app/words.txt", False, True),
        ("/to-file", False, True),
        ("/dangling", False, False),
        ("/pipe", False, False),
        ("/not/there", False, False),
        ("/app/words.txt/below", False, False),
    ]:
        assert (await environment.is_dir(path), await environment.is_file(path)) == (is_dir, is_file), path


async def test_directories_are_made_emptied_and_reset(environment: SandboxEnvironment) -> None:
    await environment.ensure_dirs(["/a/b", "/c d"])
    await environment.exec("touch /a/b/x '/c d/y'")
    assert (await environment.exec("stat -c %a /a/b '/c d'", user="tester")).stdout == "777\n777\n"
    await environment.empty_dirs(["/a/b"])
    assert (await environment.exec("ls -A /a/b '/c d'")).stdout == "/a/b:\n\n/c d:\ny\n"
    await environment.reset_dirs(remove_dirs=["/c d", "/a"], create_dirs=["/e"], chmod_dirs=["/e"])
    assert (await environment.exec("ls -d /a '/c d' /e 2>/dev/null")).stdout == "/e\n"


async def test_nothing_is_mounted(environment: SandboxEnvironment, tmp_path: Path) -> None:
    assert environment.is_path_mounted("/logs/agent", tmp_path) is False
    await environment.prepare_logs_for_host()


# ---- network -----------------------------------------------------------------------------------------------------


async def test_policies_become_those_of_the_sandbox(start: Start, specs: list[SandboxSpec]) -> None:
    empty = NetworkPolicy(network_mode=NetworkMode.ALLOWLIST)
    for policy in (PUBLIC, BLOCKED, LISTED, empty):
        await start(network_policy=policy)
    assert [spec.network.outbound for spec in specs] == ["open", "blocked", "allowed", "blocked"]
    assert specs[2].network.domains == ["example.org", "*.example.com"]
    assert specs[2].network.cidrs == ["10.1.2.3/32", "10.2.0.0/16"]


@pytest.mark.parametrize("first", [BLOCKED, LISTED, PUBLIC], ids=["blocked", "listed", "public"])
async def test_the_policy_changes_while_it_runs(first: NetworkPolicy, start: Start) -> None:
    environment = await start(network_policy=first, phase_network_policies=[BLOCKED, LISTED, PUBLIC])
    assert environment.network_policy == first
    for policy in (LISTED, PUBLIC, BLOCKED):
        await environment.set_network_policy(policy)
        assert environment.network_policy == policy
    assert (await environment.exec("echo alive")).stdout == "alive\n"
    with pytest.raises(ValueError, match="IPv6"):
        await environment.set_network_policy(NetworkPolicy(network_mode=NetworkMode.ALLOWLIST, allowed_hosts=["2001:db8::/32"]))
    assert environment.network_policy == BLOCKED


async def test_phases_of_a_provider_without_changes_must_agree(make: Make) -> None:
    with pytest.raises(ValueError, match="cannot change network policy after start"):
        make(provider="docker", network_policy=PUBLIC, phase_network_policies=[BLOCKED])


async def test_a_change_before_the_start_is_an_error(make: Make) -> None:
    environment = make()
    with pytest.raises(RuntimeError, match="not running"):
        await environment.set_network_policy(BLOCKED)
    assert environment.network_policy == PUBLIC
