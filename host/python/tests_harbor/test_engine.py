"""The environment for Harbor on a real dockerd, with directories of this machine mounted."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Start
from harbor.models.task.config import NetworkMode, NetworkPolicy
from test_tasks import rewards, run, scripted, written

pytestmark = pytest.mark.usefixtures("engine")

IMAGE = "tools:latest"
DOCKERFILE = f"FROM {IMAGE}\nWORKDIR /app\nCOPY words.txt ./\n"


def leave_out(reason: str) -> None:
    """Skips the test and prints the reason. Fails in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"A container engine is needed in CI: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """Starts an engine by the program of the crate `tests/engines` and sets `DOCKER_HOST`."""
    program = os.environ.get("ENGINES_PROGRAM")
    if not program:
        leave_out("ENGINES_PROGRAM does not name the program that starts engines")
    process = subprocess.Popen(
        [str(program), "start", "dockerd"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    if not line:
        said = process.stderr.read().strip()
        process.wait(timeout=60)
        if "cannot run here" in said:
            leave_out(said)
        pytest.fail(f"the engine did not start: {said}")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("DOCKER_")]:
            patch.delenv(name)
        # At a socket of this machine, directories of this machine can be mounted.
        host = f"unix://{json.loads(line)['folder']}/api.sock"
        patch.setenv("DOCKER_HOST", host)
        yield host
    # The program ends the engine when its standard input ends.
    process.stdin.close()
    process.wait(timeout=120)


@pytest.mark.asyncio
async def test_commands_and_files(start: Start, tmp_path: Path) -> None:
    environment = await start(
        provider="docker",
        dockerfile=DOCKERFILE,
        config={"cpus": 1, "memory_mb": 256, "env": {"A": "1"}},
        network_policy=NetworkPolicy(network_mode=NetworkMode.NO_NETWORK),
    )
    result = await environment.exec('pwd; cat words.txt; echo "$A"; echo error >&2; exit 4')
    assert (result.stdout, result.stderr, result.return_code) == ("/app\npear\napple\n1\n", "error\n", 4)
    assert (await environment.exec("id -u", user=1234)).stdout == "1234\n"
    with pytest.raises(RuntimeError, match="seconds had passed"):
        await environment.exec("sleep 300", timeout_sec=1)
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    (tree / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("run.sh")
    await environment.upload_dir(tree, "/target")
    assert (await environment.exec("/target/link; ls -A /target/empty")).stdout == "ran\n"
    # What another user owns is read and written by root.
    await environment.exec("mkdir -m 700 /private && echo secret >/private/file")
    await environment.upload_file(tree / "run.sh", "/private/run.sh")
    await environment.download_dir("/private", tmp_path / "private")
    assert sorted(os.listdir(tmp_path / "private")) == ["file", "run.sh"]
    assert await environment.is_file("/private/file") and not await environment.is_file("/private/file", user=1234)


@pytest.mark.asyncio
async def test_an_image_with_another_user(start: Start) -> None:
    environment = await start(
        provider="docker",
        dockerfile=DOCKERFILE + "USER 1234\n",
        auto_mounts=[{"type": "bind", "source": "/nowhere", "target": "/logs/agent"}],
    )
    assert (await environment.exec("id -u; stat -c '%a %u' /logs/agent")).stdout == "1234\n777 0\n"
    assert (await environment.exec("id -u", user="root")).stdout == "0\n"


@pytest.mark.asyncio
async def test_stop_without_delete_keeps_the_files(start: Start) -> None:
    from sandbox_host import Provider

    environment = await start(provider="docker", dockerfile=None, config={"docker_image": IMAGE})
    await environment.exec("echo kept >/mark")
    assert environment._sandbox is not None
    id = environment._sandbox.id
    await environment.stop(delete=False)
    async with Provider.open("docker") as provider:
        sandbox = provider.sandbox(id)
        assert (await sandbox.info()).state.kind == "stopped"
        await sandbox.resume()
        assert (await sandbox.run("cat /mark")).text == "kept\n"
        await sandbox.terminate()


@pytest.mark.asyncio
async def test_directories_and_volumes_are_mounted(start: Start, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("from here\n")
    environment = await start(
        provider="docker",
        dockerfile=None,
        config={"docker_image": IMAGE},
        mounts=[
            {"type": "bind", "source": str(tmp_path / "data"), "target": "/data", "read_only": True},
            {"type": "volume", "source": "harbor-tests", "target": "/more"},
        ],
    )
    assert (await environment.exec("cat /data/file; touch /data/x || touch /more/x && echo more")).stdout == "from here\nmore\n"
    assert environment.is_path_mounted("/data/file", tmp_path / "data/file")
    assert not environment.is_path_mounted("/logs/agent", environment.trial_paths.agent_dir)


def test_harbor_runs_a_trial_with_mounted_logs(harbor: Callable[..., object], tmp_path: Path) -> None:
    files = {
        "task.toml": 'schema_version = "1.4"\n[environment]\n[verifier]\n',
        "instruction.md": "Write the answer.",
        "environment/Dockerfile": f"FROM {IMAGE}\nWORKDIR /app\n",
        "tests/test.sh": "#!/bin/sh\ngrep -qx 42 /app/answer\necho $((1 - $?)) >/logs/verifier/reward.txt\n",
    }
    task = written(tmp_path / "answer", files)
    options = ["--ek", "provider=docker", "--ek", "auto_mounting=true"]
    commands = scripted("echo 42 >answer; echo logged >/logs/agent/note; id -u")
    run(harbor, task, tmp_path / "jobs", "scripted:Scripted", *options, *commands)
    assert rewards(tmp_path / "jobs") == [{"reward": 1}]
    (note,) = (tmp_path / "jobs").glob("*/*/agent/note")
    assert note.read_text() == "logged\n" and note.stat().st_uid == os.getuid()
