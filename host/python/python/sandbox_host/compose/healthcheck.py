"""Health checks of compose files and of Dockerfiles."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .document import text
from .plan import ComposeError, Healthcheck

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
HEREDOC = re.compile(r"<<(-?)([\"']?)([A-Za-z_][A-Za-z0-9_.]*)\2")
TIMES = {"interval": 30.0, "timeout": 30.0, "start_period": 0.0, "start_interval": 5.0}
"""Docker's defaults, in seconds."""
RETRIES = 3
"""Docker's default."""


def seconds(value: Any, where: str) -> float:
    """Reads a duration in seconds, such as `90`, `1m30s` or `500ms`."""
    given = text(value).strip()
    if re.fullmatch(r"\d+(\.\d+)?", given):
        return float(given)
    parts = DURATION.findall(given)
    if not parts or "".join(number + unit for number, unit in parts) != given:
        raise ComposeError(f"{where}: {given!r} is not a duration. Give one such as 1m30s.")
    return float(sum(float(number) * SECONDS[unit] for number, unit in parts))


def of_service(body: Mapping[str, Any] | None, of_image: Healthcheck | None, where: str) -> Healthcheck | None:
    """Returns the health check of a service whose key `healthcheck` holds `body`. Its defaults are those of the image's check.

    Returns `None` if there is no check, or it is switched off.

    Raises:
        ComposeError: if a value is wrong.
    """
    if body is None:
        return of_image
    test = body.get("test")
    if text(body.get("disable")).lower() == "true" or test in ("NONE", ["NONE"]):
        return None
    if test is None:
        if of_image is None:
            return None
        argv = of_image.argv
    elif isinstance(test, str):
        argv = ["/bin/sh", "-c", test]
    elif isinstance(test, list) and test and test[0] == "CMD-SHELL":
        argv = ["/bin/sh", "-c", " ".join(text(word) for word in test[1:])]
    elif isinstance(test, list) and test and test[0] == "CMD":
        argv = [text(word) for word in test[1:]]
    else:
        raise ComposeError(f"{where}.test must begin with CMD, CMD-SHELL or NONE.")
    made = Healthcheck(argv) if of_image is None else replace(of_image, argv=argv)
    for key, default in TIMES.items():
        if body.get(key) is not None:
            # As with Docker, 0 means the default.
            setattr(made, key, seconds(body[key], f"{where}.{key}") or default)
    if body.get("retries") is not None:
        given = text(body["retries"])
        if not given.isdigit():
            raise ComposeError(f"{where}.retries: {given!r} is not a number of attempts.")
        made.retries = int(given) or RETRIES
    return made


def of_dockerfile(dockerfile: str, target: str | None, where: str) -> Healthcheck | None:
    """Returns the health check that a Dockerfile defines for the stage `target`, or for its last stage.

    The check of a base image from a registry is not known.
    """
    stages: dict[str, Healthcheck | None] = {}
    current: Healthcheck | None = None
    name, number = "", -1
    for instruction, rest in _instructions(dockerfile):
        if instruction == "FROM":
            if target is not None and number >= 0 and target.lower() in (name, str(number)):
                return current
            words = [word for word in rest.split() if not word.startswith("--")]
            number += 1
            current = stages.get(words[0].lower()) if words else None
            name = words[2].lower() if len(words) == 3 and words[1].lower() == "as" else str(number)
        elif instruction == "HEALTHCHECK":
            current = _of_instruction(rest, f"{where}: HEALTHCHECK")
        stages[name] = stages[str(number)] = current
    return current


def _of_instruction(rest: str, where: str) -> Healthcheck | None:
    options = {}
    while match := re.match(r"--([a-z-]+)=(\S+)\s*", rest):
        options[match.group(1).replace("-", "_")] = match.group(2)
        rest = rest[match.end() :]
    kind, _, command = rest.partition(" ")
    if kind.upper() == "NONE":
        return None
    if kind.upper() != "CMD":
        raise ComposeError(f"{where} must be followed by CMD or NONE.")
    try:
        argv = json.loads(command)
        argv = [str(word) for word in argv] if isinstance(argv, list) else None
    except ValueError:
        argv = None
    return of_service({"test": ["CMD", *argv] if argv else command.strip(), **options}, None, where)


def _instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Returns the instructions of a Dockerfile. Continued lines are joined; comments and here-documents are left out."""
    lines = dockerfile.removeprefix("\ufeff").splitlines()
    escape = "\\"
    for line in lines:
        directive = re.fullmatch(r"\s*#\s*(\w+)\s*=\s*(\S+)\s*", line)
        if directive is None:
            break
        if directive.group(1).lower() == "escape":
            escape = directive.group(2)
    made: list[tuple[str, str]] = []
    at, joined = 0, ""
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line.rstrip().endswith(escape):
            joined += line.rstrip()[: -len(escape)]
            continue
        word, _, rest = (joined + line).strip().partition(" ")
        joined = ""
        made.append((word.upper(), rest.strip()))
        if word.upper() in ("RUN", "COPY", "ADD"):
            for dash, _, end in HEREDOC.findall(rest):
                while at < len(lines) and (lines[at].lstrip("\t") if dash else lines[at]) != end:
                    at += 1
                at += 1
    return made
