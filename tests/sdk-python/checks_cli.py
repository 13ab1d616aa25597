"""Apps that run as long as a script, and the commands of the official command line that concern sandboxes.

The table in `docs/emulator.md` lists the commands that work. Each of its rows has a check here.
"""

from collections.abc import Callable
from typing import Any
import decimal
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import modal
from harness import equal, eventually, fresh, raises, sandbox, sh

ROOT = pathlib.Path(__file__).parents[2]

COMMANDS: dict[str, Callable[[], None]] = {}


def command(*rows: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Names the rows of the table that a check covers."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        COMMANDS.update(dict.fromkeys(rows, function))
        return function

    return register


def run(*args: str, code: int = 0, **options: Any) -> str:
    """Runs `modal`, which must exit with `code`, and returns its output."""
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    # Without standard input a question fails instead of waiting for an answer.
    options.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(
        [sys.executable, "-m", "modal", *args], env=env, text=True, capture_output=True, timeout=120, **options
    )
    assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    return str(done.stdout if code == 0 else done.stdout + done.stderr)


def prints(wanted: str, *args: str) -> None:
    """Runs `modal ... --no-pty` until its output ends with the text. The client ends with the command that it runs, and may
    lose the end of the output (`wait` in `container_process.py` of modal 1.6.4).
    """
    eventually(lambda: run(*args).endswith(wanted), 300)


def test_command_line_every_row_of_the_table_in_docs_emulator_md_has_a_check() -> None:
    """command line: every row of the table in docs/emulator.md has a check"""
    manual = (ROOT / "docs/emulator.md").read_text()
    section = manual.split("\n## The official command line\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| `modal ")]
    equal(sorted(rows), sorted(f"`modal {row}`" for row in COMMANDS))


def test_app_run_the_sandboxes_of_an_app_end_with_it() -> None:
    """app.run: the sandboxes of an app end with it"""
    app = modal.App(fresh("run"))
    with app.run():
        own = modal.Sandbox.create(app=app, timeout=600)
        equal(sh(own, "echo inside")[0], "inside\n")
        equal(own.poll(), None)
    eventually(lambda: modal.Sandbox.from_id(own.object_id).poll() is not None)
    raises(modal.exception.Error, modal.Sandbox.create, app=app)


def test_app_run_with_output_the_script_shows_the_output_of_its_sandbox_and_ends_with_the_app() -> None:
    """app.run: with output, the script shows the output of its sandbox and ends with the app"""
    script = """
import modal
app = modal.App("shown")
with modal.enable_output(), app.run():
    own = modal.Sandbox.create("sh", "-c", "echo from the sandbox", app=app)
    own.wait()
"""
    env = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=env, text=True, capture_output=True, timeout=120)
    text = done.stdout + done.stderr
    assert done.returncode == 0 and "from the sandbox" in text and "App completed" in text, text


def test_app_run_sandboxes_end_with_an_app_whose_script_fails() -> None:
    """app.run: sandboxes end with an app whose script fails"""
    app = modal.App(fresh("fail"))

    def fail() -> None:
        with app.run():
            sandboxes.append(modal.Sandbox.create(app=app, timeout=600))
            raise RuntimeError("of the script")

    sandboxes: list[Any] = []
    raises(RuntimeError, fail, containing="of the script")
    eventually(lambda: modal.Sandbox.from_id(sandboxes[0].object_id).poll() is not None)


def test_app_run_a_detached_app_ends_with_the_last_of_its_sandboxes() -> None:
    """app.run: a detached app ends with the last of its sandboxes"""
    app = modal.App(fresh("detached"))
    with app.run(detach=True):
        own = modal.Sandbox.create(app=app, timeout=600)
        app_id = app.app_id
    equal(own.poll(), None)
    assert state(app_id) == "ephemeral (detached)", state(app_id)
    own.terminate()
    eventually(lambda: state(app_id) == "stopped")


def state(app_id: str | None) -> str | None:
    """Returns the state of an app from the list of the command line."""
    apps = json.loads(run("app", "list", "--json"))
    return next((app["state"] for app in apps if app["app_id"] == app_id), None)


def test_app_deploy_an_app_without_functions_can_be_deployed_twice() -> None:
    """app.deploy: an app without functions can be deployed twice"""
    name = fresh("deployed")
    modal.App(name).deploy()
    again = modal.App.lookup(name)
    modal.App(name).deploy()
    equal(modal.App.lookup(name).app_id, again.app_id)
    with sandbox(app=again) as own:
        equal(sh(own, "echo $((1 + 1))")[0], "2\n")


def test_stats_a_sandbox_reports_cost_percentiles_and_billed_seconds_also_after_its_end() -> None:
    """stats: a sandbox reports cost, percentiles and billed seconds, also after its end"""
    with sandbox("sh", "-c", "while :; do :; done", cpu=0.25, memory=256) as own:
        stats = eventually(lambda: (found := own._experimental_stats()).cost is not None and found)
    own.wait(raise_on_termination=False)
    stats = own._experimental_stats()
    equal(set(stats.cost_by_resource), {"CPU", "Memory"})
    equal(stats.cost, sum(stats.cost_by_resource.values()))
    assert stats.cost > decimal.Decimal(0), stats
    seconds = stats.duration.total_seconds()
    assert stats.billed_cpu_core_seconds >= 0.25 * seconds * 0.5 and stats.billed_memory_gib_seconds > 0, stats
    assert {"CPU Usage (cores)", "Memory Usage (GiB)"} == set(stats.percentile_stats), stats
    raises(modal.exception.InvalidError, own._experimental_stats, since=stats.until, until=stats.since)


@command("run")
def test_command_line_run_calls_a_local_entrypoint() -> None:
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder, "script.py")
        script.write_text(
            "import modal\napp = modal.App('s')\n@app.local_entrypoint()\ndef main():\n"
            "    print(modal.Sandbox.create('echo', 'ran', app=app).stdout.read())\n"
        )
        assert "ran" in run("run", str(script))


@command("shell", "shell SANDBOX", "shell IMAGE")
def test_command_line_shells_open_in_images_and_sandboxes() -> None:
    prints("new\n/\n", "shell", "--no-pty", "--cmd", "echo new; pwd")
    image = modal.Image.debian_slim().run_commands("echo of-image > /x").build(modal.App.lookup("cli", create_if_missing=True))
    prints("of-image\n", "shell", "--no-pty", "--cmd", "cat /x", image.object_id)
    with sandbox() as own:
        sh(own, "echo running > /x")
        prints("running\n", "shell", "--no-pty", "--cmd", "cat /x", own.object_id)


@command("container list", "container exec", "container logs", "container stop")
def test_command_line_containers_are_listed_used_and_stopped() -> None:
    app = modal.App.lookup(fresh("cli"), create_if_missing=True)
    with sandbox("sh", "-c", "echo said; sleep 600", app=app) as own:
        eventually(lambda: "said" in run("container", "logs", own.object_id, "--all"))
        found = [one for one in json.loads(run("container", "list", "--json")) if one["app_id"] == app.app_id]
        equal(len(found), 1)
        task = found[0]["container_id"]
        prints("in it\n", "container", "exec", "--no-pty", task, "echo", "in it")
        run("container", "stop", "--yes", task)
        own.wait(raise_on_termination=False)
        equal(own.returncode, 137)
        assert "already stopped" in run("container", "stop", "--yes", task, code=1)


@command("app list", "app logs", "app stop")
def test_command_line_apps_are_listed_logged_and_stopped() -> None:
    name = fresh("cli")
    app = modal.App.lookup(name, create_if_missing=True)
    with sandbox("sh", "-c", "echo to the log; sleep 600", app=app) as own:
        equal(state(app.app_id), "deployed")
        eventually(lambda: "to the log" in run("app", "logs", name, "--tail", "10"))
        run("app", "stop", "--yes", name)
        own.wait(raise_on_termination=False)
    equal(state(app.app_id), "stopped")
    assert "already stopped" in run("app", "stop", "--yes", name, code=1)
    assert "to the log" in run("app", "logs", str(app.app_id), "--tail", "10")
    assert "no-such-app" in run("app", "logs", "no-such-app", code=1).lower()


@command(
    "volume create",
    "volume list",
    "volume put",
    "volume ls",
    "volume get",
    "volume cp",
    "volume rm",
    "volume rename",
    "volume delete",
)
def test_command_line_volumes_are_created_filled_and_deleted() -> None:
    name, other = fresh("vol"), fresh("vol")
    run("volume", "create", name)
    assert name in run("volume", "list")
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder, "tree")
        (tree / "sub").mkdir(parents=True)
        (tree / "one").write_text("1")
        (tree / "sub/two").write_text("2")
        run("volume", "put", name, str(tree), "/data")
        run("volume", "put", name, str(tree / "one"), "/single")
        assert "already exists" in run("volume", "put", name, str(tree / "one"), "/single", code=2)
        equal(run("volume", "ls", name, "/data").split(), ["data/one", "data/sub"])
        run("volume", "get", name, "data", folder)
        equal(pathlib.Path(folder, "data/sub/two").read_text(), "2")
        assert run("volume", "get", name, "single", "-").startswith("1")
    run("volume", "cp", name, "single", "copy")
    run("volume", "rm", name, "single")
    run("volume", "rm", "--recursive", name, "data")
    equal(run("volume", "ls", name).split(), ["copy"])
    assert "no such file" in run("volume", "rm", name, "single", code=1).lower()
    run("volume", "rename", "--yes", name, other)
    with sandbox(volumes={"/v": modal.Volume.from_name(other)}) as own:
        equal(sh(own, "cat /v/copy")[0], "1")
    run("volume", "delete", "--yes", other)
    assert other not in run("volume", "list")


@command("environment list", "environment create", "environment delete")
def test_command_line_environments_are_created_and_deleted() -> None:
    name = fresh("env")
    run("environment", "create", name)
    assert "already exists" in run("environment", "create", name, code=1)
    assert name in run("environment", "list")
    app = modal.App.lookup("inside", environment_name=name, create_if_missing=True)
    own = modal.Sandbox.create(app=app, timeout=600)
    run("environment", "delete", "--yes", name)
    eventually(lambda: modal.Sandbox.from_id(own.object_id).poll() is not None)
    assert name not in run("environment", "list")
    raises(modal.exception.NotFoundError, modal.App.lookup, "inside", environment_name=name)


@command("secret create", "secret list", "secret delete")
def test_command_line_secrets_are_created_and_deleted() -> None:
    name = fresh("secret")
    run("secret", "create", name, "KEY=value")
    assert name in run("secret", "list")
    with sandbox(secrets=[modal.Secret.from_name(name)]) as own:
        equal(sh(own, "echo $KEY")[0], "value\n")
    run("secret", "delete", "--yes", name)
    assert name not in run("secret", "list")


@command("image build", "image pull", "image logs", "image names list", "image names history", "image names delete")
def test_command_line_images_are_built_pulled_and_named() -> None:
    name = fresh("image")
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "Dockerfile").write_text("FROM debian\nCOPY here /here\nRUN echo built-now\n")
        pathlib.Path(folder, "here").write_text("content")
        run("image", "build", "-t", name, folder)
    run("image", "pull", "docker.io/library/debian:12", "--name", f"{name}:pulled")
    image = modal.Image.from_name(name)
    with sandbox(image=image) as own:
        equal(sh(own, "cat /here")[0], "content")
    listed = json.loads(run("image", "names", "list", "--prefix", name, "--json"))
    equal([item["tag"] for item in listed], [f"{name}:latest", f"{name}:pulled"])
    assert "built-now" in run("image", "logs", "--all", listed[0]["image_id"])
    assert listed[0]["image_id"] in run("image", "names", "history", name)
    run("image", "names", "delete", "--yes", f"{name}:pulled")
    equal(len(json.loads(run("image", "names", "list", "--prefix", name, "--json"))), 1)
