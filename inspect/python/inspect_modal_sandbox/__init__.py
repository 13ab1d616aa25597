"""Modal sandboxes for Inspect AI.

The entry point is `_registry`. This module loads its classes only when they are used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ModalSandboxConfig
    from .environment import ModalSandboxEnvironment

__all__ = ["ModalSandboxConfig", "ModalSandboxEnvironment"]


def __getattr__(name: str) -> Any:
    if name == "ModalSandboxConfig":
        from .config import ModalSandboxConfig

        return ModalSandboxConfig
    if name == "ModalSandboxEnvironment":
        from .environment import ModalSandboxEnvironment

        return ModalSandboxEnvironment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
