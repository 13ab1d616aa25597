"""Ends the interpreter in unusual moments. The arguments are a component and what to do. Needs the library in LD_LIBRARY_PATH."""

import atexit
import json
import sys
import threading
from ctypes import CDLL, CFUNCTYPE, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p

COUNT = 20

library = CDLL("libsandbox_host.so")
callback = CFUNCTYPE(None, c_uint64, c_void_p)
request = (c_uint64, c_char_p, c_char_p, c_char_p, c_size_t)
for name, result, *arguments in (
    ("sandbox_host_open", c_uint64),
    ("sandbox_host_close", c_int, c_uint64),
    ("sandbox_call_start", c_uint64, *request),
    ("sandbox_call_start_callback", c_uint64, *request, callback, c_void_p),
    ("sandbox_call_run", c_uint64, *request),
    ("sandbox_call_wait", c_int, c_uint64, c_int64),
    ("sandbox_call_json", c_char_p, c_uint64, c_void_p),
    ("sandbox_call_free", c_int, c_uint64),
):
    getattr(library, name).restype, getattr(library, name).argtypes = result, arguments

host = library.sandbox_host_open()
calls = []
called = 0


def run(method, **values):
    call = library.sandbox_call_run(host, method.encode(), json.dumps(values).encode(), None, 0)
    calls.append(call)
    return json.loads(library.sandbox_call_json(call, None))


@callback
def count(call, context):
    global called
    called += 1


@callback
def fail(call, context):
    count(call, context)
    raise ValueError("an exception in a callback")


def close():
    good = library.sandbox_host_close(host)
    freed = sum(library.sandbox_call_free(call) for call in calls)
    print("closed", good, "callbacks", called, "freed", freed == len(calls))


provider = run("provider.open", component=sys.argv[1])["provider"]
sandbox = run("sandbox.create", provider=provider)["info"]["id"]
command = {"provider": provider, "sandbox": sandbox, "command": {"argv": ["sleep", "1000"]}}
endless = host, b"sandbox.run", json.dumps(command).encode(), None, 0
match sys.argv[2]:
    case "closed":
        # The calls end when the interpreter does, and their callbacks run before it is gone.
        atexit.register(close)
        calls += [library.sandbox_call_start_callback(*endless, count, None) for _ in range(COUNT)]
    case "waited-for":
        # Threads wait in the library for calls that nothing ends.
        for _ in range(COUNT):
            call = library.sandbox_call_start(*endless)
            threading.Thread(target=library.sandbox_call_wait, args=(call, -1), daemon=True).start()
        print("threads", threading.active_count() - 1)
    case "left":
        calls += [library.sandbox_call_start(*endless) for _ in range(COUNT)]
        print("calls", len(calls) - 2)
    case "raised":
        # ctypes reports the exception and returns to the library as usual.
        atexit.register(close)
        sys.unraisablehook = lambda unraisable: print("reported", unraisable.exc_type.__name__)
        call = library.sandbox_call_start_callback(host, b"version", None, None, 0, fail, None)
        library.sandbox_call_wait(call, -1)
        calls.append(call)
