"""Sandboxes for Inspect AI: the sandbox types `modal` and `docker-engine`.

The entry point is `_registry`. This module loads its classes only when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import DockerEngineSandboxConfig, ModalSandboxConfig
    from .environment import DockerEngineSandboxEnvironment, ModalSandboxEnvironment

__all__ = [
    "DockerEngineSandboxConfig",
    "DockerEngineSandboxEnvironment",
    "ModalSandboxConfig",
    "ModalSandboxEnvironment",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = ".config" if name.endswith("Config") else ".environment"
    return getattr(import_module(module, __name__), name)
