"""Images: a Dockerfile for each sample, an image that depends on metadata, and files with a set-up script.

inspect eval images.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate

sys.path.append(str(Path(__file__).parent.parent))
from scripted import prints, scripted


@task
def per_sample() -> Task:
    """Each sample names a Dockerfile, relative to this file."""
    return Task(
        dataset=[
            Sample(id="copied", input="?", target="hello from the context", sandbox=("modal", "plain.Dockerfile")),
            Sample(id="variable", input="?", target="42", sandbox=("modal", "with-variable.Dockerfile")),
        ],
        solver=generate(),
        scorer=prints("cat greeting.txt 2>/dev/null || echo $ANSWER"),
        model=scripted(),
    )


@task
def by_metadata() -> Task:
    """One compose file whose image and environment depend on the sample's metadata."""
    return Task(
        dataset=[
            Sample(id=colour, input="?", target=f"{colour} {answer}".strip(), metadata={"dockerfile": file, "colour": colour})
            for colour, file, answer in [("red", "with-variable.Dockerfile", "42"), ("blue", "plain.Dockerfile", "")]
        ],
        solver=generate(),
        scorer=prints("echo $COLOUR $ANSWER"),
        model=scripted(),
        sandbox=("modal", "by-metadata-compose.yaml"),
    )


@task
def files_and_setup() -> Task:
    """Files, a directory, and a script that runs before the sample."""
    return Task(
        dataset=[
            Sample(
                input="?",
                target="text|hello from the context|made by setup",
                files={"notes/a.txt": "text", "copy": str(Path(__file__).parent)},
                setup="printf 'made by setup' >notes/b.txt",
            )
        ],
        solver=generate(),
        scorer=prints('printf "%s|%s|%s" "$(cat notes/a.txt)" "$(cat copy/greeting.txt)" "$(cat notes/b.txt)"'),
        model=scripted(),
        sandbox=("modal", "with-variable.Dockerfile"),
    )


@task
def broken() -> Task:
    """A Dockerfile that does not build. The run fails once, before the first sample."""
    return Task(
        dataset=[Sample(id=number, input="?", target="") for number in range(10)],
        solver=generate(),
        scorer=prints("true"),
        model=scripted(),
        sandbox=("modal", "broken.Dockerfile"),
    )
