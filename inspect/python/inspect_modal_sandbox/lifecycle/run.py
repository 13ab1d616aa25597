"""The state of one run of Inspect: images, directories of tasks, and running sandboxes."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

from ..kinds import MODAL, Kind
from .metrics import Metrics

if TYPE_CHECKING:
    from inspect_ai.util._sandbox.environment import PortMapping
    from sandbox_host import Provider, Sandbox

logger = getLogger(__name__)


@dataclass
class Created:
    """A sandbox that was created for a sample."""

    sandbox: Sandbox
    run: Run
    tags: dict[str, str]
    volumes: list[str] = field(default_factory=list)
    """Names of the volumes that belong to this sandbox and are deleted with it."""
    metrics: Metrics = field(default_factory=Metrics)
    has_ports: bool = False
    ports: list[PortMapping] | None = None
    """The public addresses of its ports; `None` until `ports.public_ports` has asked for them."""
    kind: Kind = MODAL

    @property
    def id(self) -> str:
        """The id of the sandbox."""
        return self.sandbox.id

    @property
    def provider(self) -> Provider:
        """The provider of the sandbox."""
        return self.sandbox.provider


@dataclass
class Run:
    """The state of one run of Inspect."""

    images: dict[tuple[int, str], tuple[str, str | None]] = field(default_factory=dict)
    """Id and working directory of each image, by provider and definition of the image."""
    building: dict[tuple[int, str], asyncio.Lock] = field(default_factory=dict)
    """Held while an image is built, with the keys of `images`."""
    directories: dict[object, list[Path]] = field(default_factory=dict)
    """The directories in which `task_init` was called with a configuration, by the value of the configuration. See
    `directories`."""
    alive: dict[str, Created] = field(default_factory=dict)
    """Sandboxes that have not been terminated, by id."""
    creating: set[asyncio.Task[Sandbox]] = field(default_factory=set)
    """Requests to create a sandbox that have not been answered."""
    warned: set[str] = field(default_factory=set)
    """Warnings that were already logged."""
    swept: set[int] = field(default_factory=set)
    """Providers whose credentials were checked and whose leftovers were removed."""

    def warn(self, text: str) -> None:
        """Logs a warning once per run."""
        if text not in self.warned:
            self.warned.add(text)
            logger.warning(text)


runs: list[Run] = []
"""All runs of this process. `ending` terminates their sandboxes when the process exits."""

_run: ContextVar[Run | None] = ContextVar("inspect_modal_sandbox_run", default=None)


def current_run() -> Run:
    """Returns the state of the current run of Inspect.

    Outside of a run, for instance if a program calls the hooks itself, the state belongs to the current context.
    """
    run = _run_of_inspect() or _run.get()
    if run is None:
        run = Run()
        _run.set(run)
    if not any(run is known for known in runs):
        runs.append(run)
    return run


def _run_of_inspect() -> Run | None:
    """Returns the state that Inspect keeps for its run, or `None` outside of a run."""
    try:
        from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_state
    except ImportError:
        return None
    state = sandbox_lifecycle_state()
    return state.get(Run) if state is not None else None
