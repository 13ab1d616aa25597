"""Agents that play a script. Harbor loads them by their import path."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from harbor.agents.base import BaseAgent
from harbor.environments.base import BaseEnvironment
from harbor.models.agent.context import AgentContext


class Scripted(BaseAgent):
    """Runs commands, one after the other, and records their results in its log folder."""

    def __init__(self, *args: Any, commands: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands = commands

    @staticmethod
    def name() -> str:
        """Returns the name of the agent."""
        return "scripted"

    def version(self) -> str:
        """Returns the version of the agent."""
        return "1"

    async def setup(self, environment: BaseEnvironment) -> None:
        """Needs nothing."""

    async def run(self, instruction: str, environment: BaseEnvironment, context: AgentContext) -> None:
        """Runs all commands."""
        results = []
        for command in self._commands:
            result = await environment.exec(command, timeout_sec=60)
            results.append([result.return_code, result.stdout, result.stderr])
            (self.logs_dir / "results.json").write_text(json.dumps(results))
