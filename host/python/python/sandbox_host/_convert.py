"""Conversions between Python values and the JSON of calls."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

Seconds = float | timedelta
"""A duration: seconds as a number, or a `timedelta`."""


def millis(value: Seconds | None, name: str) -> int | None:
    """Returns a duration in milliseconds. Raises `ValueError` or `TypeError` for what is no duration.

    >>> millis(1.5, "timeout"), millis(timedelta(minutes=1), "timeout"), millis(None, "timeout")
    (1500, 60000, None)
    """
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"`{name}` must be a number of seconds or a timedelta, not {type(value).__name__}")
    if math.isnan(value) or value < 0:
        raise ValueError(f"`{name}` must not be negative: {value}")
    if math.isinf(value):
        raise ValueError(f"`{name}` must be finite; leave it out for no limit")
    # A duration that is not zero must not become zero.
    return max(round(value * 1000), 1 if value > 0 else 0)


def timestamp(value: datetime | float | None, name: str) -> int | None:
    """Returns a point in time in milliseconds since the epoch. A `datetime` must have a time zone."""
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"`{name}` needs a time zone, such as `datetime.now(timezone.utc)`")
        value = value.timestamp()
    return round(value * 1000)


def moment(value: int | None) -> datetime | None:
    """Returns a point in time in UTC."""
    if value is None:
        return None
    try:
        return datetime.fromtimestamp(value / 1000, timezone.utc)
    except (OverflowError, ValueError, OSError):
        # Beyond the year 9999: never.
        return datetime.max.replace(tzinfo=timezone.utc)


def pairs(value: Mapping[str, str] | None, name: str) -> list[list[str]]:
    """Returns names and values as a list of pairs, in their order."""
    if value is None:
        return []
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must be a mapping of names to values, not {type(value).__name__}")
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise TypeError(f"`{name}` must map strings to strings: {key!r}: {item!r}")
    return [[key, item] for key, item in value.items()]


def words(value: Sequence[str] | None, name: str) -> list[str]:
    """Returns a list of strings. A single string is an error, because it would become a list of letters."""
    if value is None:
        return []
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"`{name}` must be a list of strings, not {type(value).__name__}")
    for word in value:
        if not isinstance(word, str):
            raise TypeError(f"`{name}` must be a list of strings, and has {word!r} in it")
    return list(value)


def content(value: bytes | bytearray | memoryview | str, name: str) -> bytes:
    """Returns bytes. Text becomes UTF-8."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"`{name}` must be bytes or text, not {type(value).__name__}")


def local(path: str | os.PathLike[str]) -> str:
    """Returns the path of a local file or directory as text, absolute, with `~` expanded."""
    return os.path.abspath(os.path.expanduser(os.fspath(path)))


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values that are set: not `None` and no empty list or dictionary."""
    return {name: value for name, value in values.items() if value is not None and value != [] and value != {}}


def variant(value: Any) -> tuple[str, Any]:
    """Splits a variant into its name and its payload.

    >>> variant("running"), variant({"exited": 3})
    (('running', None), ('exited', 3))
    """
    if isinstance(value, Mapping):
        for name, payload in value.items():
            return str(name), payload
    return str(value), None
