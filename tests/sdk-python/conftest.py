"""Terminates the shared sandbox after the last check."""

import harness


def pytest_sessionfinish() -> None:
    harness.end_shared()
