"""Whole evaluations with `inspect eval` and a scripted model. The tests read the logs."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import Emulator
from inspect_ai.log import EvalLog, EvalSample, list_eval_logs, read_eval_log

EXAMPLES = Path(__file__).parent.parent / "examples"
INSPECT = str(Path(sys.executable).with_name("inspect"))


class Evaluation:
    """One call of `inspect`: its exit code, its output and its logs."""

    def __init__(self, words: list[str], logs: Path, **variables: str) -> None:
        ran = subprocess.run(
            [INSPECT, *words, "--display", "plain", "--log-dir", str(logs)],
            cwd=EXAMPLES.parent,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": str(EXAMPLES), **variables},
            stdin=subprocess.DEVNULL,
        )
        self.code, self.said = ran.returncode, ran.stdout + ran.stderr
        self.logs = {log.eval.task: log for log in map(read_eval_log, list_eval_logs(str(logs)))}

    def log(self, task: str) -> EvalLog:
        assert task in self.logs, self.said
        return self.logs[task]


def all_correct(log: EvalLog) -> bool:
    assert log.status == "success", log.error
    assert log.samples
    wrong = {sample.id: (sample.error, sample.scores) for sample in log.samples if not correct(sample.scores)}
    assert not wrong, wrong
    return True


def correct(scores: object) -> bool:
    return isinstance(scores, dict) and all(score.value == "C" for score in scores.values()) and bool(scores)


def left() -> list[dict[str, str]]:
    """Returns the tags of this owner's sandboxes that are still running."""

    async def look() -> list[dict[str, str]]:
        from inspect_modal_sandbox.provider import opened, owner

        return [sandbox.tags for sandbox in await (await opened()).list(tags={"sandbox-owner": owner()})]

    return asyncio.run(look())


def alive(emulator: Emulator) -> int:
    """Returns the number of this owner's sandboxes that are still running."""
    return len(left())


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory, emulator: Emulator) -> Evaluation:
    names = ["bash_tool", "python_tool", "editor", "session", "time_out", "dying"]
    return Evaluation(
        ["eval", *[f"examples/tools.py@{name}" for name in names], "--max-tasks", "6"], tmp_path_factory.mktemp("tools")
    )


@pytest.mark.parametrize("task", ["bash_tool", "python_tool", "editor", "session", "time_out", "dying"])
def test_tool_works_in_a_sandbox(tools: Evaluation, task: str) -> None:
    log = tools.log(task)
    assert all_correct(log) and log.samples
    (sample,) = log.samples
    actions = {event.action for event in sample.events if event.event == "sandbox"}
    assert "exec" in actions
    cost = costs(sample)
    assert str(cost["sandbox"]).startswith("sb-") and cost["execs"] > 0 and cost["retries"] == 0
    assert cost["start_secs"] > cost["create_secs"] > 0 and cost["first_exec_secs"] > 0
    assert task != "editor" or cost["bytes_sent"] > 10_000_000, "Inspect sends its tools into the sandbox"
    parts = cost["cost_by_resource_usd"]
    assert set(parts) == {"CPU", "Memory"} and cost["cost_usd"] == pytest.approx(sum(parts.values()))
    assert cost["cost_usd"] > 0 and cost["billed_cpu_core_secs"] > 0 and cost["billed_memory_gib_secs"] > 0


def costs(sample: EvalSample) -> dict[str, Any]:
    """Returns what the log of a sample says about its sandbox."""
    (cost,) = [event.data for event in sample.events if event.event == "info" and event.source == "modal"]
    assert isinstance(cost, dict)
    return cost


def test_tools_leave_nothing(tools: Evaluation, emulator: Emulator) -> None:
    assert tools.code == 0, tools.said
    assert alive(emulator) == 0


def test_images_of_samples(tmp_path: Path) -> None:
    names = ["per_sample", "by_metadata", "files_and_setup"]
    done = Evaluation(["eval", *[f"examples/images/images.py@{name}" for name in names]], tmp_path)
    assert all(all_correct(done.log(name)) for name in names)
    assert "COPY greeting.txt" in done.said, "the build log is not shown"
    assert done.said.count("COPY greeting.txt") == 1, "the image was built twice"


TWO = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate
from inspect_ai.util import ComposeConfig, SandboxEnvironmentSpec
from inspect_modal_sandbox import ModalSandboxConfig
from scripted import prints, scripted


def of(config):
    samples = [
        Sample(id=number, input="?", target="WHERE", sandbox=SandboxEnvironmentSpec("modal", config)) for number in range(2)
    ]
    return Task(dataset=samples, solver=generate(), scorer=prints("cat /where"), model=scripted())


@task
def native_WHERE():
    return of(ModalSandboxConfig(dockerfile="Dockerfile"))


@task
def compose_WHERE():
    services = {"default": {"build": ".", "command": "tail -f /dev/null"}}
    return of(ComposeConfig.model_validate({"services": services}))


@task
def relative_WHERE():
    return of("Dockerfile")
"""


def test_equal_configurations_of_tasks_in_different_directories_build_different_images(tmp_path: Path) -> None:
    """Equal configurations have relative paths that start at different directories."""
    for where in ("here", "there"):
        (tmp_path / where).mkdir()
        (tmp_path / where / "tasks.py").write_text(TWO.replace("WHERE", where))
        (tmp_path / where / "Dockerfile").write_text(f"FROM debian:13\nRUN echo {where} >/where\n")
    names = [f"{kind}_{where}" for where in ("here", "there") for kind in ("native", "compose", "relative")]
    tasks = [str(tmp_path / name.split("_")[1] / f"tasks.py@{name}") for name in names]
    done = Evaluation(["eval", *tasks, "--max-tasks", "6"], tmp_path / "logs")
    assert all(all_correct(done.log(name)) for name in names)


def test_a_broken_dockerfile_fails_the_run_once(tmp_path: Path) -> None:
    done = Evaluation(["eval", "examples/images/images.py@broken"], tmp_path)
    assert done.code != 0
    assert "about to fail" in done.said and done.said.count("=> FROM debian:13") == 1
    assert not any(log.samples for log in done.logs.values())


def test_services_of_a_sample(tmp_path: Path) -> None:
    done = Evaluation(["eval", "examples/services/services.py"], tmp_path)
    log = done.log("services")
    assert all_correct(log) and log.samples
    (answer,) = [message.text for message in log.samples[0].messages if message.role == "tool"]
    assert answer.split() == ["/srv", "agent", "secret"]


def test_100_samples_at_once(tmp_path: Path, emulator: Emulator) -> None:
    done = Evaluation(["eval", "examples/tools.py@many", "--max-samples", "100"], tmp_path)
    log = done.log("many")
    assert all_correct(log) and log.samples and len(log.samples) == 100
    assert alive(emulator) == 0


def test_the_type_can_be_given_on_the_command_line_and_the_log_retried(tmp_path: Path) -> None:
    dockerfile = EXAMPLES / "images/with-variable.Dockerfile"
    words = ["eval", "examples/tools.py@bash_tool", "--sandbox", f"modal:{dockerfile}", "--no-sandbox-cleanup"]
    done = Evaluation(words, tmp_path / "first")
    log = done.log("bash_tool")
    assert all_correct(log)
    assert log.eval.sandbox is not None and str(log.eval.sandbox.config).endswith("with-variable.Dockerfile")
    assert "inspect sandbox cleanup modal sb-" in done.said, "the command that ends the sandbox is not printed"
    assert log.samples
    (tags,) = left()
    assert (
        tags
        | {
            "inspect-task": "bash_tool",
            "inspect-sample": "1",
            "inspect-epoch": "1",
            "inspect-eval": log.eval.eval_id,
            "inspect-run": log.eval.run_id,
            "inspect-uuid": str(log.samples[0].uuid),
            "inspect-kept": "yes",
        }
        == tags
    )
    again = Evaluation(["eval-retry", log.location], tmp_path / "second")
    assert all_correct(again.log("bash_tool"))
    cleaned = subprocess.run([INSPECT, "sandbox", "cleanup", "modal"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert cleaned.returncode == 0 and "Terminated sb-" in cleaned.stdout


def test_a_task_for_docker_runs_here(tmp_path: Path) -> None:
    done = Evaluation(["eval", "tests/tasks.py@written_for_docker", "--sandbox", "modal"], tmp_path)
    assert all_correct(done.log("written_for_docker"))


def test_a_modal_config_survives_the_log(tmp_path: Path) -> None:
    done = Evaluation(["eval", "tests/tasks.py@configured"], tmp_path / "first")
    log = done.log("configured")
    assert all_correct(log)
    again = Evaluation(["eval-retry", log.location], tmp_path / "second").log("configured")
    assert all_correct(again)
    assert again.eval.sandbox is not None and log.eval.sandbox is not None
    assert again.eval.sandbox.type == "modal" and again.eval.sandbox.config == log.eval.sandbox.config


def test_no_more_sandboxes_at_once_than_permitted(tmp_path: Path) -> None:
    done = Evaluation(["eval", "tests/tasks.py@counted", "--max-sandboxes", "3"], tmp_path)
    log = done.log("counted")
    assert log.status == "success" and log.samples and len(log.samples) == 12
    assert 1 <= max(score.as_int() for sample in log.samples for score in (sample.scores or {}).values()) <= 3


def test_programs_are_followed_with_exec_remote(tmp_path: Path) -> None:
    done = Evaluation(["eval", "tests/tasks.py@followed"], tmp_path)
    assert all_correct(done.log("followed"))


def test_every_call_is_traced(tmp_path: Path) -> None:
    trace = tmp_path / "trace.log"
    done = Evaluation(["eval", "tests/tasks.py@talkative", "-T", "samples=1"], tmp_path, INSPECT_TRACE_FILE=str(trace))
    assert all_correct(done.log("talkative"))
    # Inspect compresses the trace when it ends.
    with gzip.open(trace.with_name("trace.log.gz"), "rt") as lines:
        records = [json.loads(line) for line in lines]
    actions = [(one["event"], one["detail"].split()[0]) for one in records if one.get("action") == "Modal"]
    for what in ("check", "sweep", "build", "create", "start", "exec", "terminate"):
        assert ("enter", what) in actions and ("exit", what) in actions, (what, actions)


@pytest.mark.parametrize(
    ("fault", "known"),
    [
        ({"status": {"code": 12, "message": "not served"}}, True),
        ({"status": {"code": 7, "message": "not for you"}}, False),
        ({"delay": {"millis": 600_000}}, False),
    ],
    ids=["not served", "refused", "late"],
)
def test_a_cost_that_is_not_told_fails_no_sample(tmp_path: Path, emulator: Emulator, fault: object, known: bool) -> None:
    emulator.ask("faults", {"method": "SandboxGetStats*", "fault": fault})
    try:
        done = Evaluation(["eval", "tests/tasks.py@talkative", "-T", "samples=1"], tmp_path)
    finally:
        emulator.ask("faults", method="DELETE")
    log = done.log("talkative")
    assert all_correct(log) and log.samples
    cost = costs(log.samples[0])
    assert cost["execs"] > 0
    assert ("cost_usd" in cost) is known and cost.get("cost_usd") is None
    times = [event.timestamp for event in log.samples[0].events]
    longest = max((later - sooner).total_seconds() for sooner, later in pairwise(times))
    # The plugin waits for 5 seconds at most; without its limit the host would wait for a minute.
    assert longest < 30


def test_the_cost_is_switched_off(tmp_path: Path, emulator: Emulator) -> None:
    # The rule delays nothing; it counts the calls.
    emulator.ask("faults", {"method": "SandboxGetStats*", "fault": {"delay": {"millis": 0}}})
    words = ["eval", "tests/tasks.py@talkative", "-T", "samples=1"]
    try:
        done = Evaluation(words, tmp_path / "off", INSPECT_MODAL_COST="off")
        rules = emulator.ask("faults")
    finally:
        emulator.ask("faults", method="DELETE")
    log = done.log("talkative")
    assert all_correct(log) and log.samples
    cost = costs(log.samples[0])
    assert cost["execs"] > 0 and not any(name.startswith(("cost", "billed")) for name in cost)
    assert isinstance(rules, list) and [rule["applied"] for rule in rules] == [0]
    done = Evaluation(words, tmp_path / "no", INSPECT_MODAL_COST="no")
    assert "INSPECT_MODAL_COST is 'no'. It must be `on` or `off`." in done.said


def only_error(done: Evaluation, task: str) -> str:
    """Returns the error of the samples, which is the same for all."""
    log = done.log(task)
    errors = {sample.error.message for sample in log.samples or [] if sample.error is not None}
    assert len(errors) == 1, errors
    return errors.pop()


@pytest.mark.parametrize(
    "fault",
    [
        {"method": "SandboxCreate*", "fault": {"status": {"code": 9, "message": "the workspace is closed"}}},
        {"method": "SandboxCreate*", "fault": {"status": {"code": 13, "message": "the workspace is closed"}}},
    ],
    ids=["refused", "fails"],
)
def test_a_lasting_fault_ends_samples_with_its_reason(tmp_path: Path, emulator: Emulator, fault: dict[str, object]) -> None:
    emulator.ask("faults", fault)
    try:
        words = ["eval", "tests/tasks.py@talkative", "--no-fail-on-error"]
        done = Evaluation(words, tmp_path)
    finally:
        emulator.ask("faults", method="DELETE")
    assert "the workspace is closed" in only_error(done, "talkative")
    assert alive(emulator) == 0


def test_commands_that_never_start_are_tool_errors(tmp_path: Path, emulator: Emulator) -> None:
    """The model sees an error of its own kind, and the sample continues."""
    try:
        done = Evaluation(["eval", "tests/tasks.py@cut_off"], tmp_path)
    finally:
        emulator.ask("faults", method="DELETE")
    log = done.log("cut_off")
    assert log.status == "success" and log.samples, done.said
    (answer,) = [message for message in log.samples[0].messages if message.role == "tool"]
    assert answer.error is not None and answer.error.type == "sandbox_unavailable"


def test_faults_make_no_difference(tmp_path: Path, emulator: Emulator) -> None:
    emulator.ask(
        "faults",
        [
            {
                "method": "SandboxCreateV2",
                "times": 2,
                "fault": {"status": {"code": 8, "message": "slow", "retry_after_secs": 0.2}},
            },
            {"method": "TaskExec*", "probability": 0.1, "fault": {"cut": {"after_bytes": 100}}},
            {"method": "TaskExecStart", "probability": 0.1, "fault": {"lose_answer": {"code": 14}}},
            {"method": "SandboxCreateV2", "times": 2, "fault": {"lose_answer": {"code": 14}}},
            {"method": "*", "probability": 0.02, "fault": "goaway"},
            {"method": "*", "probability": 0.02, "fault": "close"},
        ],
    )
    try:
        done = Evaluation(["eval", "examples/tools.py@many", "-T", "samples=20"], tmp_path)
        rules = emulator.ask("faults")
    finally:
        emulator.ask("faults", method="DELETE")
    assert all_correct(done.log("many"))
    assert alive(emulator) == 0, "sandboxes that were created twice are left"
    assert isinstance(rules, list) and all(rule["applied"] for rule in rules[:2]), rules
    # Two creations were refused once. Other requests may have met faults too.
    assert sum(costs(sample)["retries"] for sample in done.log("many").samples or []) >= 2
