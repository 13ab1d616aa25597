"""Reads YAML as Docker Compose does, with the types of Go's `yaml.v3`.

PyYAML reads YAML 1.1, where `22:22` is the number 1342, `on` and `NO` are booleans, and `2026-01-01` is a date. Docker Compose
reads YAML 1.2, where these are strings. From YAML 1.1 it keeps merge keys (`<<`), numbers with `_`, and octal numbers with a
leading 0 (`010` is 8, like `0o10`). A duplicate key is an error.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import yaml

NULL = {"", "~", "null", "Null", "NULL"}
BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
SPECIAL_FLOATS = {
    ".nan": "nan", ".NaN": "nan", ".NAN": "nan",
    ".inf": "inf", ".Inf": "inf", ".INF": "inf",
    "+.inf": "inf", "+.Inf": "inf", "+.INF": "inf",
    "-.inf": "-inf", "-.Inf": "-inf", "-.INF": "-inf",
}  # fmt: skip
INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|[1-9][0-9]*|0)")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")

PREFIX = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Reset:
    """`!reset`: removes the value of the extended or included file."""


@dataclass(frozen=True)
class Override:
    """`!override`: replaces the value of the extended or included file instead of merging with it."""

    value: Any


def load(text: str) -> list[Any]:
    """Returns the documents in a text.

    Raises:
        yaml.YAMLError: if the text is not YAML.
    """
    return list(yaml.load_all(text, Loader=_Loader))


def number_text(value: int | float) -> str:
    """Converts a number to text as Docker Compose does, for instance in `environment`: `1.0` to `1`, `3.10` to `3.1`."""
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    exact = Decimal(repr(value)).normalize()
    if exact.is_zero():
        return "0"
    if -4 <= exact.adjusted() < 21:
        return f"{exact:f}"
    mantissa = f"{exact.scaleb(-exact.adjusted()):f}"
    return f"{mantissa}e{exact.adjusted():+03d}"


def _kind(text: str) -> str:
    """Returns the type of a plain scalar: the end of its YAML tag."""
    if text in NULL:
        return "null"
    if text in BOOLEANS:
        return "bool"
    if text == "<<":
        return "merge"
    if text in SPECIAL_FLOATS:
        return "float"
    if text[0] in "+-.0123456789":
        plain = text.replace("_", "")
        if INTEGER.fullmatch(plain):
            return "int"
        if FLOAT.fullmatch(plain):
            return "float"
    return "str"


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with the types of this module."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            return PREFIX + _kind(value)
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(None, None, "a key must be a string", key.start_mark)
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is duplicated", key.start_mark)
                seen.add(key.value)
            self.flatten_mapping(node)
            return {key.value: self.construct_object(value, deep=True) for key, value in node.value}
        return super().construct_mapping(node, deep=deep)


def _mapping(loader: _Loader, node: Any) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


def _sequence(loader: _Loader, node: Any) -> list[Any]:
    return [loader.construct_object(child, deep=True) for child in node.value]


def _text(loader: _Loader, node: Any) -> str:
    return str(node.value)


def _integer(loader: _Loader, node: Any) -> int:
    text = node.value.replace("_", "")
    sign, digits = (-1 if text.startswith("-") else 1), text.lstrip("+-").lower()
    for prefix, base in (("0x", 16), ("0b", 2), ("0o", 8)):
        if digits.startswith(prefix):
            return sign * int(digits[2:], base)
    return sign * int(digits, 8 if len(digits) > 1 and digits.startswith("0") else 10)


def _float(loader: _Loader, node: Any) -> float:
    text = node.value
    return float(SPECIAL_FLOATS.get(text) or text.replace("_", ""))


def _boolean(loader: _Loader, node: Any) -> bool:
    if node.value not in BOOLEANS:
        raise yaml.constructor.ConstructorError(None, None, f"{node.value!r} is not a boolean", node.start_mark)
    return BOOLEANS[node.value]


def _any(loader: _Loader, node: Any) -> Any:
    """Reads a value whose tag is not known. As in Go, the tag has no effect."""
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node)
    if isinstance(node, yaml.SequenceNode):
        return _sequence(loader, node)
    return _text(loader, node)


def _reset(loader: _Loader, node: Any) -> Reset:
    return Reset()


def _override(loader: _Loader, node: Any) -> Override:
    if isinstance(node, yaml.ScalarNode):
        node.tag = PREFIX + _kind(node.value)
        return Override(loader.construct_object(node, deep=True))
    return Override(_any(loader, node))


for _tag, _constructor in {
    PREFIX + "map": _mapping,
    PREFIX + "seq": _sequence,
    PREFIX + "str": _text,
    PREFIX + "int": _integer,
    PREFIX + "float": _float,
    PREFIX + "bool": _boolean,
    PREFIX + "timestamp": _text,
    "!reset": _reset,
    "!override": _override,
    None: _any,
}.items():
    _Loader.add_constructor(_tag, _constructor)
