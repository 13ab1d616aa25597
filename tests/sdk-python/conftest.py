"""Ends the sandbox that the checks share when the last one is through."""

import harness


def pytest_sessionfinish() -> None:
    harness.end_shared()
