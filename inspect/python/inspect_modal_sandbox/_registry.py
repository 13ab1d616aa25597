"""The entry point that every `inspect` command imports. It registers the sandbox type `modal`.

Inspect calls a function that is passed to `sandboxenv` at once. So the class is registered, and its hooks load the native
module and the component when they first need them (`provider.opened`).
"""

from inspect_ai.util import sandboxenv

from .environment import ModalSandboxEnvironment

sandboxenv(name="modal")(ModalSandboxEnvironment)
