"""What the log of a sample says about its sandbox: an info event whose source is the sandbox type."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from .run import Created


def write_metrics(created: Created, cost: Mapping[str, Any]) -> None:
    """Writes the metrics and the cost of a sandbox into the log of the running sample.

    Failures are ignored: there may be no sample.
    """
    with contextlib.suppress(Exception):
        from inspect_ai.log import transcript

        transcript().info({"sandbox": created.id, **created.metrics.as_dict(), **cost}, source=created.kind.name)
