"""Several services. Each is a container of the same sandbox.

inspect eval services.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import bash

sys.path.append(str(Path(__file__).parent.parent))
from scripted import prints, scripted

FETCH = """pwd; echo $ROLE; python3 -c '
import urllib.request
print(urllib.request.urlopen("http://database:8000/secret").read().decode())'"""


@task
def services() -> Task:
    """The agent reads a file from the other container by HTTP. The scorer looks into that container."""
    return Task(
        dataset=[
            Sample(
                input="Find the database.",
                target="database ready secret",
                files={"database:/data/secret": "secret"},
            )
        ],
        solver=[use_tools(bash(timeout=60)), generate()],
        scorer=prints("echo $ROLE $(cat /data/state) $(cat /data/secret)", service="database"),
        model=scripted(("bash", {"command": FETCH})),
        sandbox=("modal", "compose.yaml"),
    )
