"""What the sandbox of one sample did: times, commands and bytes, for the sample's log (`samplelog`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Metrics:
    """Counters of one sandbox. Times are in seconds."""

    create_secs: float = 0.0
    """From the request to create the sandbox to its answer."""
    start_secs: float = 0.0
    """From the wait for a turn to create the sandbox until all services are ready."""
    first_exec_secs: float | None = None
    """The duration of the first command."""
    execs: int = 0
    """Commands that Inspect ran."""
    bytes_sent: int = 0
    bytes_received: int = 0
    retries: int = 0
    """Repeated requests to the provider's control plane. Repeated requests to the router of a sandbox are not counted."""

    def executed(self, secs: float) -> None:
        """Counts a command that took `secs` seconds."""
        self.execs += 1
        if self.first_exec_secs is None:
            self.first_exec_secs = secs

    def transferred(self, sent: int, received: int) -> None:
        """Counts bytes that were sent to the sandbox and received from it."""
        self.bytes_sent += sent
        self.bytes_received += received

    def as_dict(self) -> dict[str, Any]:
        """Returns all counters, with times rounded to milliseconds."""
        values = vars(self).items()
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in values}
