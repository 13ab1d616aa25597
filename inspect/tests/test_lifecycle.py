"""How sandboxes start, and how they end: by themselves, with their sample, with the task, and by `inspect sandbox cleanup`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Emulator
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.util import SandboxEnvironment, SandboxUnavailableError
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv
from inspect_modal_sandbox import ModalSandboxConfig, ModalSandboxEnvironment, pacing
from inspect_modal_sandbox.lifecycle import create
from inspect_modal_sandbox.lifecycle.run import Created, current_run
from inspect_modal_sandbox.lifecycle.volumes import name_volumes
from inspect_modal_sandbox.provider import opened
from sandbox_host.compose.plan import Plan

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = ModalSandboxConfig(image="debian:13")


def provider() -> Any:
    return registry_find_sandboxenv("modal")


async def fresh() -> tuple[dict[str, SandboxEnvironment], ModalSandboxEnvironment]:
    environments = await provider().sample_init("contract", CONFIG, {"__sample_id__": 2})
    environment = environments["default"]
    assert isinstance(environment, ModalSandboxEnvironment)
    return environments, environment


async def until(box: SandboxEnvironment, command: str) -> None:
    """Waits in the sandbox until a command succeeds."""
    result = await box.exec(["sh", "-c", f"until {command}; do sleep 0.1; done"], timeout=60)
    assert result.success, result.stderr


# ---- the end of a sandbox -------------------------------------------------------------------------------------------


async def test_a_sandbox_that_ends_during_a_command_is_unavailable() -> None:
    environments, environment = await fresh()
    command = asyncio.ensure_future(environment.exec(["sh", "-c", "touch /tmp/begun; sleep 600"]))
    await until(environment, "[ -e /tmp/begun ]")
    await environment.created.sandbox.terminate()
    with pytest.raises(SandboxUnavailableError):
        await command
    with pytest.raises(SandboxUnavailableError):
        await environment.exec(["true"])
    with pytest.raises(SandboxUnavailableError):
        await environment.read_file("/etc/passwd")
    await provider().sample_cleanup("contract", CONFIG, environments, False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"user": "missing-user"}, "no user `missing-user`"),
        ({"secrets": "missing-one"}, "no secret `missing-one`"),
        ({"volumes": ({"name": "missing-one", "path": "/v"},)}, "no volume `missing-one`"),
        ({"region": "mars"}, "mars"),
        ({"options": {"colour": "1"}}, "option `colour` is unknown"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_an_impossible_configuration_is_an_error_and_leaves_nothing(changes: dict[str, Any], words: str) -> None:
    before = set(current_run().alive)
    config = ModalSandboxConfig.model_validate({"image": "debian:13", **changes})
    with pytest.raises((PrerequisiteError, SandboxUnavailableError), match=words):
        await provider().sample_init("contract", config, {"__sample_id__": 9})
    assert set(current_run().alive) == before


async def test_a_configuration_with_most_options() -> None:
    config = ModalSandboxConfig.model_validate(
        {
            "image": "debian:13",
            "cpu": (0.5, 2),
            "memory": (128, 1024),
            "gpu": "A100:2",
            "timeout": 600,
            "idle_timeout": 300,
            "network": {"cidrs": "192.0.2.0/24", "domains": "example.com"},
            "volumes": ({"name": "inspect-tests", "path": "/volume", "create": True},),
            "ports": (8000,),
            "workdir": "/made/for/it",
            "user": "nobody",
            "environment": {"A": "b c"},
            "tags": {"team": "red"},
            "app_name": "inspect-tests-app",
        }
    )
    environments = await provider().sample_init("contract", config, {"__sample_id__": 10})
    try:
        environment = environments["default"]
        said = await environment.exec(["sh", "-c", 'pwd; id -un; echo "$A"; grep -c " /volume " /proc/mounts'])
        assert said.stdout == "/made/for/it\nnobody\nb c\n1\n"
        assert isinstance(environment, ModalSandboxEnvironment)
        assert (await environment.created.sandbox.tags())["team"] == "red"
        (tunnel,) = await environment.created.sandbox.tunnels(30)
        assert tunnel.port == 8000 and tunnel.public_host and tunnel.public_port
    finally:
        await provider().sample_cleanup("contract", config, environments, False)


VOLUMES = """
services:
  default: {image: debian:13, command: tail -f /dev/null, volumes: ["both:/both", "own:/own"]}
  other: {image: debian:13, command: tail -f /dev/null, volumes: ["both:/both"]}
volumes: {both: , own: }
"""


async def is_gone(volume: str) -> bool:
    """Returns whether there is no volume of that name."""
    config = ModalSandboxConfig.model_validate({"image": "debian:13", "volumes": [{"name": volume, "path": "/v"}]})
    try:
        environments = await provider().sample_init("contract", config, {"__sample_id__": "looks"})
    except PrerequisiteError as error:
        assert f"no volume `{volume}`" in str(error)
        return True
    await provider().sample_cleanup("contract", config, environments, False)
    return False


def of(environments: dict[str, SandboxEnvironment]) -> ModalSandboxEnvironment:
    environment = environments["default"]
    assert isinstance(environment, ModalSandboxEnvironment)
    return environment


async def test_volumes_belong_to_their_sample_and_are_deleted_with_it(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(VOLUMES)
    first, second = [await provider().sample_init("contract", str(path), {"__sample_id__": f"v{n}"}) for n in (1, 2)]
    names = [volume for environments in (first, second) for volume in of(environments).created.volumes]
    assert len(set(names)) == 2 and all(f"v{number}" in name for number, name in enumerate(names, 1)), names
    assert not await is_gone(names[0])
    await first["default"].write_file("/both/x", "of the first")
    await first["default"].write_file("/own/x", "of the first")
    # The plugin does not reload volumes, so only the directory is visible in a container that runs already.
    assert (await first["other"].exec(["test", "-d", "/both"])).success
    for directory in ("both", "own"):
        assert not (await second["default"].exec(["test", "-e", f"/{directory}/x"])).success
    await provider().sample_cleanup("contract", str(path), first, False)
    assert await is_gone(names[0]) and not await is_gone(names[1])
    # The clean-up, in a process of its own, deletes the volume of the other sandbox.
    id = of(second).created.id
    assert f"Terminated {id}" in (await asyncio.to_thread(cleanup, id)).stdout
    assert await is_gone(names[1])
    current_run().alive.clear()


async def let_lease_expire(created: Created) -> None:
    """Makes a sandbox look as if its process had been killed long ago."""
    tags = await created.sandbox.tags()
    await created.sandbox.release()
    await created.sandbox.set_tags({**tags, "sandbox-lease": "1"})


@pytest.mark.parametrize("more", ["", "x-modal: {app_name: inspect-tests-elsewhere}"], ids=["same app", "other app"])
async def test_volumes_of_a_killed_run_are_removed_by_the_next(tmp_path: Path, more: str) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(VOLUMES + more)
    left = of(await provider().sample_init("contract", str(path), {"__sample_id__": "v3"})).created
    await let_lease_expire(left)
    current_run().swept.clear()
    await provider().task_init("startup", CONFIG)
    assert await is_gone(left.volumes[0])
    current_run().alive.clear()


async def test_volumes_of_a_sandbox_that_is_refused_are_deleted(
    tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(VOLUMES)
    names: list[str] = []

    def noted(plan: Plan, tags: dict[str, str]) -> list[str]:
        names.extend(name_volumes(plan, tags))
        return list(names)

    monkeypatch.setattr(create, "name_volumes", noted)
    emulator.ask("faults", {"method": "SandboxCreate*", "fault": {"status": {"code": 9, "message": "closed"}}})
    try:
        with pytest.raises(RuntimeError, match="closed"):
            await provider().sample_init("contract", str(path), {"__sample_id__": "v4"})
    finally:
        emulator.ask("faults", method="DELETE")
    monkeypatch.undo()
    assert len(names) == 1 and await is_gone(names[0])


async def test_sandboxes_of_a_killed_run_are_terminated_by_the_next(capfd: pytest.CaptureFixture[str]) -> None:
    left, kept = [(await fresh())[1].created for _ in range(2)]
    await let_lease_expire(left)
    current_run().swept.clear()
    await provider().task_init("startup", CONFIG)
    said = capfd.readouterr().out
    assert left.id in said and kept.id not in said
    found = await kept.provider.list(tags={"sandbox-owner": "inspect-tests"}, max=10)
    assert [sandbox.id for sandbox in found] == [kept.id]
    await provider().task_cleanup("shutdown", CONFIG, True)


async def test_a_command_is_lost_with_its_worker(emulator: Emulator) -> None:
    environments, environment = await fresh()
    command = asyncio.ensure_future(environment.exec(["sh", "-c", "touch /tmp/begun; sleep 600"]))
    await until(environment, "[ -e /tmp/begun ]")
    emulator.ask("lose-worker", {"sandbox_id": environment.created.id})
    with pytest.raises(SandboxUnavailableError):
        await command
    await provider().sample_cleanup("contract", CONFIG, environments, False)


async def test_clean_up_can_be_repeated() -> None:
    environments, environment = await fresh()
    for _ in range(2):
        await provider().sample_cleanup("contract", CONFIG, environments, False)
    assert environment.created.id not in current_run().alive
    for _ in range(2):
        await provider().task_cleanup("shutdown", CONFIG, True)


async def test_an_interrupted_sample_is_ended_with_the_task() -> None:
    environments, environment = await fresh()
    await provider().sample_cleanup("contract", CONFIG, environments, True)
    assert (await environment.exec(["true"])).success
    await provider().task_cleanup("shutdown", CONFIG, True)
    with pytest.raises(SandboxUnavailableError):
        await environment.exec(["true"])


INTERRUPTED = """
import asyncio
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv
from inspect_modal_sandbox import ModalSandboxConfig

async def main() -> None:
    config = ModalSandboxConfig(image="debian:13")
    await registry_find_sandboxenv("modal").sample_init("twice", config, {"__sample_id__": "twice"})
    raise KeyboardInterrupt

asyncio.run(main())
"""


async def test_a_second_interruption_leaves_nothing() -> None:
    """The second interruption ends the event loop before the hooks can terminate anything."""
    command = [sys.executable, "-c", INTERRUPTED]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120)
    assert "Terminating 1 Modal sandboxes" in ended.stdout, ended.stderr
    assert "KeyboardInterrupt" in ended.stderr
    assert await (await opened()).list(tags={"inspect-sample": "twice"}) == []


async def test_a_creation_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[object] = []

    async def turn(of: object) -> None:
        turns.append(of)

    monkeypatch.setattr(pacing, "turn", turn)
    environments, environment = await fresh()
    assert turns == [environment.created.provider]
    await provider().sample_cleanup("contract", CONFIG, environments, False)


async def test_a_cancelled_creation_leaves_nothing(emulator: Emulator) -> None:
    emulator.ask("faults", {"method": "SandboxCreateV2", "times": 1, "fault": {"delay": {"millis": 500}}})
    # The task runs in a copy of this context, so the state must exist before.
    run = current_run()
    task = asyncio.ensure_future(provider().sample_init("cancelled", CONFIG, {"__sample_id__": "cancelled"}))
    while not run.creating:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await provider().task_cleanup("shutdown", CONFIG, True)
    assert await (await opened()).list(tags={"inspect-sample": "cancelled"}) == []


def cleanup(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("inspect")), "sandbox", "cleanup", "modal", *words]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


async def test_cleanup_by_the_command_line(emulator: Emulator) -> None:
    """It terminates only sandboxes of this owner, one of them by id. A failure gives exit code 1 and names the sandbox."""
    made = [(await fresh())[1] for _ in range(3)]
    ids = [environment.created.id for environment in made]
    other = await asyncio.to_thread(cleanup, INSPECT_MODAL_OWNER="another-owner")
    assert other.returncode == 0 and "There are no sandboxes" in other.stdout
    assert (await asyncio.to_thread(cleanup, ids[0], INSPECT_MODAL_OWNER="another-owner")).returncode != 0

    one = await asyncio.to_thread(cleanup, ids[0])
    assert one.returncode == 0 and f"Terminated {ids[0]}" in one.stdout and ids[1] not in one.stdout
    emulator.ask("faults", {"method": "SandboxTerminate*", "fault": {"status": {"code": 7, "message": "not today"}}})
    try:
        failed = await asyncio.to_thread(cleanup)
    finally:
        emulator.ask("faults", method="DELETE")
    assert failed.returncode == 1 and all(id in failed.stderr for id in ids[1:])
    rest = await asyncio.to_thread(cleanup)
    assert rest.returncode == 0 and all(f"Terminated {id}" in rest.stdout for id in ids[1:])
    assert await (await opened()).list(tags={"sandbox-owner": "inspect-tests"}) == []
    current_run().alive.clear()


async def test_cleanup_searches_all_apps_and_says_where() -> None:
    config = ModalSandboxConfig(image="debian:13", app_name="inspect-tests-elsewhere")
    environments = await provider().sample_init("contract", config, {"__sample_id__": 3})
    id = of(environments).created.id
    program = os.environ["SANDBOX_PROGRAM"]
    listed = await asyncio.to_thread(
        subprocess.run, [program, "list", "--tag", "sandbox-owner=inspect-tests"], capture_output=True, text=True, timeout=60
    )
    assert id in listed.stdout and "all apps of the default environment" in listed.stderr, listed
    done = await asyncio.to_thread(cleanup)
    assert f"Terminated {id}" in done.stdout and "in all apps of the default environment" in done.stdout
    assert "in all apps" in (await asyncio.to_thread(cleanup)).stdout
    current_run().alive.clear()


async def test_a_sandbox_is_in_the_app_that_its_configuration_names() -> None:
    configs = [CONFIG, ModalSandboxConfig(image="debian:13", app_name="inspect-tests-elsewhere")]
    samples = [await provider().sample_init("contract", config, {"__sample_id__": 3}) for config in configs]
    created = [of(environments).created for environments in samples]
    try:
        for one in created:
            found = await one.provider.list(tags={"sandbox-owner": "inspect-tests"})
            assert [sandbox.id for sandbox in found] == [one.id]
    finally:
        for config, environments in zip(configs, samples, strict=True):
            await provider().sample_cleanup("contract", config, environments, False)


async def test_cleanup_asks_on_a_terminal() -> None:
    made = [(await fresh())[1] for _ in range(2)]
    ids = [environment.created.id for environment in made]
    command = [str(Path(sys.executable).with_name("inspect")), "sandbox", "cleanup", "modal"]
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_CURRENT_TEST")}
    code, said = await asyncio.to_thread(typed, command, env, "\n")
    assert code == 0 and "Terminate these 2? [y/N]" in said and "Nothing was terminated" in said and "in use" in said
    assert sorted([one.id for one in await (await opened()).list(tags={"sandbox-owner": "inspect-tests"})]) == sorted(ids)
    code, said = await asyncio.to_thread(typed, command, {**env, "CI": "1"}, "")
    assert code == 0 and "Terminate these" not in said and all(f"Terminated {id}" in said for id in ids)
    current_run().alive.clear()


def typed(argv: list[str], env: dict[str, str], text: str) -> tuple[int, str]:
    """Runs a program on a terminal, types a text, and returns the exit code and what the terminal showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    os.close(theirs)
    os.write(ours, text.encode())
    seen = b""
    # Reading fails when the program has closed the terminal.
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 65536):
            seen += piece
    os.close(ours)
    return process.wait(timeout=60), seen.decode(errors="replace")


async def test_a_thousand_samples_take_no_thread_each(emulator: Emulator) -> None:
    number = 1000
    await asyncio.gather(*[fresh() for _ in range(5)])
    threads = len(os.listdir("/proc/self/task"))
    emulator.ask("faults", {"method": "TaskExecWait", "fault": {"delay": {"millis": 1}}})
    most = 0
    samples = [asyncio.ensure_future(fresh()) for _ in range(number)]
    try:
        made = []
        for sample in samples:
            made.append(await sample)
            most = max(most, len(os.listdir("/proc/self/task")))
        commands = [
            asyncio.ensure_future(environment.exec(["sh", "-c", "read x; echo $x"], input="y")) for _, environment in made
        ]
        for command in commands:
            assert (await command).stdout == "y\n"
            most = max(most, len(os.listdir("/proc/self/task")))
    finally:
        emulator.ask("faults", method="DELETE")
        await provider().task_cleanup("shutdown", CONFIG, True)
    assert most < threads + 50


async def test_a_sandbox_that_is_kept_has_no_lease_and_can_be_cleaned_up(capfd: pytest.CaptureFixture[str]) -> None:
    _, environment = await fresh()
    id = environment.created.id
    await provider().task_cleanup("shutdown", CONFIG, False)
    said = capfd.readouterr().out
    assert f"inspect sandbox cleanup modal {id}" in said
    tags = await (await opened()).sandbox(id).tags()
    assert "sandbox-lease" not in tags and tags["inspect-kept"] == "yes" and tags["inspect-task"] == "contract"
    assert f"Terminated {id}" in (await asyncio.to_thread(cleanup, id)).stdout
