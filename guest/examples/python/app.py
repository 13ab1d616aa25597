"""A provider of sandboxes in Python: the two interfaces that every provider needs, with sandboxes in memory.

A sandbox is a record, and a command is one of four built-in programs: `echo`, `cat`, `sleep` and `exit`. No program really
runs. componentize-py makes a component of this file: it looks for a class for each exported interface, named like it, and
calls their methods. An `Err` that a method raises becomes the error of the call.
"""

import time
import uuid

from componentize_py_types import Err
from wit_world.imports import types

# The capabilities, with notes on their limits. Whatever is not listed here is refused.
CAPABILITIES = {
    "create.idempotent": "",
    "create.tags": "Sandboxes exist only in the process that created them.",
    "network.blocked": "A sandbox has no network in any case.",
    "exec.idempotent": "",
    "exec.deadline": "",
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
    resources, network = spec.resources, spec.network
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
        ("network.cidrs", isinstance(network.outbound, types.Outbound_Allowed)),
        ("network.inbound", network.inbound_cidrs),
        ("ports.tcp", spec.ports),
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
        if not spec.argv:
            raise invalid("A command has at least one word.")
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
