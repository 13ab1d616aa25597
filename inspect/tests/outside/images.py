"""Dockerfiles of other packages, made to build on the emulator without a package mirror.

The emulator's base images hold this machine's programs, so what such a file installs is there already. Everything else in it
is left as its authors wrote it.
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
    """The file without commands that install packages; a RUN that clones a repository is left out as a whole."""
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
    """A copy of a folder, whose Dockerfiles are `offline`."""
    shutil.copytree(folder, to)
    for file in to.rglob("*Dockerfile"):
        file.write_text(offline(file.read_text()))
    return to


def built(compose: Path) -> Path:
    """Lets the only service of a compose file be built from the Dockerfile beside it, from which its image was published."""
    config = yaml.safe_load(compose.read_text())
    (service,) = config["services"].values()
    del service["image"]
    service["build"] = "."
    compose.write_text(yaml.safe_dump(config))
    return compose
