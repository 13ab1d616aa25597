"""Variables of compose files: their interpolation, and the files that give them (`.env`, `env_file`).

Both follow the grammar of Docker Compose's own reader. The library `python-dotenv` is near to it, but does not tell a value in
single quotes, whose `$` is meant, from others; takes no `:` between name and value; ends the reading of `export NAME`
differently; knows only `${NAME}` and `${NAME:-default}`; and leaves the octal escapes and `\\$` undone. So the grammar is
written out here.

Where this differs from Docker Compose: a variable that is not set is empty without a warning if its name begins with
`SAMPLE_METADATA_`, since Inspect's samples need not all have the same metadata.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, MutableMapping
from logging import getLogger
from pathlib import Path

from .plan import ConfigError

logger = getLogger(__name__)

METADATA_PREFIX = "SAMPLE_METADATA_"

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
BRACED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])(.*))?", re.DOTALL)
ESCAPE = re.compile(r"\\(?:[abcfnrtv$\"\\]|0[0-7]{0,3})")
ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}
SPACE = " \t\v\f\r\x85\xa0"

Lookup = Callable[[str], "str | None"]

_told: set[tuple[str, str]] = set()
"""Places and variables that the log has been told of."""


# ---- interpolation --------------------------------------------------------------------------------------------------


def substitute(text: str, lookup: Lookup, where: str, unset: Callable[[str], None]) -> str:
    """Fills in `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `${NAME:+other}`, each also without the colon;
    `$$` is a dollar sign. `unset` is told the names that have no value and no default.

    Raises:
        ConfigError: for `${` that is none of these, and for `?` without a value.
    """
    filled, at = "", 0
    while (dollar := text.find("$", at)) >= 0:
        filled += text[at:dollar]
        at = dollar + 1
        if text[at : at + 1] == "$":
            filled += "$"
            at += 1
        elif text[at : at + 1] == "{":
            end = _closing(text, at)
            match = BRACED.fullmatch(text[at + 1 : end]) if end is not None else None
            if end is None or match is None:
                raise ConfigError(f"{where}: {text!r} has a ${{ that is no variable; write $${{ for the text.")
            filled += _braced(match, lookup, where, unset)
            at = end + 1
        elif match := NAME.match(text, at):
            found = lookup(match.group())
            if found is None:
                unset(match.group())
            filled += found or ""
            at = match.end()
        else:
            filled += "$"
    return filled + text[at:]


def _closing(text: str, start: int) -> int | None:
    """Where the brace that opens at `start` is closed."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at
    return None


def _braced(match: re.Match[str], lookup: Lookup, where: str, unset: Callable[[str], None]) -> str:
    name, operator, word = match.group(1), match.group(2) or "", match.group(3) or ""
    found = lookup(name)
    given = None if operator.startswith(":") and found == "" else found
    match operator[-1:]:
        case "-":
            return given if given is not None else substitute(word, lookup, where, unset)
        case "+":
            return substitute(word, lookup, where, unset) if given is not None else ""
        case "?" if given is None:
            message = substitute(word, lookup, where, unset)
            raise ConfigError(f"{where}: the variable {name} is not set. {message}".rstrip())
    if found is None:
        unset(name)
    return found or ""


def warned(where: str) -> Callable[[str], None]:
    """Tells in the log of a variable that is not set: once for each place, not for each sample."""

    def unset(name: str) -> None:
        if not name.startswith(METADATA_PREFIX) and (where, name) not in _told:
            _told.add((where, name))
            logger.warning("%s: the variable %s is not set, and taken as empty.", where, name)

    return unset


# ---- files ----------------------------------------------------------------------------------------------------------


def read(path: Path, lookup: Lookup, *, missing_ok: bool = False, format: str | None = None) -> dict[str, str]:
    """The variables of a file. `lookup` gives those from outside, which interpolation prefers.

    Raises:
        ConfigError: if the file cannot be read, or is not of the format.
    """
    try:
        text = path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except FileNotFoundError:
        if missing_ok:
            return {}
        raise ConfigError(f"The env_file {path} is not there.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The env_file {path} cannot be read: {error}") from None
    if format == "raw":
        return _raw(text, lookup, str(path))
    if format is not None:
        raise ConfigError(f"The env_file {path}: the format {format!r} is not known; it is `raw`, or not given.")
    return parse(text, lookup, str(path))


def _raw(text: str, lookup: Lookup, where: str) -> dict[str, str]:
    """Lines `NAME=VALUE`, whose values are taken as written: quotes, `$` and `#` have no meaning."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not name or any(character.isspace() for character in name):
            raise ConfigError(f"{where}, line {number}: {name!r} is no name of a variable.")
        found = value if separator else lookup(name)
        if found is not None:
            values[name] = found
    return values


def parse(text: str, lookup: Lookup, where: str) -> dict[str, str]:
    """The variables in a text of Compose's grammar."""
    values: dict[str, str] = {}
    _Parser(text, lookup, where).into(values)
    return values


class _Parser:
    """One reading of a text."""

    def __init__(self, text: str, lookup: Lookup, where: str) -> None:
        self.text = text
        self.lookup = lookup
        self.where = where
        self.at = 0

    def into(self, values: MutableMapping[str, str]) -> None:
        while self._statement():
            name, inherited = self._name()
            if inherited:
                found = self.lookup(name)
                if found is not None:
                    values[name] = found
            else:
                values[name] = self._value(values)

    def _statement(self) -> bool:
        """Goes to the beginning of the next statement; false at the end."""
        while self.at < len(self.text):
            if self.text[self.at].isspace():
                self.at += 1
            elif self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return True
        return False

    def _name(self) -> tuple[str, bool]:
        """The name of a variable, and whether it stands alone, so that its value comes from outside."""
        if match := re.compile(r"export\s+").match(self.text, self.at):
            self.at = match.end()
        start = self.at
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in "=:\n":
                break
            if not (character in SPACE or character in "_.-[]" or character.isalnum()):
                raise self._wrong(f"{character!r} in the name of a variable")
            self.at += 1
        name = self.text[start : self.at].rstrip()
        inherited = self.at >= len(self.text) or self.text[self.at] == "\n"
        if not name or any(character.isspace() for character in name):
            raise self._wrong(f"{name!r} is no name of a variable")
        self.at += 1
        while not inherited and self.at < len(self.text) and self.text[self.at] in SPACE:
            self.at += 1
        return name, inherited

    def _value(self, values: Mapping[str, str]) -> str:
        quote = self.text[self.at : self.at + 1]
        if quote not in ("'", '"'):
            end = self.text.find("\n", self.at)
            end = len(self.text) if end < 0 else end
            line = self.text[self.at : end]
            self.at = end + 1
            return self._fill(line.partition(" #")[0].rstrip(), values)
        found, escaped = "", False
        for at in range(self.at + 1, len(self.text)):
            character = self.text[at]
            if character == quote and not escaped:
                self.at = at + 1
                return found if quote == "'" else self._fill(ESCAPE.sub(_unescape, found), values)
            if character == "\\" and not escaped:
                escaped = True
                continue
            if escaped and character != quote:
                found += "\\"
            escaped = False
            found += character
        raise self._wrong("a quoted value has no end")

    def _fill(self, text: str, values: Mapping[str, str]) -> str:
        def lookup(name: str) -> str | None:
            found = self.lookup(name)
            return found if found is not None else values.get(name)

        return substitute(text, lookup, self.where, warned(self.where))

    def _wrong(self, what: str) -> ConfigError:
        line = self.text.count("\n", 0, self.at) + 1
        return ConfigError(f"{self.where}, line {line}: {what}.")


def _unescape(match: re.Match[str]) -> str:
    sequence = match.group()[1:]
    if sequence == "$":
        return "$$"
    if sequence.startswith("0"):
        return chr(int(sequence, 8)) if len(sequence) == 4 and int(sequence, 8) < 256 else match.group()
    return ESCAPES.get(sequence, match.group())


def environment(directory: Path) -> dict[str, str]:
    """The variables that a compose file in this directory sees: those of this process, and those of the `.env` beside it."""
    return {**read(directory / ".env", os.environ.get, missing_ok=True), **os.environ}
