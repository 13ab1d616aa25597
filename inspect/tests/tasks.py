"""Tasks for tests only. Tasks that show how to use the plugin are in `examples`."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, Scorer, Target, accuracy, mean, scorer
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import bash
from inspect_ai.util import ComposeConfig, ExecRemoteAwaitableOptions, SandboxEnvironmentSpec, sandbox
from inspect_modal_sandbox import ModalSandboxConfig
from scripted import prints, scripted, tools_said

inside = 0


@solver
def counts() -> Solver:
    """Counts how many samples are in their sandboxes at the same time."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        global inside
        inside += 1
        state.metadata["inside"] = inside
        await sandbox().exec(["sleep", "0.3"])
        inside -= 1
        return state

    return solve


@scorer(metrics=[mean()])
def at_once() -> Scorer:
    """The number that `counts` found."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=state.metadata["inside"])

    return score


@task
def counted(samples: int = 12) -> Task:
    """Samples that count how many of them run at the same time."""
    return Task(
        dataset=[Sample(id=number, input="?") for number in range(samples)],
        solver=counts(),
        scorer=at_once(),
        model=scripted(),
        sandbox="modal",
    )


@task
def written_for_docker(image: str = "debian:13") -> Task:
    """A task for Docker, which does not mention another sandbox type."""
    compose = {"services": {"default": {"image": image, "command": "tail -f /dev/null", "environment": {"WHERE": "here"}}}}
    return Task(
        dataset=[Sample(input="?", target="here")],
        solver=generate(),
        scorer=prints("echo $WHERE"),
        model=scripted(),
        sandbox=SandboxEnvironmentSpec("docker", ComposeConfig.model_validate(compose)),
    )


@task
def configured() -> Task:
    """A task with a `ModalSandboxConfig`."""
    config = ModalSandboxConfig(
        image="debian:13", user="nobody", workdir="/srv", environment={"A": "b c"}, tags={"team": "red"}
    )
    return Task(
        dataset=[Sample(input="?", target="nobody /srv b c")],
        solver=generate(),
        scorer=prints('echo "$(id -un) $(pwd) $A"'),
        model=scripted(),
        sandbox=SandboxEnvironmentSpec("modal", config),
    )


@task
def talkative(samples: int = 3) -> Task:
    """One command in each sample. The score is whether its output is right."""
    return Task(
        dataset=[Sample(id=number, input="?", target="done") for number in range(samples)],
        solver=[use_tools(bash(timeout=60)), generate()],
        scorer=tools_said(),
        model=scripted(("bash", {"command": "head -c 200000 /dev/zero | tr '\\0' x >/tmp/x; echo done"})),
        sandbox="modal",
    )


def send(request: urllib.request.Request) -> None:
    """Sends a request and ignores the answer."""
    urllib.request.urlopen(request, timeout=30).close()


@solver
def loses_the_router() -> Solver:
    """Makes every later start of a command fail."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        rule = {"method": "TaskExecStart", "fault": {"status": {"code": 14, "message": "no router"}}}
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(
            os.environ["MODAL_SERVER_URL"] + "/emulator/faults", json.dumps(rule).encode(), headers
        )
        await asyncio.to_thread(send, request)
        return state

    return solve


@task
def cut_off() -> Task:
    """A task in which the model's commands never start."""
    return Task(
        dataset=[Sample(input="?", target="sandbox_unavailable")],
        solver=[use_tools(bash(timeout=60)), loses_the_router(), generate()],
        scorer=tools_said(),
        model=scripted(("bash", {"command": "echo done"})),
        sandbox="modal",
    )


@solver
def remote() -> Solver:
    """Runs programs with Inspect's `exec_remote`, with and without a stream of events."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        said = []
        process = await sandbox().exec_remote(["sh", "-c", "echo out; echo err >&2; exit 3"])
        async for event in process:
            said.append([event.type, getattr(event, "data", None), getattr(event, "exit_code", None)])
        options = ExecRemoteAwaitableOptions(input="text")
        result = await sandbox().exec_remote(["cat"], options, stream=False)
        state.metadata["said"] = json.dumps([sorted(said, key=str), result.stdout])
        return state

    return solve


@scorer(metrics=[accuracy()])
def remote_said() -> Scorer:
    """Whether all output arrived."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(value="C" if state.metadata["said"] == target.text else "I", answer=state.metadata["said"])

    return score


@task
def followed() -> Task:
    """Programs whose output is read while they run."""
    target = '[[["completed", null, 3], ["stderr", "err\\n", null], ["stdout", "out\\n", null]], "text"]'
    return Task(
        dataset=[Sample(input="?", target=target)],
        solver=remote(),
        scorer=remote_said(),
        model=scripted(),
        sandbox="modal",
    )
