"""The directory at which relative paths of a sample's configuration start.

Inspect calls `task_init` in the directory of the task, but `sample_init` in the directory that the user started it in. So
`task_init` notes its directory together with the configuration, and `sample_init` looks it up. Tasks in different directories
may have equal configurations; then the record of the running sample decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspect_ai._util.error import PrerequisiteError

from .. import planning
from ..kinds import MODAL, Kind
from .run import Run


def note_directory(run: Run, config: object, directory: Path) -> None:
    """Records that a task in this directory has this configuration."""
    known = run.directories.setdefault(directory_key(config), [])
    if directory not in known:
        known.append(directory)


def directory_of(run: Run, config: object, metadata: Mapping[str, Any], kind: Kind = MODAL) -> Path:
    """Returns the directory of the sample's task.

    Raises:
        PrerequisiteError: if tasks in several directories have this configuration, it gives different sandboxes in them, and
            Inspect's records do not say which task the sample belongs to.
    """
    known = run.directories.get(directory_key(config), [])
    if len(known) < 2:
        return known[0] if known else Path.cwd()
    own = _task_directory()
    if own in known:
        return own
    first, *others = [planning.make(config, directory, metadata, kind) for directory in known]
    if any(other != first for other in others):
        raise PrerequisiteError(
            f"Tasks in {' and '.join(map(str, known))} have the same sandbox configuration, and Inspect does not report "
            "which task this sample belongs to. Use absolute paths in the configuration."
        )
    return known[0]


def _task_directory() -> Path | None:
    """Returns the directory of the running sample's task, or `None` if Inspect's records do not say.

    For a task without a file, this is the directory that Inspect was started in.
    """
    try:
        from inspect_ai._control.eval_state import get_eval_state
        from inspect_ai.log._samples import sample_active

        sample = sample_active()
        state = get_eval_state(sample.eval_id) if sample is not None else None
        spec = getattr(getattr(state, "live", None), "eval", None)
        if spec is None:
            return None
        return (Path.cwd() / spec.task_file).parent.resolve() if spec.task_file else Path.cwd()
    except (ImportError, AttributeError):
        return None


def directory_key(config: object) -> object:
    """Returns a hashable value that is equal for equal configurations."""
    try:
        hash(config)
    except TypeError:
        return repr(config)
    return config
