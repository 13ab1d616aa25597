"""Whole trials: tasks of other packages and of this repository, run by the program `harbor` and by its Python interface,
with a scripted agent or the reference solution, and with the verifier of each task."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

from conftest import Emulator

ENVIRONMENT = "sandbox_host.harbor:SandboxEnvironment"
HERE = Path(__file__).parent
TASKS = HERE.parents[2] / "inspect/tests/outside/harbor"


def trials(jobs: Path) -> list[dict[str, Any]]:
    """Returns the results of all trials of a folder of jobs."""
    return [json.loads(path.read_text()) for path in sorted(jobs.glob("*/*/result.json"))]


def rewards(jobs: Path) -> list[Any]:
    """Returns the rewards of all trials. Fails if a trial has none."""
    found = trials(jobs)
    assert found and all(each["exception_info"] is None for each in found), [each["exception_info"] for each in found]
    return [each["verifier_result"]["rewards"] for each in found]


def left(emulator: Emulator) -> list[str]:
    """Returns the ids of sandboxes that still run."""
    return [each["id"] for each in emulator.ask("state")["sandboxes"] if each["phase"] in ("starting", "running")]


def run(harbor: Any, task: Path, jobs: Path, agent: str, *more: str) -> None:
    harbor("run", "--path", task, "--agent", agent, "--env", ENVIRONMENT, "--jobs-dir", jobs, "--quiet", "--yes", *more)


def written(folder: Path, files: dict[str, str]) -> Path:
    """Writes the files of a task."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def scripted(*commands: str) -> list[str]:
    """Returns the options for an agent that runs these commands."""
    return ["--ak", f"commands={json.dumps(commands)}"]


def test_harbor_runs_the_reference_solution(harbor: Any, tmp_path: Path, emulator: Emulator) -> None:
    run(harbor, TASKS / "sort-words", tmp_path / "jobs", "oracle", "--ek", "provider=modal")
    assert rewards(tmp_path / "jobs") == [{"reward": 1, "checked": 1}]
    assert left(emulator) == []


def test_an_agent_that_does_nothing_fails(harbor: Any, tmp_path: Path, emulator: Emulator) -> None:
    run(harbor, TASKS / "sort-words", tmp_path / "jobs", "nop")
    assert rewards(tmp_path / "jobs") == [{"reward": 0, "checked": 1}]
    assert left(emulator) == []


def test_a_scripted_agent_runs_several_trials_at_once(harbor: Any, tmp_path: Path, emulator: Emulator) -> None:
    more = ["--n-attempts", "4", "--n-concurrent", "4", *scripted("sort words.txt >sorted.txt", "pwd; echo $LC_ALL")]
    run(harbor, TASKS / "sort-words", tmp_path / "jobs", "scripted:Scripted", *more)
    assert rewards(tmp_path / "jobs") == [{"reward": 1, "checked": 1}] * 4
    results = [json.loads(path.read_text()) for path in tmp_path.glob("jobs/*/*/agent/results.json")]
    assert results == [[[0, "", ""], [0, "/app\nC\n", ""]]] * 4
    assert left(emulator) == []


def test_a_task_of_harbor_itself_with_its_verifier(harbor: Any, tmp_path: Path) -> None:
    """The task of `harbor check`: a prebuilt image, the files of another task, a validator, and an artifact."""
    from harbor.analyze.checker import PROMPTS_DIR, assemble_check_task
    from harbor.analyze.models import load_rubric

    rubric = load_rubric(None)
    template = (PROMPTS_DIR / "check.txt").read_text()
    task = assemble_check_task(TASKS / "sort-words", rubric, template, {"type": "object"}, tmp_path / "check-sort-words")
    answer = {each.name: {"outcome": "pass", "explanation": "It is."} for each in rubric.criteria}
    right = scripted("test -s task/instruction.md", f"echo '{json.dumps(answer)}' >check-result.json")
    run(harbor, task, tmp_path / "right", "scripted:Scripted", *right)
    assert rewards(tmp_path / "right") == [{"reward": 1}]
    (artifact,) = (tmp_path / "right").glob("*/*/artifacts/**/check-result.json")
    assert json.loads(artifact.read_text()) == answer
    run(harbor, task, tmp_path / "wrong", "scripted:Scripted", *scripted("echo '{}' >check-result.json"))
    assert rewards(tmp_path / "wrong") == [{"reward": 0}]


def test_the_annotation_task_of_harbor(harbor: Any, tmp_path: Path) -> None:
    import harbor.cli.annotator as annotator

    source = Path(next(iter(annotator.__path__))) / "annotate-task-template"
    task = tmp_path / "annotate"
    shutil.copytree(source, task)
    written(task, {"instruction.md": "Describe the task.", "environment/task/readme": "text"})
    answer = scripted("""cat task/readme; echo '{"readme": "text", "description": "short"}' >annotate-result.json""")
    run(harbor, task, tmp_path / "jobs", "scripted:Scripted", *answer)
    assert rewards(tmp_path / "jobs") == [{"reward": 1}]


def test_the_template_of_new_tasks(harbor: Any, tmp_path: Path) -> None:
    """`harbor init` makes a task; its scripts get one line each."""
    harbor("init", "tests/made", "--task", "--no-pytest", "--verifier-mode", "shared", "--output-dir", tmp_path)
    task = tmp_path / "made"
    for name, line in {
        "solution/solve.sh": "echo solved >/app/answer\n",
        "tests/test.sh": "grep -qx solved /app/answer; echo $((1 - $?)) >/logs/verifier/reward.txt\n",
    }.items():
        with (task / name).open("a") as file:
            file.write(f"\n{line}")
    run(harbor, task, tmp_path / "jobs", "oracle")
    assert rewards(tmp_path / "jobs") == [{"reward": 1}]


TASK = {
    "instruction.md": "Write who you are into /app/who.",
    "environment/Dockerfile": "FROM debian:13\nRUN useradd --create-home worker\nWORKDIR /app\nRUN chown worker /app\n",
    "tests/test.sh": """\
#!/bin/bash
id -un
[ "$(cat /app/who)" = worker ] && [ "$(stat -c %U /app/who)" = worker ] && [ "$(id -un)" = root ]
echo $((1 - $?)) >/logs/verifier/reward.txt
""",
}


def test_phases_have_users_and_network_policies(harbor: Any, tmp_path: Path) -> None:
    settings = """
schema_version = "1.4"
artifacts = ["/app/who"]
[agent]
user = "worker"
network_mode = "no-network"
[verifier]
user = "root"
[environment]
network_mode = "public"
"""
    task = written(tmp_path / "who", {**TASK, "task.toml": settings})
    run(harbor, task, tmp_path / "jobs", "scripted:Scripted", *scripted("id -un >who"))
    assert rewards(tmp_path / "jobs") == [{"reward": 1}]
    (artifact,) = (tmp_path / "jobs").glob("*/*/artifacts/**/who")
    assert artifact.read_text() == "worker\n"


def test_a_verifier_has_an_environment_of_its_own(harbor: Any, tmp_path: Path, emulator: Emulator) -> None:
    settings = """
schema_version = "1.4"
artifacts = ["/app/who"]
[verifier]
environment_mode = "separate"
[verifier.environment]
network_mode = "no-network"
[environment]
"""
    check = '#!/bin/bash\n[ "$(cat /app/who)" = root ] && [ -e /judge ]; echo $((1 - $?)) >/logs/verifier/reward.txt\n'
    files = {
        "task.toml": settings,
        "tests/test.sh": check,
        "tests/Dockerfile": "FROM debian:13\nRUN touch /judge\nCOPY . /tests/\n",
    }
    task = written(tmp_path / "who", {**TASK, **files})
    run(harbor, task, tmp_path / "jobs", "scripted:Scripted", *scripted("id -un >who; ls /judge"))
    assert rewards(tmp_path / "jobs") == [{"reward": 1}]
    assert left(emulator) == []


def test_a_task_has_several_steps(harbor: Any, tmp_path: Path, emulator: Emulator) -> None:
    settings = """
schema_version = "1.4"
[environment]
[[steps]]
name = "first"
[[steps]]
name = "second"
"""
    check = '#!/bin/bash\n[ "$(wc -l </app/lines)" = %d ]; echo $((1 - $?)) >/logs/verifier/reward.txt\n'
    files = {"task.toml": settings, "environment/Dockerfile": TASK["environment/Dockerfile"]}
    for number, name in enumerate(["first", "second"], 1):
        files[f"steps/{name}/instruction.md"] = "Add a line to /app/lines."
        files[f"steps/{name}/tests/test.sh"] = check % number
    task = written(tmp_path / "lines", files)
    run(harbor, task, tmp_path / "jobs", "scripted:Scripted", *scripted("echo line >>lines"))
    (trial,) = trials(tmp_path / "jobs")
    assert [each["verifier_result"]["rewards"] for each in trial["step_results"]] == [{"reward": 1}] * 2
    assert left(emulator) == []


def test_a_slow_agent_is_ended(harbor: Any, tmp_path: Path, emulator: Emulator) -> None:
    settings = 'schema_version = "1.4"\n[agent]\ntimeout_sec = 3.0\n[verifier]\nuser = "root"\n[environment]\n'
    task = written(tmp_path / "who", {**TASK, "task.toml": settings})
    run(harbor, task, tmp_path / "jobs", "scripted:Scripted", *scripted("echo worker >who; chown worker who; sleep 300"))
    (trial,) = trials(tmp_path / "jobs")
    assert trial["exception_info"]["exception_type"] == "AgentTimeoutError"
    assert trial["verifier_result"]["rewards"] == {"reward": 1}
    assert left(emulator) == []


def test_an_interrupted_run_leaves_nothing_running(harbor: Any, tmp_path: Path, emulator: Emulator) -> None:
    task = written(tmp_path / "who", {**TASK, "task.toml": 'schema_version = "1.4"\n'})

    def busy() -> bool:
        """Returns whether the first command of the agent has ended."""
        return any((tmp_path / "jobs").glob("*/*/agent/results.json"))

    commands = scripted("true", "sleep 300")
    done = harbor(
        "run", "--path", task, "--agent", "scripted:Scripted", "--env", ENVIRONMENT, "--jobs-dir", tmp_path / "jobs", "--yes",
        *commands, check=False, until=busy,
    )  # fmt: skip
    assert left(emulator) == [], done.stdout + done.stderr


def test_a_broken_dockerfile_is_reported(harbor: Any, tmp_path: Path, emulator: Emulator) -> None:
    files = {
        **TASK,
        "task.toml": 'schema_version = "1.4"\n',
        "environment/Dockerfile": "FROM debian:13\nRUN echo the reason; false\n",
    }
    task = written(tmp_path / "who", files)
    run(harbor, task, tmp_path / "jobs", "nop")
    (trial,) = trials(tmp_path / "jobs")
    assert trial["exception_info"]["exception_type"] == "SandboxBuildFailedError"
    assert "the reason" in trial["exception_info"]["exception_message"]
    assert left(emulator) == []


def test_preflight_stops_a_job_before_its_trials(harbor: Any, tmp_path: Path) -> None:
    wrong = ["--ek", 'variables={"MODAL_SERVER_URL": "http://127.0.0.1:9"}']
    done = harbor(
        "run", "--path", TASKS / "sort-words", "--agent", "nop", "--env", ENVIRONMENT, "--jobs-dir", tmp_path / "jobs", "--yes",
        *wrong, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and "cannot be used" in done.stdout + done.stderr
    assert trials(tmp_path / "jobs") == []


def test_harbor_shows_the_options(harbor: Any) -> None:
    schema = json.loads(harbor("environment", "schema", ENVIRONMENT, "--json").stdout)
    assert schema["properties"]["provider"]["default"] == "modal"


def test_the_python_interface_runs_a_job(tmp_path: Path, emulator: Emulator) -> None:
    from harbor.job import Job
    from harbor.models.job.config import JobConfig
    from harbor.models.trial.config import AgentConfig, EnvironmentConfig, TaskConfig

    config = JobConfig(
        job_name="job",
        jobs_dir=tmp_path / "jobs",
        tasks=[TaskConfig(path=TASKS / "sort-words")],
        agents=[AgentConfig(name="oracle")],
        environment=EnvironmentConfig(import_path=ENVIRONMENT, kwargs={"labels": {"job": "python"}}),
        quiet=True,
    )

    async def whole() -> None:
        await (await Job.create(config)).run()

    asyncio.run(whole())
    assert rewards(tmp_path / "jobs") == [{"reward": 1, "checked": 1}]
    assert left(emulator) == []
