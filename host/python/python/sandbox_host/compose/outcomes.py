"""How commands and containers ended, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox_host import EndReason, Verdict


def end_text(reason: EndReason) -> str:
    """Returns why a sandbox or a container has ended."""
    match reason.kind:
        case "finished":
            return f"its entry-point command ended with exit code {reason.code}"
        case "terminated":
            return "it was terminated"
        case "lifetime":
            return "it reached the end of its lifetime"
        case "idle":
            return "it was idle for too long"
        case "out-of-memory":
            return "it ran out of memory"
        case "failed-to-start":
            return f"it did not start: {reason.text}"
        case "lost":
            return f"it was lost: {reason.text}"
    return reason.text


def lost_text(verdict: Verdict) -> str | None:
    """Returns why a command has no end of its own: its sandbox has ended, or the command was lost. Otherwise returns `None`."""
    if verdict.end is not None:
        return end_text(verdict.end)
    return verdict.text if verdict.kind in ("lost", "other") else None
