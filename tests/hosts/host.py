"""Runs a provider component in a stock host: the unmodified `wasmtime` package from PyPI.

    python host.py COMPONENT IMAGE     # with the variables that `sandbox-host gateway` prints, or DOCKER_HOST

IMAGE is the reference of an image in a registry. This host speaks only HTTP/1.1 and cannot add credentials, so the provider
for Modal connects through `sandbox-host gateway`. The provider for Docker needs none. The checks cover the life of a sandbox,
and that calls without the token of the gateway are refused.
"""

from __future__ import annotations

import os
import sys
import uuid
from typing import Any

import fast_bytes
from wasmtime import Config, Engine, Store, WasiConfig
from wasmtime.component import Component, Linker, Record, Variant

PACKAGE = "harness:sandbox"
VERSION = "0.2.0"
# The interfaces whose functions this host calls.
INTERFACES = ("sandbox-provider", "exec", "images")
VARIABLES = ("MODAL_SERVER_URL", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_GRPC_WIRE", "DOCKER_HOST")


def record(**fields: Any) -> Record:
    """Returns a record with these fields. `_` in a field name stands for `-`."""
    made = Record()
    for name, value in fields.items():
        setattr(made, name.replace("_", "-"), value)
    return made


def field(value: Any, name: str) -> Any:
    """Returns a field of a record by its name in the interface."""
    return getattr(value, name)


class Refused(Exception):
    """An error that a function of the interface returned."""

    def __init__(self, error: Any) -> None:
        super().__init__(field(error, "message"))
        self.kind: str = field(error, "kind").tag


class Provider:
    """An instance of the component, with one method that calls any function of the interface."""

    def __init__(self, path: str, env: dict[str, str]) -> None:
        config = Config()
        engine = Engine(config)
        linker = Linker(engine)
        linker.add_wasip2()
        linker.add_wasi_http()
        self.store = Store(engine)
        wasi = WasiConfig()
        wasi.env = list(env.items())
        wasi.inherit_stderr()
        self.store.set_wasi(wasi)
        self.store.set_wasi_http()
        self.instance = linker.instantiate(self.store, Component.from_file(engine, path))
        indices = [self.instance.get_export_index(self.store, f"{PACKAGE}/{name}@{VERSION}") for name in INTERFACES]
        self.interfaces = [index for index in indices if index is not None]

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls a function and returns its result. Raises `Refused` if it returns an error."""
        found = (self.instance.get_export_index(self.store, name, interface) for interface in self.interfaces)
        index = next((index for index in found if index is not None), None)
        assert index is not None, f"the component does not export {name}"
        function = self.instance.get_func(self.store, index)
        assert function is not None
        result = function(self.store, *arguments)
        function.post_return(self.store)
        if isinstance(result, Variant) and result.tag == "err":
            raise Refused(result.payload)
        # If the two sides of a result have different classes in Python, wasmtime returns the value without its case.
        if hasattr(result, "happened"):
            raise Refused(result)
        return result.payload if isinstance(result, Variant) and result.tag == "ok" else result


def image(reference: str) -> Record:
    return record(
        source=Variant("registry", record(reference=reference, login=None)),
        commands=[],
        secrets=[],
        force=False,
        builder_version=None,
        gpu=None,
        platform=None,
        extra=[],
    )


def sandbox(of: Record) -> Record:
    nothing = record(
        cpu_request_millicores=None,
        cpu_limit_millicores=None,
        memory_request_mib=None,
        memory_limit_mib=None,
        disk_mib=None,
        gpu=None,
    )
    return record(
        image=of,
        entry_point=Variant("keep-alive"),
        user=None,
        env=[("GREETING", "hello")],
        secrets=[],
        workdir=None,
        resources=nothing,
        lifetime=600_000,
        idle_timeout=None,
        regions=[],
        network=record(outbound=Variant("open"), inbound_cidrs=[]),
        ports=[],
        volumes=[],
        buckets=[],
        name=None,
        tags=[("from", "python")],
        readiness=None,
        sidecars=[],
        pty=None,
        proxy=None,
        key=str(uuid.uuid4()),
        options=[],
        extra=[],
    )


def command(*argv: str) -> Record:
    return record(
        id=str(uuid.uuid4()),
        argv=list(argv),
        env=[],
        secrets=[],
        cwd=None,
        user=None,
        timeout=30_000,
        pty=None,
        stdout="keep",
        stderr="keep",
        merge_stderr=False,
        container=None,
        extra=[],
    )


def main() -> None:
    path, reference = sys.argv[1:]
    env = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    passed = 0

    def check(what: str, holds: bool) -> None:
        nonlocal passed
        assert holds, what
        print(f"ok  {what}")
        passed += 1

    # Without this, a mebibyte of output takes about a second of CPU.
    fast_bytes.install()

    if "MODAL_TOKEN_ID" in env:
        # Calls without the token of the gateway are refused.
        other = Provider(path, {**env, "MODAL_TOKEN_ID": "ak-guess", "MODAL_TOKEN_SECRET": "as-guess"})
        try:
            other.call("check")
            check("a wrong gateway token is refused", False)
        except Refused as error:
            if error.kind != "unauthenticated":
                raise
            check("a wrong gateway token is refused", True)

    provider = Provider(path, env)
    check("describe", bool(field(provider.call("describe"), "name")))

    progress = provider.call("start-build", image(reference))
    while field(progress, "image") is None:
        progress = provider.call("read-build", field(progress, "cursor"), 65536, 10_000)
    built = field(field(progress, "image"), "id")
    check("an image", len(built) > 3)

    made = provider.call("create", sandbox(record(**{**vars(image(reference)), "source": Variant("id", built)})))
    name = field(made, "id")
    check("a sandbox", len(name) > 3)

    limits = record(stdout_max=1 << 20, stderr_max=1 << 20, keep="head")
    script = command("sh", "-c", 'printf "%s %s" "$GREETING" "$(cat)"; echo err >&2; exit 7')
    result = provider.call("run", name, script, b"from stdin", limits)
    check("the exit code", field(result, "verdict") == Variant("exited", 7))
    check("standard output", field(field(result, "stdout"), "data") == b"hello from stdin")
    check("standard error", field(field(result, "stderr"), "data") == b"err\n")

    # wasmtime limits a result to 128 MiB of values, and a byte of a list is a value of 48 bytes. So more than two mebibytes
    # are read one after another with `read-output`.
    sent = os.urandom(1_000_000)
    result = provider.call("run", name, command("cat"), sent, limits)
    check("a million bytes", field(field(result, "stdout"), "data") == sent)

    provider.call("terminate", name)
    check("the end", provider.call("wait", name, 30_000) == Variant("terminated"))
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main()
