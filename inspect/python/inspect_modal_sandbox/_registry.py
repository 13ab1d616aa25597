"""The entry point that Inspect imports with every command: registers the type `modal`, loads nothing heavy.

Inspect calls a function given to `sandboxenv` at once, so delaying has to happen inside: the native module and the
component are loaded by the first hook that needs them (`provider.opened`).
"""

from inspect_ai.util import sandboxenv

from .environment import ModalSandboxEnvironment

sandboxenv(name="modal")(ModalSandboxEnvironment)
