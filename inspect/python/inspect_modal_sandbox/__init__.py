"""Modal sandboxes for Inspect AI. Nothing is loaded before it is used: see `_registry` for the entry point."""

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
