"""Compose documents before they are understood: read, filled in, extended, and included.

What comes out (`Document`) has no `include` and no `extends` any more, and services in one form: lists of pairs are mappings,
mounts are mappings, and paths are absolute, since files of several directories may have contributed. `compose` makes a plan
of it.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from . import envfile
from .composeyaml import Override, Reset, load, number_text
from .plan import ConfigError

PAIRS = ("environment", "labels", "annotations", "extra_hosts", "sysctls")
"""Keys of a service that are a mapping, or a list of `NAME=VALUE`."""

NAMED = ("depends_on", "networks")
"""Keys of a service that are a mapping, or a list of names."""

LISTS = ("env_file", "dns", "dns_search", "tmpfs", "volumes", "ports", "expose")
"""Keys of a service that are a list, or one entry of it."""

REPLACED = {"command", "entrypoint", "test"}
"""Lists that the extending service replaces instead of adding to them."""

IDENTITY = {"volumes": ("target",), "ports": ("host_ip", "target", "published", "protocol"), "env_file": ("path",)}
"""What entries of these lists are the same by."""

REMOTE = re.compile(r"^(?:[a-z][a-z0-9+.-]*://|git@)")


@dataclass
class Document:
    """A compose document, complete by itself."""

    body: dict[str, Any]
    where: str
    """What errors call it."""
    directory: Path
    """Where relative paths start that are still there."""
    variables: dict[str, str] = field(default_factory=dict)
    """What was filled in from."""
    unset: dict[str, list[str]] = field(default_factory=dict)
    """Variables without a value, by the place in which they were wanted."""


def read(path: Path, metadata: Mapping[str, Any]) -> Document:
    """A compose file. Variables are filled in from the environment, the `.env` beside the file, and the sample's metadata as
    `SAMPLE_METADATA_<KEY>`.

    Raises:
        ConfigError: if it, or a file that it includes or extends, cannot be read.
    """
    variables = {**envfile.environment(path.parent), **_of_metadata(metadata)}
    made = Document({}, str(path), path.parent, variables)
    made.body = _Reader(made).file(path, path.parent, ())
    return made


def complete(body: dict[str, Any], where: str, directory: Path, metadata: Mapping[str, Any]) -> Document:
    """A document that is no file of its own."""
    variables = {**envfile.environment(directory), **_of_metadata(metadata)}
    made = Document({}, where, directory, variables)
    made.body = _Reader(made).body([body], where, directory, ())
    return made


def _of_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    from .lifecycle import metadata_variable

    return {metadata_variable(str(key)): str(value) for key, value in metadata.items()}


class _Reader:
    """The reading of one document, with all that it includes and extends."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.variables = document.variables

    def file(self, path: Path, directory: Path, within: tuple[Path, ...]) -> dict[str, Any]:
        """A file whose relative paths start at `directory`, reached through the files of `within`."""
        path = Path(os.path.abspath(path))
        if path in within:
            raise ConfigError(f"{path} includes itself, by way of {', '.join(map(str, within))}.")
        return self.body(_parsed(path), str(path), directory, (*within, path))

    def body(self, bodies: list[Any], where: str, directory: Path, within: tuple[Path, ...]) -> dict[str, Any]:
        """The documents of one file, of which later ones are laid over earlier ones."""
        merged: dict[str, Any] = {}
        for body in bodies:
            merged = _merged(merged, self.one(body, where, directory, within))
        includes = merged.pop("include", None) or []
        for entry in includes if isinstance(includes, list) else [includes]:
            self.include(merged, entry, where, directory, within)
        settled: dict[str, Any] = _settled(merged)
        return settled

    def one(self, body: Any, where: str, directory: Path, within: tuple[Path, ...]) -> dict[str, Any]:
        if not isinstance(body, dict):
            raise ConfigError(f"{where} is no compose file: it holds no mapping.")
        filled = {str(key): self.filled(value, f"{where}: {key}") for key, value in body.items()}
        services = filled.get("services")
        if isinstance(services, Mapping):
            bodies = {str(name): service for name, service in services.items()}
            extended = {name: self.extended(name, bodies, where, directory, within, ()) for name in bodies}
            filled["services"] = extended
        return filled

    def filled(self, value: Any, where: str) -> Any:
        """The value with its variables filled in."""
        if isinstance(value, Override):
            return Override(self.filled(value.value, where))
        if isinstance(value, Mapping):
            # The places of a service are `services.name.key`; below, they are the key's own.
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
        """A service in its one form, laid over what it extends."""
        at = f"{where}: services.{name}"
        service = bodies[name]
        if isinstance(service, Reset):
            return service
        if isinstance(service, Override):
            return Override(self.extended(name, {**bodies, name: service.value}, where, directory, within, through))
        if service is None:
            service = {}
        if not isinstance(service, Mapping):
            raise ConfigError(f"{at} is no mapping.")
        if (where, name) in through:
            raise ConfigError(f"{at}.extends: services extend each other in a circle.")
        service = dict(service)
        extends = service.pop("extends", None)
        own = canonical(service, at, directory, self.variables)
        if extends is None:
            return own
        wanted, file = (extends, None) if isinstance(extends, str) else (extends.get("service"), extends.get("file"))
        if file is None:
            if wanted not in bodies:
                raise ConfigError(f"{at}.extends: there is no service {wanted}.")
            base = self.extended(str(wanted), bodies, where, directory, within, (*through, (where, name)))
        else:
            if REMOTE.match(str(file)):
                raise ConfigError(f"{at}.extends.file: {file} is no file of this machine.")
            path = Path(os.path.abspath(directory / str(file)))
            others: dict[str, Any] = {}
            for body in _parsed(path):
                if not isinstance(body, dict):
                    raise ConfigError(f"{path} is no compose file: it holds no mapping.")
                services = self.filled(body.get("services") or {}, f"{path}: services")
                others = _merged(others, {str(key): value for key, value in services.items()})
            if wanted not in others:
                raise ConfigError(f"{at}.extends: there is no service {wanted} in {path}.")
            base = self.extended(str(wanted), others, str(path), path.parent, within, (*through, (where, name)))
        # As in Docker's: other services of the file that it comes from are not there.
        return _merged(base, own)

    def include(self, body: dict[str, Any], entry: Any, where: str, directory: Path, within: tuple[Path, ...]) -> None:
        """Adds what an included file defines."""
        if isinstance(entry, str):
            entry = {"path": entry}
        if not isinstance(entry, Mapping) or not entry.get("path"):
            raise ConfigError(f"{where}: include has neither a path nor a mapping with one.")
        paths = [str(path) for path in (entry["path"] if isinstance(entry["path"], list) else [entry["path"]])]
        for path in paths:
            if REMOTE.match(path):
                raise ConfigError(f"{where}: include: {path} is no file of this machine.")
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
            for name, definition in (_settled(found).get(section) or {}).items():
                there = body.setdefault(section, {}) or {}
                body[section] = there
                if name in there and there[name] != definition:
                    raise ConfigError(f"{where}: include: {section}.{name} is defined in {paths[0]} as well.")
                there[name] = definition
        for name, definition in found.items():
            if str(name).startswith("x-"):
                body.setdefault(name, definition)


def _parsed(path: Path) -> list[Any]:
    try:
        return load(path.read_bytes().decode("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The compose file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


# ---- one form -------------------------------------------------------------------------------------------------------


def canonical(service: Mapping[str, Any], where: str, directory: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """A service with its short forms written out and its paths made absolute."""
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
    """The change, below a `!override` too."""
    if isinstance(value, Reset):
        return value
    return Override(change(value.value)) if isinstance(value, Override) else change(value)


def pairs(value: Any, where: str, separators: str = "=") -> Any:
    """`{NAME: value}` of that, or of `[NAME=value]`. A name alone has no value."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(name): text for name, text in value.items()}
    if not isinstance(value, list):
        raise ConfigError(f"{where} is neither a mapping nor a list.")
    made: dict[str, Any] = {}
    for entry in value:
        parts = re.split(f"[{separators}]", text(entry), maxsplit=1)
        made[parts[0]] = parts[1] if len(parts) > 1 else None
    return made


def _build(value: Any, where: str, directory: Path) -> Any:
    if isinstance(value, str):
        value = {"context": value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is neither a path nor a mapping.")
    made = dict(value)
    if isinstance(made.get("context"), Reset | Override):
        return made
    context = text(made.get("context") or ".")
    if REMOTE.match(context):
        raise ConfigError(f"{where}.context: {context} is no directory of this machine.")
    made["context"] = os.path.abspath(directory / os.path.expanduser(context))
    if "args" in made:
        made["args"] = _each(made["args"], lambda value: pairs(value, f"{where}.args"))
    return made


def _file(entry: Any, where: str, directory: Path) -> list[dict[str, Any]]:
    if not isinstance(entry, Mapping):
        entry = {"path": entry}
    if not entry.get("path"):
        raise ConfigError(f"{where} has neither a path nor a mapping with one.")
    return [{**entry, "path": os.path.abspath(directory / os.path.expanduser(text(entry["path"])))}]


def mount(entry: Any, where: str, directory: Path) -> list[dict[str, Any]]:
    """A mount as a mapping: `type`, `source`, `target`, `read_only`."""
    if isinstance(entry, Mapping):
        made = dict(entry)
    else:
        parts = text(entry).split(":")
        if len(parts) > 3 or not parts[-1] or (len(parts) > 1 and not parts[1]):
            raise ConfigError(f"{where}: {text(entry)!r} is no mount.")
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
        raise ConfigError(f"{where}: {text(entry)!r} has no target.")
    return [made]


def published(entry: Any, where: str, directory: Path) -> list[dict[str, Any]]:
    """Ports as mappings, one for each port of a range: `target`, `published`, `protocol`, `host_ip`."""
    if isinstance(entry, Mapping):
        made = {"protocol": "tcp", **entry}
        return [{**made, "target": port} for port in _range(text(made.get("target")), where, entry)]
    rest, _, protocol = text(entry).partition("/")
    if protocol and protocol not in ("tcp", "udp", "sctp"):
        raise ConfigError(f"{where}: {text(entry)!r} names the protocol {protocol!r}; it is tcp or udp.")
    match = re.fullmatch(r"(?:(?:(\[[^]]*\]|[0-9.]+):)?([0-9-]*):)?([0-9]+(?:-[0-9]+)?)", rest)
    if match is None:
        raise ConfigError(f"{where}: {text(entry)!r} is no port: give one such as 80, 8080:80, or 8000-8010.")
    address, outside, inside = match.groups()
    ports = _range(inside, where, entry)
    made = {"protocol": protocol or "tcp", **({"host_ip": address.strip("[]")} if address else {})}
    outsides = _range(outside, where, entry) if outside else []
    if len(outsides) == len(ports):
        return [{**made, "target": port, "published": str(other)} for port, other in zip(ports, outsides, strict=True)]
    if outsides and len(ports) > 1:
        raise ConfigError(f"{where}: {text(entry)!r} has ranges of different length.")
    return [{**made, "target": port, **({"published": outside} if outside else {})} for port in ports]


def _range(value: str, where: str, entry: Any) -> list[int]:
    first, _, last = value.partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        raise ConfigError(f"{where}: {text(entry)!r} is no port: give one such as 80, 8080:80, or 8000-8010.")
    begin, end = int(first), int(last or first)
    if not 0 < begin <= end < 65536:
        raise ConfigError(f"{where}: {text(entry)!r} is no port: ports are from 1 to 65535.")
    return list(range(begin, end + 1))


def text(value: Any) -> str:
    """A scalar as Compose writes it where a text is wanted."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return number_text(value) if isinstance(value, int | float) else str(value)


# ---- merging --------------------------------------------------------------------------------------------------------


def _merged(base: Any, over: Any, key: str = "") -> Any:
    """The second laid over the first, by Compose's rules: mappings key by key, lists one after the other, else the second."""
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


def _settled(value: Any) -> Any:
    """Without the marks of merging: what was taken away is not there."""
    if isinstance(value, Override):
        return _settled(value.value)
    if isinstance(value, Mapping):
        return {key: _settled(inner) for key, inner in value.items() if not isinstance(inner, Reset)}
    if isinstance(value, list):
        return [_settled(inner) for inner in value if not isinstance(inner, Reset)]
    return copy.copy(value)
