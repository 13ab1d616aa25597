"""The logger for traces of remote calls, which `inspect trace` shows. The name of the action in every trace is the title of
the sandbox type."""

from __future__ import annotations

from logging import getLogger

logger = getLogger("inspect_ai.inspect_modal_sandbox")
"""Inspect records traces only from loggers below its own package. All other loggers have the level that is displayed."""
