"""What the reader has to know about the program that asks for a plan, and about the provider of its sandboxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Traits(Protocol):
    """The facts on which a plan depends. Any object with these attributes fits."""

    @property
    def name(self) -> str:
        """The name of the type of sandbox in messages."""

    @property
    def title(self) -> str:
        """The name of the provider in messages."""

    @property
    def at(self) -> str:
        """Where volumes are: the words after `the volume NAME`."""

    @property
    def port_kind(self) -> str:
        """How ports are made public: `tls` or `tcp`."""

    @property
    def services(self) -> bool:
        """Whether a sandbox can have more than one container."""

    @property
    def secrets(self) -> bool:
        """Whether the provider stores secrets."""

    @property
    def gpu_models(self) -> bool:
        """Whether the provider chooses GPUs by their model."""

    @property
    def extensions(self) -> frozenset[str] | None:
        """The keys that take effect under `x-modal` and `x-inspect_modal_sandbox`; `None` for all of them."""

    @property
    def options(self) -> Mapping[str, str]:
        """Keys of services that set an option of the provider, with the type of its value: `text`, `texts`, `flag`,
        `whole` or `mebibytes`. The option has the name of the key; for an amount in MiB, with the suffix `_mib`."""

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why keys of services have no effect or are refused, where `keys` gives another reason."""

    @property
    def main_service(self) -> str | None:
        """The name of the default service. If it is `None`, the document decides."""

    @property
    def strict(self) -> bool:
        """Whether a key that is not known is an error. Otherwise it gives a warning."""
