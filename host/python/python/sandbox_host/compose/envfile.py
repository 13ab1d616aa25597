"""Variables of compose files: interpolation, and the files that define them (`.env`, `env_file`).

Both follow the grammar of Docker Compose. The library `python-dotenv` differs in several points: it interpolates values in
single quotes, does not accept `:` between name and value, reads `export NAME` differently, knows only `${NAME}` and
`${NAME:-default}`, and does not decode octal escapes and `\\$`. So this module has its own parser.

One rule differs from Docker Compose: an unset variable gives no warning if its name begins with `SAMPLE_METADATA_`, because the
samples of a task need not have the same metadata.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, MutableMapping
from logging import getLogger
from pathlib import Path

from .plan import ComposeError

logger = getLogger(__name__)

METADATA_PREFIX = "SAMPLE_METADATA_"
"""The beginning of the variables that hold a sample's metadata."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
BRACED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])(.*))?", re.DOTALL)
ESCAPE = re.compile(r"\\(?:[abcfnrtv$\"\\]|0[0-7]{0,3})")
ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}
SPACE = " \t\v\f\r\x85\xa0"

Lookup = Callable[[str], "str | None"]
"""Returns the value of a variable, or `None` if it is not set."""

_warned: set[tuple[str, str]] = set()
"""Places and unset variables that a warning was logged for."""


def metadata_variable(key: str) -> str:
    """Returns the variable that holds an entry of a sample's metadata. Inspect's Docker provider uses the same name."""
    return f"{METADATA_PREFIX}{key.replace(' ', '_').upper()}"


# ---- interpolation --------------------------------------------------------------------------------------------------


def substitute(text: str, lookup: Lookup, where: str, unset: Callable[[str], None]) -> str:
    """Fills in `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `${NAME:+other}`, each also without the colon.

    `$$` stands for a dollar sign. `unset` is called with each name that has no value and no default.

    Raises:
        ComposeError: if `${` begins another form, or a variable with `?` has no value.
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
                raise ComposeError(f"{where}: {text!r} has a ${{ that does not begin a variable. To get this text, write $${{.")
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
    """Returns the position of the brace that closes the one at `start`, or `None`."""
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
            raise ComposeError(f"{where}: the variable {name} is not set. {message}".rstrip())
    if found is None:
        unset(name)
    return found or ""


def warned(where: str) -> Callable[[str], None]:
    """Returns a function that logs a warning for an unset variable. It does so once for each place, not for each sample."""

    def unset(name: str) -> None:
        if not name.startswith(METADATA_PREFIX) and (where, name) not in _warned:
            _warned.add((where, name))
            logger.warning("%s: the variable %s is not set. An empty string is used.", where, name)

    return unset


# ---- files ----------------------------------------------------------------------------------------------------------


def read(path: Path, lookup: Lookup, *, missing_ok: bool = False, format: str | None = None) -> dict[str, str]:
    """Reads the variables in a file. Interpolation uses `lookup`, and then the earlier variables of the file.

    With `format="raw"`, values are taken as written. With `missing_ok`, a missing file has no variables.

    Raises:
        ComposeError: if the file cannot be read, or does not follow the format.
    """
    try:
        text = path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except FileNotFoundError:
        if missing_ok:
            return {}
        raise ComposeError(f"The env_file {path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ComposeError(f"The env_file {path} cannot be read: {error}") from None
    if format == "raw":
        return _raw(text, lookup, str(path))
    if format is not None:
        raise ComposeError(f"The env_file {path}: the format {format!r} is not known. The only format is `raw`.")
    return parse(text, lookup, str(path))


def _raw(text: str, lookup: Lookup, where: str) -> dict[str, str]:
    """Reads lines `NAME=VALUE`. Quotes, `$` and `#` have no meaning in values."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not name or any(character.isspace() for character in name):
            raise ComposeError(f"{where}, line {number}: {name!r} is not the name of a variable.")
        found = value if separator else lookup(name)
        if found is not None:
            values[name] = found
    return values


def parse(text: str, lookup: Lookup, where: str) -> dict[str, str]:
    """Reads the variables in text that follows the grammar of Docker Compose.

    Raises:
        ComposeError: if the text does not follow it.
    """
    values: dict[str, str] = {}
    _Parser(text, lookup, where).into(values)
    return values


class _Parser:
    """Parses one text."""

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
        """Moves to the beginning of the next statement. Returns false at the end of the text."""
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
        """Reads the name of a variable. Also returns whether no value follows, so that `lookup` gives the value."""
        if match := re.compile(r"export\s+").match(self.text, self.at):
            self.at = match.end()
        start = self.at
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in "=:\n":
                break
            if not (character in SPACE or character in "_.-[]" or character.isalnum()):
                raise self._error(f"{character!r} in the name of a variable")
            self.at += 1
        name = self.text[start : self.at].rstrip()
        inherited = self.at >= len(self.text) or self.text[self.at] == "\n"
        if not name or any(character.isspace() for character in name):
            raise self._error(f"{name!r} is not the name of a variable")
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
        raise self._error("a quoted value has no end")

    def _fill(self, text: str, values: Mapping[str, str]) -> str:
        def lookup(name: str) -> str | None:
            found = self.lookup(name)
            return found if found is not None else values.get(name)

        return substitute(text, lookup, self.where, warned(self.where))

    def _error(self, what: str) -> ComposeError:
        line = self.text.count("\n", 0, self.at) + 1
        return ComposeError(f"{self.where}, line {line}: {what}.")


def _unescape(match: re.Match[str]) -> str:
    sequence = match.group()[1:]
    if sequence == "$":
        return "$$"
    if sequence.startswith("0"):
        return chr(int(sequence, 8)) if len(sequence) == 4 and int(sequence, 8) < 256 else match.group()
    return ESCAPES.get(sequence, match.group())


def environment(directory: Path) -> dict[str, str]:
    """Returns the variables for a compose file in this directory: those of the `.env` beside it and of this process, which
    win."""
    return {**read(directory / ".env", os.environ.get, missing_ok=True), **os.environ}
