"""A Harbor task, run by the package `inspect_harbor` with its conversion, agent and verifier."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from inspect_ai import task_with
from playing import first_result, plays, run, score, submits

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="inspect_harbor needs Python 3.12")

TASKS = Path(__file__).parent / "harbor"


@pytest.mark.parametrize("name", ["sort-words", "ask-store"])
def test_harbor_runs_the_reference_solution(name: str, tmp_path: Path) -> None:
    from inspect_harbor import harbor, oracle

    task = task_with(harbor(path=TASKS / name, sandbox_env_name="modal"), solver=oracle())
    done = run(task, plays(), tmp_path)
    assert score(done) == 1, done.scores


@pytest.mark.parametrize(("command", "expected"), [("sort words.txt >sorted.txt", 1), ("cp words.txt sorted.txt", 0)])
def test_harbor_verifies_what_an_agent_did(command: str, expected: int, tmp_path: Path) -> None:
    from inspect_harbor import harbor

    model = plays(("bash", {"command": f"pwd; echo $LC_ALL; {command}"}), submits("done"))
    done = run(harbor(path=TASKS / "sort-words", sandbox_env_name="modal"), model, tmp_path)
    assert score(done) == expected, done.scores
    assert first_result(done).split() == ["/app", "C"]


def test_gpu_types_of_a_task_are_honoured(tmp_path: Path) -> None:
    from inspect_harbor import harbor, oracle
    from inspect_modal_sandbox import planning

    folder = tmp_path / "sort-words"
    shutil.copytree(TASKS / "sort-words", folder)
    settings = folder / "task.toml"
    wanted = '[environment]\ngpus = 2\ngpu_types = ["RTX4090", "nvidia-h100", "A100"]\n'
    settings.write_text(settings.read_text().replace("[environment]\n", wanted, 1))
    task = harbor(path=folder, sandbox_env_name="modal")
    (sample,) = task.dataset
    assert sample.sandbox is not None
    assert tuple(planning.make(sample.sandbox.config, folder, {}).sandbox["gpu"]) == ("H100", 2)
    done = run(task_with(task, solver=oracle()), plays(), tmp_path / "logs")
    assert score(done) == 1, done.scores
