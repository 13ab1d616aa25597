"""Inspect's tools that work in a sandbox: one task for each.

inspect eval tools.py
"""

from __future__ import annotations

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import bash, bash_session, python, text_editor
from inspect_ai.util import sandbox
from inspect_modal_sandbox import ModalSandboxEnvironment
from scripted import prints, scripted, tools_said


@task
def bash_tool() -> Task:
    """A command that writes a file."""
    return Task(
        dataset=[Sample(input="Write 42 to /tmp/answer.", target="42")],
        solver=[use_tools(bash(timeout=60)), generate()],
        scorer=prints("cat /tmp/answer"),
        model=scripted(("bash", {"command": "echo $((6 * 7)) >/tmp/answer; (sleep 600 &)"})),
        sandbox="modal",
    )


@task
def python_tool() -> Task:
    """A Python program."""
    return Task(
        dataset=[Sample(input="Compute 6 * 7.", target="42")],
        solver=[use_tools(python(timeout=60)), generate()],
        scorer=tools_said(),
        model=scripted(("python", {"code": "print(6 * 7)"})),
        sandbox="modal",
    )


@task
def editor() -> Task:
    """The text editor. Inspect copies a program into the sandbox for it."""
    return Task(
        dataset=[Sample(input="Write a poem, then change it.", target="violets are green")],
        solver=[use_tools(text_editor(timeout=60)), generate()],
        scorer=prints("cat /tmp/poem"),
        model=scripted(
            ("text_editor", {"command": "create", "path": "/tmp/poem", "file_text": "violets are blue\n"}),
            ("text_editor", {"command": "str_replace", "path": "/tmp/poem", "old_str": "blue", "new_str": "green"}),
        ),
        sandbox="modal",
    )


@task
def session() -> Task:
    """A shell that keeps its state between calls. Inspect copies a program into the sandbox for it."""
    return Task(
        dataset=[Sample(input="Go to /tmp, then say where you are.", target="/tmp/here")],
        solver=[use_tools(bash_session()), generate()],
        scorer=prints("cat /tmp/here/where"),
        model=scripted(
            ("bash_session", {"action": "type_submit", "input": "mkdir -p /tmp/here; cd /tmp/here"}),
            ("bash_session", {"action": "type_submit", "input": "pwd >where; echo written"}),
        ),
        sandbox="modal",
    )


@task
def time_out() -> Task:
    """A command that exceeds its time limit. The model sees what it printed, and continues."""
    return Task(
        dataset=[Sample(input="Wait.", target="still here")],
        solver=[use_tools(bash(timeout=2)), generate()],
        scorer=tools_said(),
        model=scripted(
            ("bash", {"command": "echo begun; sleep 600"}),
            ("bash", {"command": "pgrep -f 'sleep 60[0]' || echo still here"}),
        ),
        sandbox="modal",
    )


@solver
def ends_its_sandbox() -> Solver:
    """Terminates the sandbox, as the end of its lifetime does."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        created = sandbox().as_type(ModalSandboxEnvironment).created
        await created.sandbox.terminate()
        return state

    return solve


@task
def dying() -> Task:
    """A sandbox that ends during the sample. The model sees a tool error of its own kind."""
    return Task(
        dataset=[Sample(input="Say something.", target="sandbox_unavailable")],
        solver=[use_tools(bash(timeout=60)), ends_its_sandbox(), generate()],
        scorer=tools_said(),
        model=scripted(("bash", {"command": "echo something"})),
        sandbox="modal",
    )


@task
def many(samples: int = 100) -> Task:
    """Many sandboxes at once."""
    return Task(
        dataset=[
            Sample(id=number, input="Say your number.", target=str(number), metadata={"number": number})
            for number in range(samples)
        ],
        solver=[own_number(), use_tools(bash(timeout=120)), generate()],
        scorer=prints("cat /tmp/number"),
        model=scripted(("bash", {"command": "cp /tmp/given /tmp/number"})),
        sandbox="modal",
    )


@solver
def own_number() -> Solver:
    """Writes the number of the sample into its sandbox."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        await sandbox().write_file("/tmp/given", str(state.metadata["number"]))
        return state

    return solve
