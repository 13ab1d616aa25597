"""Makes `list<u8>` fast in the package `wasmtime` from PyPI: `fast_bytes.install()`, once, before the first call.

The package turns each byte into a Python object of its own, which takes about a second of CPU for a mebibyte. The C library
keeps a list as an array of structures of equal size. So the bytes of a list are every n-th byte of that array, and a
slice of Python copies them all at once. Lists of other elements are converted as before.

It replaces two methods of a class that the package does not document. `install` fails if the package does not have the
shape that it knows (tested with 50.0.1), rather than damage values.
"""

from __future__ import annotations

import ctypes
from typing import Any

from wasmtime import _ffi as ffi
from wasmtime.component import _types

# The structure of one value, and the place of the byte in it.
_VALUE = ffi.wasmtime_component_val_t
_SIZE = ctypes.sizeof(_VALUE)
_KIND = _VALUE.kind.offset
_BYTE = _VALUE.of.offset

# Elements that are copied at a time, so that a large list takes no second array of its size.
_PIECE = 64 * 1024


def _read(values: Any, count: int) -> bytes:
    """Returns the bytes of an array of values. All of them are `u8`."""
    start = ctypes.addressof(values.contents) if count else 0
    data = bytearray(count)
    for at in range(0, count, _PIECE):
        size = min(_PIECE, count - at)
        raw = ctypes.string_at(start + at * _SIZE, size * _SIZE)
        data[at : at + size] = raw[_BYTE::_SIZE]
    return bytes(data)


def _write(values: Any, data: bytes) -> None:
    """Writes bytes as an array of values, whose memory is not initialised."""
    start = ctypes.addressof(values.contents) if data else 0
    for at in range(0, len(data), _PIECE):
        piece = data[at : at + _PIECE]
        raw = bytearray(len(piece) * _SIZE)
        raw[_KIND::_SIZE] = bytes([ffi.WASMTIME_COMPONENT_U8.value]) * len(piece)
        raw[_BYTE::_SIZE] = piece
        ctypes.memmove(start + at * _SIZE, bytes(raw), len(raw))


def _fits() -> bool:
    """Returns whether values have the shape that this module knows."""
    data = bytes(range(256))
    values = (_VALUE * len(data))()
    _write(ctypes.cast(values, ctypes.POINTER(_VALUE)), data)
    return all(value.kind == ffi.WASMTIME_COMPONENT_U8.value and value.of.u8 == byte for value, byte in zip(values, data))


def install() -> None:
    """Replaces the conversion of `list<u8>` for all instances in this process. A second call does nothing.

    Raises `RuntimeError` if the package has another shape than this module knows.
    """
    list_type: Any = getattr(_types, "ListType", None)
    if getattr(list_type, "_fast_bytes", False):
        return
    known = ("convert_from_c", "convert_to_c", "_is_bytes", "element")
    if list_type is None or not all(hasattr(list_type, name) for name in known) or not _fits():
        raise RuntimeError("this version of the package wasmtime is not known: leave out fast_bytes.install()")
    slow_from, slow_to = list_type.convert_from_c, list_type.convert_to_c

    def convert_from_c(self: Any, c: Any) -> Any:
        if not self._is_bytes():
            return slow_from(self, c)
        try:
            return _read(c.of.list.data, c.of.list.size)
        finally:
            ffi.wasmtime_component_vallist_delete(ctypes.byref(c.of.list))

    def convert_to_c(self: Any, store: Any, val: Any, ptr: Any) -> None:
        if not isinstance(val, bytes) or not self._is_bytes():
            slow_to(self, store, val, ptr)
            return
        made = ffi.wasmtime_component_vallist_t()
        ffi.wasmtime_component_vallist_new_uninit(made, len(val))
        _write(made.data, val)
        ptr.contents.kind = ffi.WASMTIME_COMPONENT_LIST
        ptr.contents.of.list = made

    list_type.convert_from_c, list_type.convert_to_c = convert_from_c, convert_to_c
    list_type._fast_bytes = True
