"""Values of compose documents, and the error for those that are not supported.

Variables are filled in as text, so a boolean or a number may arrive as a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from .document import text
from .plan import ComposeError


class Refusal(ComposeError):
    """A value is wrong or not supported. `at` is the place of its key."""

    def __init__(self, at: str, reason: str) -> None:
        super().__init__(at + reason)
        # Inspect prints exceptions by their single argument.
        self.args = (at + reason,)
        self.at = at


def refuse(at: str, reason: str) -> NoReturn:
    """Raises `Refusal` for the value at a place. `reason` continues the text of the place."""
    raise Refusal(at, reason)


def flag(value: Any, where: str) -> bool:
    """Reads a boolean. `None` and an empty text are false."""
    given = text(value).lower()
    if given in ("", "false", "no", "n", "off"):
        return False
    if given in ("true", "yes", "y", "on"):
        return True
    refuse(where, f": {text(value)!r} is neither true nor false.")


def whole(value: Any, where: str) -> int:
    """Reads an integer."""
    given = text(value).strip()
    if not re.fullmatch(r"[-+]?\d+", given):
        refuse(where, f": {given!r} is not an integer.")
    return int(given)


def texts(value: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """Converts the values to strings. A name without a value takes that of the variable, or is left out, as with Docker."""
    found = {name: variables.get(name) if one is None else text(one) for name, one in value.items()}
    return {name: one for name, one in found.items() if one is not None}


def text_list(value: Any) -> list[str]:
    """Converts a list, or a single value, to a list of strings."""
    return [text(one) for one in (value if isinstance(value, list) else [value])]


def is_unset(value: Any) -> bool:
    """Returns whether a value is empty or false, so that its key has no effect with Docker either."""
    return value in (None, [], {}) or text(value).lower() in ("", "false")
