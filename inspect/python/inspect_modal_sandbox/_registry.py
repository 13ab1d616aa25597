"""The entry point that every `inspect` command imports. It registers the sandbox types `modal` and `docker-engine`.

Inspect calls a function that is passed to `sandboxenv` at once. So the classes are registered, and their hooks load the
host library and the component when they first need them (`provider.opened`).
"""

from inspect_ai.util import sandboxenv

from .environment import DockerEngineSandboxEnvironment, ModalSandboxEnvironment

for environment in (ModalSandboxEnvironment, DockerEngineSandboxEnvironment):
    sandboxenv(name=environment.kind.name)(environment)
