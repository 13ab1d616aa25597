"""Plans for compose documents. `sandbox_host.compose` reads them; this module adds what is particular to Inspect: variables
from the sample's metadata, and the type of errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox_host.compose import translate
from sandbox_host.compose.document import read
from sandbox_host.compose.envfile import metadata_variable
from sandbox_host.compose.plan import Plan

from .kinds import MODAL, Kind
from .plan import config_errors

__all__ = ["of_file", "of_object", "plan"]


def of_file(path: Path, metadata: Mapping[str, Any], kind: Kind = MODAL) -> Plan:
    """Returns the plan for a compose file.

    Raises:
        ConfigError: if the file cannot be read, or has a value that is wrong or not supported.
    """
    with config_errors():
        return translate.of_document(read([path], path.parent, _of_metadata(metadata)), kind)


def of_object(body: dict[str, Any], directory: Path, metadata: Mapping[str, Any], kind: Kind = MODAL) -> Plan:
    """Returns the plan for a document that is not a file. Relative paths start at `directory`.

    Raises:
        ConfigError: if a value is wrong or not supported.
    """
    with config_errors():
        return translate.of_document(read([("the ComposeConfig", body)], directory, _of_metadata(metadata)), kind)


def plan(
    document: Mapping[str, Any],
    where: str,
    directory: Path,
    variables: Mapping[str, str] | None = None,
    kind: Kind = MODAL,
) -> Plan:
    """Returns the plan for a document whose variables are filled in. See `translate.plan`.

    Raises:
        ConfigError: if a value is wrong or not supported. The text names its key.
    """
    with config_errors():
        return translate.plan(document, where, directory, kind, variables)


def _of_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Returns the variables that hold a sample's metadata."""
    return {metadata_variable(str(key)): str(value) for key, value in metadata.items()}
