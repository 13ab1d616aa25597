"""Reads compose documents: fills in variables, and resolves `include` and `extends`.

The result (`Document`) has no `include` and no `extends`. Its services have a canonical form: lists of pairs and mounts are
mappings, and paths are absolute, because the document may consist of files in several directories.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from . import envfile
from .goyaml import Override, Reset, load, number_text
from .plan import ComposeError

PAIRS = ("environment", "labels", "annotations", "extra_hosts", "sysctls")
"""Keys of a service that hold a mapping or a list of `NAME=VALUE`."""

NAMED = ("depends_on", "networks")
"""Keys of a service that hold a mapping or a list of names."""

LISTS = ("env_file", "dns", "dns_search", "tmpfs", "volumes", "ports", "expose")
"""Keys of a service that hold a list or a single entry."""

REPLACED = {"command", "entrypoint", "test"}
"""Lists that an extending service replaces. It adds to all other lists."""

IDENTITY = {"volumes": ("target",), "ports": ("host_ip", "target", "published", "protocol"), "env_file": ("path",)}
"""For lists of mappings: the keys by which two entries are the same one, so that the later replaces the earlier."""

REMOTE = re.compile(r"^(?:[a-z][a-z0-9+.-]*://|git@)")


@dataclass
class Document:
    """A complete compose document."""

    body: dict[str, Any]
    where: str
    """The name of the document in errors."""
    directory: Path
    """The directory at which the remaining relative paths start."""
    variables: dict[str, str] = field(default_factory=dict)
    """The variables that were filled in."""
    unset: dict[str, list[str]] = field(default_factory=dict)
    """Variables without a value, by the place that refers to them."""


Source = Path | tuple[str, Mapping[str, Any]]
"""A compose file, or a document that is not a file with the name that errors give it."""


def read(sources: Sequence[Source], directory: Path, variables: Mapping[str, str], name: str | None = None) -> Document:
    """Reads documents and merges them. Later ones win, as with several `--file` of Docker Compose.

    Relative paths start at `directory`, also those of files elsewhere. Values of variables come from `variables`, or else
    from the environment of this process, or else from the `.env` in the directory. `name` is the name of the result in
    errors; the default is that of the last source.

    Raises:
        ComposeError: if a source, or a file that it includes or extends, cannot be read.
    """
    found = {**envfile.environment(directory), **variables}
    last = sources[-1]
    made = Document({}, name or (str(last) if isinstance(last, Path) else last[0]), directory, found)
    made.body = _Reader(made).together(sources, directory, ())
    return made


class _Reader:
    """Reads one document, and the files that it includes and extends."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.variables = document.variables

    def file(self, path: Path, directory: Path, within: tuple[Path, ...]) -> dict[str, Any]:
        """Reads a file. Relative paths in it start at `directory`; the files `within` include it, directly or not."""
        path = Path(os.path.abspath(path))
        if path in within:
            raise ComposeError(f"{path} includes itself, through {', '.join(map(str, within))}.")
        return self.together([path], directory, within)

    def together(self, sources: Sequence[Source], directory: Path, within: tuple[Path, ...]) -> dict[str, Any]:
        """Merges the documents of several sources. Later ones win."""
        merged: dict[str, Any] = {}
        for source in sources:
            if isinstance(source, Path):
                path = Path(os.path.abspath(source))
                bodies, where, inside = _parsed(path), str(path), (*within, path)
            else:
                bodies, where, inside = [source[1]], source[0], within
            for body in bodies:
                merged = _merged(merged, self.one(body, where, directory, inside))
            # Included files are added before the next source is merged.
            includes = merged.pop("include", None) or []
            for entry in includes if isinstance(includes, list) else [includes]:
                self.include(merged, entry, where, directory, inside)
        plain: dict[str, Any] = _without_marks(merged)
        return plain

    def one(self, body: Any, where: str, directory: Path, within: tuple[Path, ...]) -> dict[str, Any]:
        if not isinstance(body, dict):
            raise ComposeError(f"{where} is not a compose file: it does not hold a mapping.")
        filled = {str(key): self.filled(value, f"{where}: {key}") for key, value in body.items()}
        services = filled.get("services")
        if isinstance(services, Mapping):
            bodies = {str(name): service for name, service in services.items()}
            extended = {name: self.extended(name, bodies, where, directory, within, ()) for name in bodies}
            filled["services"] = extended
        return filled

    def filled(self, value: Any, where: str) -> Any:
        """Returns a value with its variables filled in."""
        if isinstance(value, Override):
            return Override(self.filled(value.value, where))
        if isinstance(value, Mapping):
            return {str(key): self.filled(inner, f"{where}.{key}") for key, inner in value.items()}
        if isinstance(value, list):
            return [self.filled(inner, where) for inner in value]
        if not isinstance(value, str) or "$" not in value:
            return value
        warn = envfile.warned(where)

        def unset(name: str) -> None:
            names = self.document.unset.setdefault(where, [])
            if name not in names:
                names.append(name)
            warn(name)

        return envfile.substitute(value, self.variables.get, where, unset)

    def extended(
        self,
        name: str,
        bodies: Mapping[str, Any],
        where: str,
        directory: Path,
        within: tuple[Path, ...],
        through: tuple[tuple[str, str], ...],
    ) -> Any:
        """Returns a service in its canonical form, merged over the one that it extends. `through` are the services that extend
        it."""
        at = f"{where}: services.{name}"
        service = bodies[name]
        if isinstance(service, Reset):
            return service
        if isinstance(service, Override):
            return Override(self.extended(name, {**bodies, name: service.value}, where, directory, within, through))
        if service is None:
            service = {}
        if not isinstance(service, Mapping):
            raise ComposeError(f"{at} is not a mapping.")
        if (where, name) in through:
            raise ComposeError(f"{at}.extends: services extend each other in a circle.")
        service = dict(service)
        extends = service.pop("extends", None)
        own = canonical(service, at, directory, self.variables)
        if extends is None:
            return own
        wanted, file = (extends, None) if isinstance(extends, str) else (extends.get("service"), extends.get("file"))
        if file is None:
            if wanted not in bodies:
                raise ComposeError(f"{at}.extends: there is no service {wanted}.")
            base = self.extended(str(wanted), bodies, where, directory, within, (*through, (where, name)))
        else:
            if REMOTE.match(str(file)):
                raise ComposeError(f"{at}.extends.file: {file} is not a local file.")
            path = Path(os.path.abspath(directory / str(file)))
            others: dict[str, Any] = {}
            for body in _parsed(path):
                if not isinstance(body, dict):
                    raise ComposeError(f"{path} is not a compose file: it does not hold a mapping.")
                services = self.filled(body.get("services") or {}, f"{path}: services")
                others = _merged(others, {str(key): value for key, value in services.items()})
            if wanted not in others:
                raise ComposeError(f"{at}.extends: there is no service {wanted} in {path}.")
            base = self.extended(str(wanted), others, str(path), path.parent, within, (*through, (where, name)))
        # As with Docker, the other services of that file are not added.
        return _merged(base, own)

    def include(self, body: dict[str, Any], entry: Any, where: str, directory: Path, within: tuple[Path, ...]) -> None:
        """Adds the services, volumes, networks and extensions of an included file to `body`."""
        if isinstance(entry, str):
            entry = {"path": entry}
        if not isinstance(entry, Mapping) or not entry.get("path"):
            raise ComposeError(f"{where}: include needs a path, or a mapping with one.")
        paths = [str(path) for path in (entry["path"] if isinstance(entry["path"], list) else [entry["path"]])]
        for path in paths:
            if REMOTE.match(path):
                raise ComposeError(f"{where}: include: {path} is not a local file.")
        files = [Path(os.path.abspath(directory / path)) for path in paths]
        home = directory / str(entry["project_directory"]) if entry.get("project_directory") else files[0].parent
        variables = self.variables
        own = entry.get("env_file")
        sources = (
            [home / ".env"] if own is None else [directory / str(file) for file in (own if isinstance(own, list) else [own])]
        )
        defaults: dict[str, str] = {}
        for source in sources:
            if str(source) != os.devnull:
                defaults |= envfile.read(source, self.variables.get, missing_ok=own is None)
        self.variables = {**defaults, **variables}
        try:
            found: dict[str, Any] = {}
            for file in files:
                found = _merged(found, self.file(file, home, within))
        finally:
            self.variables = variables
        for section in ("services", "volumes", "networks", "configs", "secrets"):
            for name, definition in (_without_marks(found).get(section) or {}).items():
                there = body.setdefault(section, {}) or {}
                body[section] = there
                if name in there and there[name] != definition:
                    raise ComposeError(f"{where}: include: {section}.{name} is defined in {paths[0]} as well.")
                there[name] = definition
        for name, definition in found.items():
            if str(name).startswith("x-"):
                body.setdefault(name, definition)


def _parsed(path: Path) -> list[Any]:
    """Reads the documents of a file."""
    try:
        return load(path.read_bytes().decode("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ComposeError(f"The compose file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


# ---- canonical form -------------------------------------------------------------------------------------------------


def canonical(service: Mapping[str, Any], where: str, directory: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Returns a service with its short forms written out and its paths made absolute."""
    made = dict(service)
    for key in PAIRS:
        if key in made:
            made[key] = _each(
                made[key], lambda value, key=key: pairs(value, f"{where}.{key}", "=:" if key == "extra_hosts" else "=")
            )
    for key in NAMED:
        if key in made:
            made[key] = _each(
                made[key], lambda value: {str(name): None for name in value} if isinstance(value, list) else value
            )
    for key in LISTS:
        if key in made:
            made[key] = _each(made[key], lambda value: value if isinstance(value, list) or value is None else [value])
    if isinstance(made.get("environment"), Mapping):
        made["environment"] = {
            name: variables.get(name) if value is None else value for name, value in made["environment"].items()
        }
    if "build" in made:
        made["build"] = _each(made["build"], lambda value: _build(value, f"{where}.build", directory))
    for key, change in (("env_file", _file), ("volumes", mount), ("ports", published)):
        if key in made:
            made[key] = _each(
                made[key],
                lambda value, change=change, at=f"{where}.{key}": [
                    one for entry in value or [] for one in change(entry, at, directory)
                ],
            )
    return made


def _each(value: Any, change: Any) -> Any:
    """Applies a change to a value, also to one that is marked `!override`."""
    if isinstance(value, Reset):
        return value
    return Override(change(value.value)) if isinstance(value, Override) else change(value)


def pairs(value: Any, where: str, separators: str = "=") -> Any:
    """Returns a mapping for a mapping or for a list of `NAME=value`. The value of a name without one is `None`."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(name): text for name, text in value.items()}
    if not isinstance(value, list):
        raise ComposeError(f"{where} is neither a mapping nor a list.")
    made: dict[str, Any] = {}
    for entry in value:
        parts = re.split(f"[{separators}]", text(entry), maxsplit=1)
        made[parts[0]] = parts[1] if len(parts) > 1 else None
    return made


def _build(value: Any, where: str, directory: Path) -> Any:
    if isinstance(value, str):
        value = {"context": value}
    if not isinstance(value, Mapping):
        raise ComposeError(f"{where} must be a path or a mapping.")
    made = dict(value)
    if isinstance(made.get("context"), Reset | Override):
        return made
    context = text(made.get("context") or ".")
    if REMOTE.match(context):
        raise ComposeError(f"{where}.context: {context} is not a local directory.")
    made["context"] = os.path.abspath(directory / os.path.expanduser(context))
    if "args" in made:
        made["args"] = _each(made["args"], lambda value: pairs(value, f"{where}.args"))
    return made


def _file(entry: Any, where: str, directory: Path) -> list[dict[str, Any]]:
    if not isinstance(entry, Mapping):
        entry = {"path": entry}
    if not entry.get("path"):
        raise ComposeError(f"{where} needs a path, or a mapping with one.")
    return [{**entry, "path": os.path.abspath(directory / os.path.expanduser(text(entry["path"])))}]


def mount(entry: Any, where: str, directory: Path) -> list[dict[str, Any]]:
    """Returns a mount as a mapping with `type`, `source`, `target` and `read_only`, in a list of one."""
    if isinstance(entry, Mapping):
        made = dict(entry)
    else:
        parts = text(entry).split(":")
        if len(parts) > 3 or not parts[-1] or (len(parts) > 1 and not parts[1]):
            raise ComposeError(f"{where}: {text(entry)!r} is not a mount.")
        made = {"target": parts[0]} if len(parts) == 1 else {"source": parts[0], "target": parts[1]}
        modes = parts[2].split(",") if len(parts) > 2 else []
        if "ro" in modes:
            made["read_only"] = True
        if "nocopy" in modes:
            made["volume"] = {"nocopy": True}
    source = made.get("source")
    if "type" not in made:
        made["type"] = "bind" if source is not None and re.match(r"[./~]|$", text(source)) else "volume"
    if made["type"] == "bind" and source:
        made["source"] = os.path.abspath(directory / os.path.expanduser(text(source)))
    if not made.get("target"):
        raise ComposeError(f"{where}: {text(entry)!r} has no target.")
    return [made]


def published(entry: Any, where: str, directory: Path) -> list[dict[str, Any]]:
    """Returns the ports of an entry as mappings with `target`, `published`, `protocol` and `host_ip`, one for each of a
    range."""
    if isinstance(entry, Mapping):
        made = {"protocol": "tcp", **entry}
        return [{**made, "target": port} for port in _range(text(made.get("target")), where, entry)]
    rest, _, protocol = text(entry).partition("/")
    if protocol and protocol not in ("tcp", "udp", "sctp"):
        raise ComposeError(f"{where}: {text(entry)!r} has the protocol {protocol!r}. It must be tcp or udp.")
    match = re.fullmatch(r"(?:(?:(\[[^]]*\]|[0-9.]+):)?([0-9-]*):)?([0-9]+(?:-[0-9]+)?)", rest)
    if match is None:
        raise ComposeError(f"{where}: {text(entry)!r} is not a port. Give one such as 80, 8080:80, or 8000-8010.")
    address, outside, inside = match.groups()
    ports = _range(inside, where, entry)
    made = {"protocol": protocol or "tcp", **({"host_ip": address.strip("[]")} if address else {})}
    outsides = _range(outside, where, entry) if outside else []
    if len(outsides) == len(ports):
        return [{**made, "target": port, "published": str(other)} for port, other in zip(ports, outsides, strict=True)]
    if outsides and len(ports) > 1:
        raise ComposeError(f"{where}: {text(entry)!r} has ranges of different lengths.")
    return [{**made, "target": port, **({"published": outside} if outside else {})} for port in ports]


def _range(value: str, where: str, entry: Any) -> list[int]:
    first, _, last = value.partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        raise ComposeError(f"{where}: {text(entry)!r} is not a port. Give one such as 80, 8080:80, or 8000-8010.")
    begin, end = int(first), int(last or first)
    if not 0 < begin <= end < 65536:
        raise ComposeError(f"{where}: {text(entry)!r} is not a port. Ports are numbers from 1 to 65535.")
    return list(range(begin, end + 1))


def text(value: Any) -> str:
    """Converts a scalar to text as Docker Compose does."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return number_text(value) if isinstance(value, int | float) else str(value)


# ---- merging --------------------------------------------------------------------------------------------------------


def _merged(base: Any, over: Any, key: str = "") -> Any:
    """Merges `over` into `base` by the rules of Docker Compose: mappings by key, lists in sequence; otherwise `over` wins."""
    if isinstance(over, Override):
        return over.value
    if isinstance(over, Reset) or base is None or isinstance(base, Reset):
        return over
    if isinstance(base, Override):
        base = base.value
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        if key == "logging" and base.get("driver") != over.get("driver") and over.get("driver"):
            return over
        made = dict(base)
        for name, value in over.items():
            made[name] = _merged(made.get(name), value, str(name))
        return made
    if isinstance(base, list) and isinstance(over, list) and key not in REPLACED:
        identity = IDENTITY.get(key)
        if identity is None:
            return [*base, *[entry for entry in over if entry not in base]]

        def same(entry: Any) -> tuple[Any, ...]:
            return tuple(entry.get(name) for name in identity)

        replaced = {same(entry) for entry in over}
        return [*[entry for entry in base if same(entry) not in replaced], *over]
    return base if over is None and key in ("environment", "depends_on", "networks") else over


def _without_marks(value: Any) -> Any:
    """Returns a merged value without the marks `!override` and `!reset`. Reset values are left out."""
    if isinstance(value, Override):
        return _without_marks(value.value)
    if isinstance(value, Mapping):
        return {key: _without_marks(inner) for key, inner in value.items() if not isinstance(inner, Reset)}
    if isinstance(value, list):
        return [_without_marks(inner) for inner in value if not isinstance(inner, Reset)]
    return copy.copy(value)
