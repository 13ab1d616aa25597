"""Lets a Python process connect to this machine only, and records everything else that it tries."""

import os
import socket

_connect = socket.socket.connect
_look_up = socket.getaddrinfo


def _record(target: object) -> None:
    with open(os.environ["TRIED_TO_REACH"], "a") as file:
        file.write(f"{target}\n")


def connect(self: socket.socket, address: object) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        host = str(address[0])  # type: ignore[index]
        if not (host.startswith("127.") or host in ("::1", "localhost")):
            _record(address)
            raise OSError(f"the tests permit no connection to {address}")
    _connect(self, address)  # type: ignore[arg-type]


def getaddrinfo(host: object, *rest: object, **more: object) -> object:
    name = host.decode() if isinstance(host, bytes) else host
    if name not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"):
        _record(name)
        raise socket.gaierror(f"the tests look up no name: {name}")
    return _look_up(host, *rest, **more)  # type: ignore[arg-type]


socket.socket.connect = connect  # type: ignore[method-assign,assignment]
socket.getaddrinfo = getaddrinfo  # type: ignore[assignment]
