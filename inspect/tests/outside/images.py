"""Changes Dockerfiles of other packages so that they build on the emulator without a package mirror.

The base images of the emulator contain the programs of this machine, so the packages that a Dockerfile installs are there
already. All other lines stay as they were published.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import yaml

INSTALLS = re.compile(r"(apt|apt-get|apk|pip|pip3)\s|.*/etc/apt/")
ADDS_A_USER = re.compile(r"adduser\b.*\s(\w+)$")
"""Debian's and Alpine's programs of that name differ, and other distributions have neither."""


def offline(dockerfile: str) -> str:
    """Returns the Dockerfile without commands that install packages, and without RUN lines that clone a repository."""
    joined = re.sub(r"\\[ \t]*\n(\s*#.*\n)*", " ", dockerfile)
    return "\n".join(_line(line) for line in joined.splitlines()) + "\n"


def _line(line: str) -> str:
    if not line.startswith("RUN ") or "<<" in line:
        return line
    commands = [command.strip() for command in line.removeprefix("RUN ").split("&&")]
    if any(command.startswith("git clone") for command in commands):
        return ""
    kept = [ADDS_A_USER.sub(r"useradd --create-home \1", command) for command in commands if not INSTALLS.match(command)]
    return "RUN " + " && ".join(kept) if kept else ""


def copied(folder: Path, to: Path) -> Path:
    """Copies a folder and makes its Dockerfiles `offline`."""
    shutil.copytree(folder, to)
    for file in to.rglob("*Dockerfile"):
        file.write_text(offline(file.read_text()))
    return to


def built(compose: Path) -> Path:
    """Makes the only service of a compose file build its image from the Dockerfile beside it, instead of pulling it."""
    config = yaml.safe_load(compose.read_text())
    (service,) = config["services"].values()
    del service["image"]
    service["build"] = "."
    compose.write_text(yaml.safe_dump(config))
    return compose
