"""What calls return: states, results, descriptions. All are frozen dataclasses of plain Python values.

Durations are seconds, points in time are `datetime` in UTC. Fields that a newer library adds are ignored.

    >>> Verdict.from_json({"exited": 3})
    Verdict(kind='exited', code=3, signal=None, end=None, text='')
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ._convert import moment, variant

__all__ = [
    "BuiltImage",
    "Capability",
    "ConnectToken",
    "Description",
    "Distribution",
    "EndReason",
    "EnvVar",
    "ExecInfo",
    "FileContent",
    "FileEvent",
    "FileInfo",
    "Grant",
    "LogChunk",
    "LogPage",
    "OutputChunk",
    "RunResult",
    "SandboxInfo",
    "SandboxState",
    "SidecarInfo",
    "Swept",
    "Throttled",
    "Transfer",
    "Tunnel",
    "Usage",
    "Verdict",
]

Json = Mapping[str, Any]


def _extra(value: Any) -> dict[str, Any]:
    items = value.items() if isinstance(value, Mapping) else (value or [])
    result = {}
    for name, text in items:
        if isinstance(text, str):
            try:
                text = json.loads(text)
            except ValueError:
                pass
        result[name] = text
    return result


def _tags(value: Any) -> dict[str, str]:
    return dict(value or [])


@dataclass(frozen=True)
class EndReason:
    """Why a sandbox ended."""

    kind: str
    """`finished`, `terminated`, `lifetime`, `idle`, `out-of-memory`, `failed-to-start`, `lost` or `other`."""

    code: int | None = None
    """The exit code of the main process, for `finished`."""

    text: str = ""
    """The cause, for `failed-to-start`, `lost` and `other`."""

    @classmethod
    def from_json(cls, value: Any) -> EndReason:
        """Reads the JSON of a call."""
        kind, payload = variant(value)
        if kind == "finished":
            return cls(kind, int(payload))
        return cls(kind, None, "" if payload is None else str(payload))


@dataclass(frozen=True)
class SandboxState:
    """The state of a sandbox."""

    kind: str
    """`pending`, `running`, `paused`, `stopped`, `ended`, `unknown` or `other`."""

    end: EndReason | None = None
    """Why it ended, for `ended`."""

    text: str = ""
    """The state, for `other`."""

    @classmethod
    def from_json(cls, value: Any) -> SandboxState:
        """Reads the JSON of a call."""
        kind, payload = variant(value)
        if kind == "ended":
            return cls(kind, EndReason.from_json(payload))
        return cls(kind, None, "" if payload is None else str(payload))


@dataclass(frozen=True)
class Verdict:
    """How a command ended."""

    kind: str
    """`exited`, `signaled`, `deadline` (its time limit passed), `sandbox-ended`, `out-of-memory`, `lost` or `other`."""

    code: int | None = None
    """The exit code, for `exited`. 127 also means that the program does not exist, 126 that it is not executable."""

    signal: int | None = None
    """The number of the signal, for `signaled`."""

    end: EndReason | None = None
    """Why the sandbox ended, for `sandbox-ended`."""

    text: str = ""
    """The cause, for `lost` and `other`."""

    @property
    def ok(self) -> bool:
        """Whether the command exited with 0."""
        return self.code == 0

    @classmethod
    def from_json(cls, value: Any) -> Verdict:
        """Reads the JSON of a call."""
        kind, payload = variant(value)
        if kind == "exited":
            return cls(kind, code=int(payload))
        if kind == "signaled":
            return cls(kind, signal=int(payload))
        if kind == "sandbox-ended":
            return cls(kind, end=EndReason.from_json(payload))
        return cls(kind, text="" if payload is None else str(payload))

    def __str__(self) -> str:
        if self.kind == "exited":
            return f"exit code {self.code}"
        if self.kind == "signaled":
            return f"signal {self.signal}"
        if self.end is not None:
            return f"sandbox ended: {self.end.kind}"
        return f"{self.kind}: {self.text}" if self.text else self.kind


@dataclass(frozen=True)
class RunResult:
    """The result of a command that ran to its end."""

    verdict: Verdict
    """How it ended."""

    stdout: bytes
    """Standard output, at most as many bytes as were asked for."""

    stderr: bytes
    """Standard error, in the same way."""

    stdout_total: int
    """The number of bytes that were printed."""

    stderr_total: int
    """The same for standard error."""

    duration: float
    """The time from start to end, in seconds."""

    retries: int
    """The number of requests that were repeated."""

    @property
    def ok(self) -> bool:
        """Whether the command exited with 0."""
        return self.verdict.ok

    @property
    def exit_code(self) -> int | None:
        """The exit code, or `None` if the command did not exit by itself."""
        return self.verdict.code

    @property
    def text(self) -> str:
        """Standard output as text. Wrong bytes are shown as U+FFFD."""
        return self.stdout.decode(errors="replace")

    @property
    def error_text(self) -> str:
        """Standard error as text."""
        return self.stderr.decode(errors="replace")

    @property
    def truncated(self) -> bool:
        """Whether output was left out because of the limits."""
        return self.stdout_total > len(self.stdout) or self.stderr_total > len(self.stderr)

    def check(self) -> RunResult:
        """Returns this result. Raises `CommandError` if the command did not exit with 0."""
        if not self.ok:
            from .errors import CommandError

            said = (self.error_text or self.text).strip()[-2000:]
            raise CommandError(f"the command failed: {self.verdict}" + (f": {said}" if said else ""), self)
        return self

    @classmethod
    def from_json(cls, value: Json, parts: tuple[bytes, ...]) -> RunResult:
        """Reads the reply of a call."""
        return cls(
            Verdict.from_json(value["verdict"]),
            parts[0],
            parts[1],
            int(value["stdout_total"]),
            int(value["stderr_total"]),
            value["duration"] / 1000,
            int(value.get("retries", 0)),
        )


@dataclass(frozen=True)
class OutputChunk:
    """A piece of the output of a process."""

    stream: str
    """`stdout` or `stderr`."""

    data: bytes
    """The bytes. A piece can begin and end within a line, and within a character."""

    @property
    def text(self) -> str:
        """The bytes as text. Wrong bytes are shown as U+FFFD."""
        return self.data.decode(errors="replace")


@dataclass(frozen=True)
class Tunnel:
    """The public address of a port of a sandbox."""

    port: int
    """The port in the sandbox."""

    kind: str
    """`tls`, `h2` or `tcp`."""

    public_host: str
    """The public host name or address."""

    public_port: int
    """The public port."""

    @property
    def url(self) -> str:
        """The address as a URL, for ports with TLS. Raises `ValueError` for plain TCP."""
        if self.kind == "tcp":
            raise ValueError("a port of the kind `tcp` has no URL")
        return f"https://{self.public_host}:{self.public_port}"

    @classmethod
    def from_json(cls, value: Json) -> Tunnel:
        """Reads the JSON of a call."""
        return cls(value["port"], value["kind"], value["public_host"], value["public_port"])


@dataclass(frozen=True)
class SandboxInfo:
    """Information about a sandbox."""

    id: str
    """The id."""

    name: str | None
    """The name."""

    state: SandboxState
    """The state at the time of the request."""

    image: str | None
    """The id of the image."""

    created: datetime | None
    """The time of creation."""

    tags: dict[str, str]
    """The tags. Empty if the request does not return them."""

    tunnels: list[Tunnel]
    """The tunnels that are known without waiting."""

    extra: dict[str, Any] = field(default_factory=dict)
    """Additional fields, such as the region."""

    @classmethod
    def from_json(cls, value: Json) -> SandboxInfo:
        """Reads the JSON of a call."""
        return cls(
            value["id"],
            value.get("name"),
            SandboxState.from_json(value.get("state", "unknown")),
            value.get("image"),
            moment(value.get("created")),
            _tags(value.get("tags")),
            [Tunnel.from_json(each) for each in value.get("tunnels") or []],
            _extra(value.get("extra")),
        )


@dataclass(frozen=True)
class SidecarInfo:
    """Information about a sidecar."""

    id: str
    """The id."""

    name: str
    """The name."""

    state: SandboxState
    """The state."""

    @classmethod
    def from_json(cls, value: Json) -> SidecarInfo:
        """Reads the JSON of a call."""
        return cls(value["id"], value["name"], SandboxState.from_json(value["state"]))


@dataclass(frozen=True)
class ExecInfo:
    """A command of a sandbox, in a list."""

    id: str
    """The id, for `Sandbox.attach`."""

    argv: list[str]
    """The program and its arguments, if the provider reports them."""

    started: datetime | None
    """The time of the start."""

    verdict: Verdict | None
    """How it ended, or `None` while it runs."""

    container: str | None
    """The sidecar in which it runs, or `None` for the main container."""

    @classmethod
    def from_json(cls, value: Json) -> ExecInfo:
        """Reads the JSON of a call."""
        verdict = value.get("verdict")
        return cls(
            value["id"],
            list(value.get("argv") or []),
            moment(value.get("started")),
            None if verdict is None else Verdict.from_json(verdict),
            value.get("container"),
        )


@dataclass(frozen=True)
class FileInfo:
    """A file, directory or other entry."""

    name: str
    """The last component of the path."""

    path: str
    """The absolute path."""

    kind: str
    """`file`, `directory`, `symlink` or `other`."""

    target: str | None
    """The target of a symbolic link, or the type of another entry, such as `fifo`."""

    size: int
    """The length in bytes."""

    mode: int
    """The low twelve mode bits."""

    owner: str
    """The name of the owner, or the number as text."""

    group: str
    """The name of the group, or the number as text."""

    modified: datetime | None
    """The time of the last change."""

    @property
    def is_file(self) -> bool:
        """Whether this is a regular file."""
        return self.kind == "file"

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.kind == "directory"

    @classmethod
    def from_json(cls, value: Json) -> FileInfo:
        """Reads the JSON of a call."""
        kind, payload = variant(value["kind"])
        return cls(
            value["name"],
            value["path"],
            kind,
            payload,
            value["size"],
            value["mode"],
            value["owner"],
            value["group"],
            moment(value["modified"]),
        )


@dataclass(frozen=True)
class FileContent:
    """A file that was read."""

    data: bytes
    """The content."""

    mode: int
    """The low twelve mode bits."""


@dataclass(frozen=True)
class FileEvent:
    """An event of a watch."""

    kind: str
    """`created`, `modified`, `removed`, `accessed` or another text."""

    paths: list[str]
    """The paths. Two of them if both sides of a rename are known."""

    @classmethod
    def from_json(cls, value: Json) -> FileEvent:
        """Reads the JSON of a call."""
        kind, payload = variant(value["kind"])
        return cls(str(payload) if kind == "other" else kind, list(value["paths"]))


@dataclass(frozen=True)
class Skipped:
    """An entry of a directory that was not copied. Its text is `path: reason`."""

    path: str
    """The path below the directory."""

    reason: str
    """Why it was not copied, such as `a socket` or `a link that points outside of the directory`."""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Transfer:
    """What was copied of a directory."""

    bytes: int
    """The number of bytes of the archive that the directory was sent in."""

    skipped: list[Skipped] = field(default_factory=list)
    """The first entries that were not copied, at most 20: pipes, sockets, devices, links that lead outside."""

    skipped_total: int = 0
    """The number of all entries that were not copied."""

    @classmethod
    def from_json(cls, value: Json) -> Transfer:
        """Reads the JSON of a call."""
        skipped = [Skipped(each["path"], each["reason"]) for each in value["skipped"]]
        return cls(value["bytes"], skipped, value["skipped_total"])


@dataclass(frozen=True)
class Progress:
    """How far an upload or a download is."""

    bytes: int
    """The bytes that were read or written on this machine. Those of a directory are bytes of the archive that it is sent in."""

    total: int | None = None
    """The size of the file, or `None` for a directory and where the size is not known."""


@dataclass(frozen=True)
class LogChunk:
    """A piece of a log. It can begin and end within a line."""

    text: str
    """The text with its line ends."""

    stream: str | None = None
    """`stdout`, `stderr`, or `None` for messages of a builder."""

    at: datetime | None = None
    """The time, if the provider reports it."""

    @classmethod
    def from_json(cls, value: Json) -> LogChunk:
        """Reads the JSON of a call."""
        return cls(value["text"], value.get("stream"), moment(value.get("at")))


@dataclass(frozen=True)
class LogPage:
    """A page of a persisted log."""

    items: list[LogChunk]
    """The entries by time."""

    next: str | None
    """The cursor for the next page, or `None` for the last page."""

    @classmethod
    def from_json(cls, value: Json) -> LogPage:
        """Reads the JSON of a call."""
        return cls([LogChunk.from_json(each) for each in value["items"]], value.get("next"))


@dataclass(frozen=True)
class BuiltImage:
    """An image that can be used."""

    id: str
    """The id, for `Image(id=…)`."""

    workdir: str | None = None
    """The working directory of commands."""

    extra: dict[str, Any] = field(default_factory=dict)
    """Additional fields."""

    @classmethod
    def from_json(cls, value: Json) -> BuiltImage:
        """Reads the JSON of a call."""
        return cls(value["id"], value.get("workdir"), _extra(value.get("extra")))


@dataclass(frozen=True)
class Capability:
    """A capability of a provider."""

    name: str
    """The name, such as `exec.pty`."""

    support: str
    """`native`, `emulated` or `absent`."""

    note: str
    """Limits and differences."""


@dataclass(frozen=True)
class EnvVar:
    """An environment variable that a provider reads."""

    name: str
    """The name."""

    purpose: str
    """The purpose."""

    default: str | None
    """The default."""

    secret: bool
    """Whether the value is a credential."""


@dataclass(frozen=True)
class Description:
    """The description of a provider."""

    name: str
    """The short name, such as `modal`."""

    version: str
    """The version of the component."""

    capabilities: dict[str, Capability]
    """The capabilities, by their names."""

    options_schema: dict[str, Any]
    """The options for `SandboxSpec.options`, as a JSON Schema object."""

    environment: list[EnvVar]
    """The environment variables that the provider reads."""

    extra: dict[str, Any] = field(default_factory=dict)
    """Additional fields."""

    def supports(self, capability: str) -> bool:
        """Returns whether the provider has a capability."""
        found = self.capabilities.get(capability)
        return found is not None and found.support != "absent"

    @classmethod
    def from_json(cls, value: Json) -> Description:
        """Reads the JSON of a call."""
        capabilities = [Capability(each["name"], each["support"], each["note"]) for each in value["capabilities"]]
        schema = value.get("options_schema") or {}
        return cls(
            value["name"],
            value["version"],
            {each.name: each for each in capabilities},
            json.loads(schema) if isinstance(schema, str) else dict(schema),
            [
                EnvVar(each["name"], each["purpose"], each.get("default"), bool(each.get("secret")))
                for each in value.get("environment") or []
            ],
            _extra(value.get("extra")),
        )


@dataclass(frozen=True)
class Distribution:
    """How a quantity was distributed over the life of a sandbox."""

    name: str
    """What was measured: `cpu`, `memory`, or a name of the provider."""

    unit: str
    """The unit of all values."""

    mean: float | None
    """The mean over time."""

    max: float | None
    """The largest value."""

    percentiles: dict[float, float]
    """Values by percentile, from 0 to 100."""


@dataclass(frozen=True)
class Usage:
    """What a sandbox has used, and what that costs as far as the provider tells it."""

    cpu_core_seconds: float
    """Processor time: cores times seconds."""

    memory_mib_seconds: float
    """Memory: MiB times seconds."""

    gpu_seconds: float
    """Accelerators times seconds."""

    cost: float | None
    """The cost in US dollars; `None` where the provider tells none, or none has been recorded yet."""

    cost_by_resource: dict[str, float]
    """The cost by resource."""

    billed_cpu_core_seconds: float | None
    """Processor time that is billed. May be more than was used."""

    billed_memory_mib_seconds: float | None
    """Memory that is billed. May be more than was used."""

    running: float | None
    """How long it has run, in seconds."""

    distributions: list[Distribution]
    """How its use was distributed."""

    extra: dict[str, Any] = field(default_factory=dict)
    """Additional fields."""

    @classmethod
    def from_json(cls, value: Json) -> Usage:
        """Reads the JSON of a call."""

        def seconds(number: int | None) -> float | None:
            return None if number is None else number / 1000

        totals = value["totals"]
        return cls(
            totals["cpu_core_millis"] / 1000,
            totals["memory_mib_millis"] / 1000,
            totals["gpu_millis"] / 1000,
            value.get("cost"),
            dict(value.get("cost_by_resource") or []),
            seconds(value.get("billed_cpu_core_millis")),
            seconds(value.get("billed_memory_mib_millis")),
            seconds(value.get("running")),
            [
                Distribution(each["name"], each["unit"], each.get("mean"), each.get("max"), dict(each.get("percentiles") or []))
                for each in value.get("distributions") or []
            ],
            _extra(value.get("extra")),
        )


@dataclass(frozen=True)
class ConnectToken:
    """What permits an HTTP client to connect to a port of a sandbox. It contains a secret."""

    url: str
    """The base URL."""

    headers: dict[str, str] = field(repr=False)
    """Headers that every request must have."""

    expires: datetime | None
    """When it expires."""

    @classmethod
    def from_json(cls, value: Json) -> ConnectToken:
        """Reads the JSON of a call."""
        return cls(value["url"], dict(value.get("headers") or []), moment(value.get("expires")))


@dataclass(frozen=True)
class Swept:
    """A sandbox whose lease has expired."""

    id: str
    """The id of the sandbox."""

    run: str
    """The id of the run that created it."""

    overdue: float
    """The seconds since its lease and the period of grace ended."""

    terminated: bool
    """Whether it was terminated. False in a dry run, and if the termination failed."""


@dataclass(frozen=True)
class Throttled:
    """The waits that the service asked for in creations of sandboxes."""

    count: int
    """The number of waits since the provider was opened."""

    remaining: float
    """The remaining seconds of the latest wait."""


@dataclass(frozen=True)
class Grant:
    """An origin that a provider may connect to."""

    origin: str
    """The origin, such as `https://api.example.org`."""

    fields: dict[str, Any] = field(default_factory=dict)
    """Everything that is known about it: why it is granted, and which credentials the host adds (their names only)."""
