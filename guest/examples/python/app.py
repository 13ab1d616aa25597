"""A provider of sandboxes in Python: the two interfaces that every provider needs, with sandboxes in memory.

A sandbox is a record, and a command is one of four built-in programs: `echo`, `cat`, `sleep` and `exit`. No program really
runs. componentize-py makes a component of this file: it looks for a class for each exported interface, named like it, and
calls their methods. An `Err` that a method raises becomes the error of the call.
"""

import re
import time
import uuid

from componentize_py_types import Err
from wit_world.imports import types

# The capabilities, with notes on their limits. Whatever is not listed here is refused.
CAPABILITIES = {
    "create.idempotent": "",
    "create.tags": "Sandboxes exist only in the process that created them.",
    "tags.update": "",
    "network.blocked": "A sandbox has no network in any case.",
    "exec.idempotent": "",
    "exec.deadline": "",
    "exec.merge-stderr": "",
}


class Sandbox:
    """A sandbox. It knows the results of its commands, so that a repeated call does not run a command again."""

    def __init__(self, info, key):
        self.info = info
        self.key = key
        self.results = {}


# The sandboxes by id, oldest first. The manifest asks for one instance, whose memory this is.
SANDBOXES = {}


def failure(kind, message, subject=None):
    """Returns an error to raise. Nothing has taken effect, and a repetition would fail in the same way."""
    no, never = types.Happened.NO, types.RetryAdvice_Never()
    return Err(types.Error(kind, message, no, never, None, None, subject, []))


def unsupported(capability):
    message = f"This provider does not have the capability {capability}."
    return failure(types.ErrorKind_Unsupported(), message, capability)


def invalid(message, subject=None):
    return failure(types.ErrorKind_InvalidArgument(), message, subject)


def refuse(wishes):
    """Raises an error for the first wish that is set. `wishes` are pairs of a capability and the wished value."""
    for capability, wish in wishes:
        if wish:
            raise unsupported(capability)


def check_id(id, what):
    """Raises an error unless this is the form of ids and keys that callers choose."""
    if not re.fullmatch("[A-Za-z0-9_-]{1,64}", id) or id == "main":
        raise invalid(f"{what} has 1 to 64 characters of A-Z, a-z, 0-9, _ and -, and is not `main`.", id)


def check_env(env):
    for name, value in env:
        if not name or "=" in name or "\0" in name + value:
            raise invalid("The name of a variable is not empty and has no `=`, and no text has NUL.", name)


def check_spec(spec):
    """Raises an error if `create` cannot fulfil a wish. Nothing that a caller asks for is ignored."""
    unknown = spec.options + spec.extra + spec.image.extra
    if unknown:
        raise invalid("This provider has no options.", unknown[0][0])
    image, source = spec.image, spec.image.source
    if not isinstance(source, types.ImageSource_ProviderDefault):
        raise unsupported("image.registry" if isinstance(source, types.ImageSource_Registry) else "image.dockerfile")
    if not isinstance(spec.entry_point, types.EntryPoint_KeepAlive | types.EntryPoint_Image):
        raise unsupported("create.command")
    if spec.key is not None:
        check_id(spec.key, "A key")
    resources, network = spec.resources, spec.network
    allowed = network.outbound.value if isinstance(network.outbound, types.Outbound_Allowed) else None
    kinds = {types.PortKind.TLS: "ports.tls", types.PortKind.H2: "ports.h2", types.PortKind.TCP: "ports.tcp"}
    refuse([(kinds[port.kind], True) for port in spec.ports])
    refuse([
        ("image.commands", image.commands),
        ("image.secrets", image.secrets),
        ("image.builder-version", image.builder_version),
        ("image.gpu", image.gpu),
        ("create.platform", image.platform),
        ("create.cpu", resources.cpu_request_millicores or resources.cpu_limit_millicores),
        ("create.memory", resources.memory_request_mib or resources.memory_limit_mib),
        ("create.disk", resources.disk_mib),
        ("create.gpu", resources.gpu),
        ("create.env", spec.env),
        ("create.secrets", spec.secrets),
        ("create.user", spec.user),
        ("create.workdir", spec.workdir),
        ("create.lifetime", spec.lifetime),
        ("create.idle-timeout", spec.idle_timeout),
        ("create.regions", spec.regions),
        ("create.volumes", spec.volumes),
        ("create.buckets", spec.buckets),
        ("create.names", spec.name),
        ("create.readiness", spec.readiness),
        ("create.pty", spec.pty),
        ("create.proxy", spec.proxy),
        ("network.domains", allowed and allowed.domains),
        ("network.cidrs", allowed),
        ("network.inbound", network.inbound_cidrs),
        ("sidecars", spec.sidecars),
    ])


def find(id):
    if id not in SANDBOXES:
        raise failure(types.ErrorKind_NotFound(), "There is no such sandbox.", id)
    return SANDBOXES[id]


class SandboxProvider:
    """The interface `sandbox-provider`."""

    def describe(self):
        native = types.Support.NATIVE
        capabilities = [types.Capability(name, native, note) for name, note in CAPABILITIES.items()]
        return types.Description("memory-python", "0.1.0", capabilities, '{"type":"object"}', [], [], [])

    def check(self):
        pass

    def check_spec(self, spec):
        check_spec(spec)

    def create(self, spec):
        check_spec(spec)
        for sandbox in SANDBOXES.values():
            if spec.key is not None and sandbox.key == spec.key:
                return sandbox.info
        id, created = uuid.uuid4().hex, int(time.time() * 1000)
        running = types.SandboxState_Running()
        info = types.SandboxInfo(id, None, running, None, created, list(dict(spec.tags).items()), [], [])
        SANDBOXES[id] = Sandbox(info, spec.key)
        return info

    def get(self, sandbox):
        return find(sandbox).info

    def list(self, filter, cursor, max):
        """Returns a page. The cursor is the number of sandboxes that were older than the end of the last page."""
        if not 1 <= max <= 1000:
            raise invalid("`max` is between 1 and 1000.")
        if filter.extra:
            raise invalid("This provider has no such filter.", filter.extra[0][0])
        all = list(SANDBOXES.values())
        end = len(all) if cursor is None else int(cursor) if cursor.isdigit() else -1
        if not 0 <= end <= len(all):
            raise invalid("This is no cursor of a list.")
        items = []
        while end > 0 and len(items) < max:
            end -= 1
            info = all[end].info
            alive = isinstance(info.state, types.SandboxState_Running)
            if (alive or filter.include_ended) and set(filter.tags) <= set(info.tags):
                items.append(info)
        return types.SandboxPage(items, str(end) if end > 0 else None)

    def wait(self, sandbox, wait):
        """Returns the end. Sleeps for a moment only: all calls share this instance, and another one ends the sandbox."""
        info = find(sandbox).info
        if isinstance(info.state, types.SandboxState_Ended):
            return info.state.value
        time.sleep(min(wait, 100) / 1000)
        return None

    def terminate(self, sandbox):
        find(sandbox).info.state = types.SandboxState_Ended(types.EndReason_Terminated())

    def get_tags(self, sandbox):
        return find(sandbox).info.tags

    def set_tags(self, sandbox, tags):
        find(sandbox).info.tags = list(dict(tags).items())


class Exec:
    """The interface `exec`."""

    def run(self, sandbox, spec, stdin, limits):
        found = find(sandbox)
        if isinstance(found.info.state, types.SandboxState_Ended):
            raise failure(types.ErrorKind_SandboxEnded(), "The sandbox was terminated.", sandbox)
        check_id(spec.id, "An exec id")
        if not spec.argv or any("\0" in word for word in spec.argv):
            raise invalid("A command has at least one word, and none has NUL.")
        if spec.timeout == 0:
            raise invalid("A time limit is longer than 0.")
        check_env(spec.env)
        if spec.extra:
            raise invalid("This provider has no such field.", spec.extra[0][0])
        refuse([
            ("create.env", spec.env),
            ("exec.secrets", spec.secrets),
            ("exec.cwd", spec.cwd),
            ("exec.user", spec.user),
            ("exec.pty", spec.pty),
            ("sidecars", spec.container),
        ])
        if spec.id not in found.results:
            found.results[spec.id] = execute(spec, stdin, limits)
        return found.results[spec.id]


def execute(spec, stdin, limits):
    """Runs a command and returns its result."""
    begun = time.monotonic()
    code, out, err = 0, b"", b""
    verdict = None
    match spec.argv:
        case ["echo", *words]:
            out = " ".join(words).encode() + b"\n"
        case ["cat"]:
            out = stdin
        case ["sleep", text] if text.replace(".", "", 1).isdigit():
            seconds, limit = float(text), spec.timeout
            if limit is not None and seconds * 1000 > limit:
                seconds, verdict = limit / 1000, types.Verdict_Deadline()
            time.sleep(seconds)
        case ["exit", text] if text.isdigit() and int(text) < 256:
            code = int(text)
        case [program, *_]:
            code, err = 127, f"{program}: no such program, or wrong arguments\n".encode()
    if spec.merge_stderr:
        out, err = out + err, b""
    out = captured(out, limits.stdout_max, spec.stdout, limits.keep)
    err = captured(err, limits.stderr_max, spec.stderr, limits.keep)
    millis = int((time.monotonic() - begun) * 1000)
    return types.RunResult(verdict or types.Verdict_Exited(code), out, err, millis)


def captured(data, most, mode, keep):
    """Cuts output to a limit."""
    if mode == types.OutputMode.DISCARD:
        return types.Captured(b"", 0)
    kept = data[:most] if keep == types.Keep.HEAD else data[max(0, len(data) - most):]
    return types.Captured(kept, len(data))
