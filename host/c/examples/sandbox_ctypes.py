"""The same in Python with ctypes: an event loop watches the descriptor of the library, so a call needs no thread."""

import asyncio
import atexit
import json
import sys
from ctypes import CDLL, POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p, string_at

library = CDLL("libsandbox_host.so")
for name, result, *arguments in (
    ("sandbox_host_open", c_uint64),
    ("sandbox_host_close", c_int, c_uint64),
    ("sandbox_host_descriptor", c_int, c_uint64),
    ("sandbox_host_next", c_uint64, c_uint64, c_int64),
    ("sandbox_call_start_queued", c_uint64, c_uint64, c_char_p, c_char_p, c_char_p, c_size_t, c_void_p),
    ("sandbox_call_status", c_int, c_uint64),
    ("sandbox_call_json", c_char_p, c_uint64, c_void_p),
    ("sandbox_call_part", c_void_p, c_uint64, c_size_t, POINTER(c_size_t)),
    ("sandbox_call_free", c_int, c_uint64),
):
    getattr(library, name).restype, getattr(library, name).argtypes = result, arguments
host = library.sandbox_host_open()
atexit.register(library.sandbox_host_close, host)
start_call, waiting = library.sandbox_call_start_queued, {}


async def call(method, data=b"", **values):
    started = start_call(host, method.encode(), json.dumps(values).encode(), data, len(data), None)
    waiting[started] = asyncio.get_running_loop().create_future()
    try:
        await waiting[started]
        if library.sandbox_call_status(started) != 1:
            raise RuntimeError(library.sandbox_call_json(started, None).decode())
        part = library.sandbox_call_part(started, 0, size := c_size_t())
        return json.loads(library.sandbox_call_json(started, None)), string_at(part, size.value) if part else b""
    finally:
        library.sandbox_call_free(started)  # also cancels the call, if this task was cancelled
        del waiting[started]


async def main():
    def completed():
        while done := library.sandbox_host_next(host, 0):
            waiting[done].done() or waiting[done].set_result(None)

    asyncio.get_running_loop().add_reader(library.sandbox_host_descriptor(host), completed)
    at = {"provider": (await call("provider.open", component=sys.argv[1]))[0]["provider"]}
    at["sandbox"] = (await call("sandbox.create", spec={"image": "debian"}, **at))[0]["info"]["id"]
    line = "for i in 1 2 3; do echo line $i; sleep 0.1; done; exit 7"
    process = (await call("process.start", command={"shell": line}, **at))[0]["process"]
    while not (piece := await call("process.read", process=process, stream="stdout"))[0]["end"]:
        print(piece[1].decode(), end="", flush=True)
    print("exit code", (await call("process.wait", process=process))[0]["exited"])
    await call("file.write", b"hello from Python\n", path="/srv/hello", **at)
    print((await call("file.read", path="/srv/hello", **at))[1].decode(), end="")
    await call("sandbox.terminate", **at)
    print("terminated")


asyncio.run(main())
