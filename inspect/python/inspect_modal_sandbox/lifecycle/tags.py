"""Tags and names of sandboxes: the sample they belong to, in Inspect's terms."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

PREFIX = "inspect"
"""The beginning of the names of this plugin's tags."""

VOLUMES_TAG = "inspect-volumes"
"""The volumes that belong to a sandbox: `PREFIX.N` stands for the volumes `PREFIX.0` to `PREFIX.N-1`."""

KEPT_TAG = "inspect-kept"
"""Marks a sandbox that was left running on purpose. It has no lease, so no sweep terminates it."""

OWNER_TAG = "sandbox-owner"
"""The owner of a sandbox. The host library sets it."""

LEASE_TAG = "sandbox-lease"
"""The end of the lease, in milliseconds since the epoch. The host library sets and renews it."""


def sample_tags(task_name: str, metadata: Mapping[str, Any]) -> dict[str, str]:
    """Returns the tags that say which sample a sandbox belongs to."""
    from inspect_ai.log._samples import sample_active

    tags = {f"{PREFIX}-task": task_name, f"{PREFIX}-sample": metadata.get("__sample_id__", "")}
    sample = sample_active()
    if sample is not None:
        tags |= {
            f"{PREFIX}-task": sample.task,
            f"{PREFIX}-eval": sample.eval_id,
            f"{PREFIX}-run": sample.run_id,
            f"{PREFIX}-uuid": sample.sample_uuid,
            f"{PREFIX}-epoch": sample.epoch,
        }
    # The tags serve for display and lookup, so long values may be cut.
    return {name: str(value)[:63] for name, value in tags.items() if value not in (None, "")}


def unique_name(tags: Mapping[str, str]) -> str:
    """Returns a name for a sandbox with these tags that no other sandbox has."""
    return f"{readable_name(tags)[:46]}-{uuid.uuid4().hex[:12]}".lstrip("-")


def readable_name(tags: Mapping[str, str]) -> str:
    """Returns task, sample and epoch, in characters that providers accept in names."""
    parts = [tags.get(f"{PREFIX}-{part}", "") for part in ("task", "sample", "epoch")]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(part for part in parts if part)).strip("-.")
