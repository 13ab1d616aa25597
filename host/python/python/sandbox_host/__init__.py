"""Sandboxes for Python programs: on Modal, on Docker Engine and Podman, or from any other component.

A provider is a WebAssembly component. This package loads it, and everything that can be done with a sandbox is a method:

    >>> from sandbox_host import Provider
    >>> async with Provider.open("memory") as provider:
    ...     async with provider.create() as sandbox:
    ...         result = await sandbox.run(["echo", "hello"])
    ...         print(result.text, end="")
    hello

- `Provider`: opens a component; creates, finds, lists and sweeps sandboxes; builds images.
- `Sandbox`: runs commands, moves files, forwards ports, takes snapshots.
- `Process`: a command with its input and its output as it comes.
- `SandboxSpec`, `Image`, `Network` and others: what is passed in. They are frozen dataclasses.
- `SandboxError` and its subclasses: what is raised.
- `sandbox_host.sync`: the same names without asyncio, for scripts and notebooks.

Durations are seconds as a number, or a `timedelta`. A call that is cancelled stops, and a command that it runs is killed. If
OpenTelemetry is installed, each call is a span below the current one.

Names are loaded when they are first used, so importing this package costs about a millisecond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors as errors
    from . import sync as sync
    from .build import Build
    from .errors import (
        AlreadyExistsError,
        BuildFailedError,
        CallCancelledError,
        ClosedError,
        CommandError,
        ConfigError,
        ConflictError,
        FileError,
        FileExistsInSandboxError,
        FileNotFoundInSandboxError,
        ForbiddenError,
        InternalError,
        InvalidArgumentError,
        LocalIoError,
        NotFoundError,
        PermissionDeniedError,
        PluginError,
        ResourceExhaustedError,
        SandboxEndedError,
        SandboxError,
        TimedOutError,
        UnauthenticatedError,
        UnavailableError,
        UnsupportedError,
    )
    from .forward import Forward, Watch
    from .process import Process, Reader
    from .provider import Provider
    from .records import (
        BuiltImage,
        Capability,
        ConnectToken,
        Description,
        Distribution,
        EndReason,
        EnvVar,
        ExecInfo,
        FileContent,
        FileEvent,
        FileInfo,
        Grant,
        LogChunk,
        LogPage,
        OutputChunk,
        Progress,
        RunResult,
        SandboxInfo,
        SandboxState,
        SidecarInfo,
        Skipped,
        Swept,
        Throttled,
        Transfer,
        Tunnel,
        Usage,
        Verdict,
    )
    from .sandbox import Sandbox
    from .specs import (
        BucketMount,
        Dockerfile,
        Gpu,
        Image,
        Limits,
        Login,
        Network,
        Port,
        Probe,
        Pty,
        SandboxSettings,
        SandboxSpec,
        SidecarSpec,
        VolumeMount,
    )

_MODULES = {
    "build": ("Build",),
    "errors": (
        "AlreadyExistsError",
        "BuildFailedError",
        "CallCancelledError",
        "ClosedError",
        "CommandError",
        "ConfigError",
        "ConflictError",
        "FileError",
        "FileExistsInSandboxError",
        "FileNotFoundInSandboxError",
        "ForbiddenError",
        "InternalError",
        "InvalidArgumentError",
        "LocalIoError",
        "NotFoundError",
        "PermissionDeniedError",
        "PluginError",
        "ResourceExhaustedError",
        "SandboxEndedError",
        "SandboxError",
        "TimedOutError",
        "UnauthenticatedError",
        "UnavailableError",
        "UnsupportedError",
    ),
    "forward": ("Forward", "Watch"),
    "process": ("Process", "Reader"),
    "provider": ("Provider",),
    "records": (
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
        "Progress",
        "RunResult",
        "SandboxInfo",
        "SandboxState",
        "SidecarInfo",
        "Skipped",
        "Swept",
        "Throttled",
        "Transfer",
        "Tunnel",
        "Usage",
        "Verdict",
    ),
    "sandbox": ("Sandbox",),
    "specs": (
        "BucketMount",
        "Dockerfile",
        "Gpu",
        "Image",
        "Limits",
        "Login",
        "Network",
        "Port",
        "Probe",
        "Pty",
        "SandboxSettings",
        "SandboxSpec",
        "SidecarSpec",
        "VolumeMount",
    ),
}
_FOUND_IN = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AlreadyExistsError",
    "BucketMount",
    "Build",
    "BuildFailedError",
    "BuiltImage",
    "CallCancelledError",
    "Capability",
    "ClosedError",
    "CommandError",
    "ConfigError",
    "ConflictError",
    "ConnectToken",
    "Description",
    "Distribution",
    "Dockerfile",
    "EndReason",
    "EnvVar",
    "ExecInfo",
    "FileContent",
    "FileError",
    "FileEvent",
    "FileExistsInSandboxError",
    "FileInfo",
    "FileNotFoundInSandboxError",
    "ForbiddenError",
    "Forward",
    "Gpu",
    "Grant",
    "Image",
    "InternalError",
    "InvalidArgumentError",
    "Limits",
    "LocalIoError",
    "LogChunk",
    "LogPage",
    "Login",
    "Network",
    "NotFoundError",
    "OutputChunk",
    "PermissionDeniedError",
    "PluginError",
    "Port",
    "Probe",
    "Process",
    "Progress",
    "Provider",
    "Pty",
    "Reader",
    "ResourceExhaustedError",
    "RunResult",
    "Sandbox",
    "SandboxEndedError",
    "SandboxError",
    "SandboxInfo",
    "SandboxSettings",
    "SandboxSpec",
    "SandboxState",
    "SidecarInfo",
    "SidecarSpec",
    "Skipped",
    "Swept",
    "Throttled",
    "TimedOutError",
    "Transfer",
    "Tunnel",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "Usage",
    "Verdict",
    "VolumeMount",
    "Watch",
    "errors",
    "sync",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in ("errors", "sync"):
        return import_module(f".{name}", __name__)
    module = _FOUND_IN.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
