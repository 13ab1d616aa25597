"""What importing and opening the plugin loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import sys, time
import inspect_ai.util, inspect_ai._util.error
before, begun = set(sys.modules), time.process_time()
import inspect_modal_sandbox._registry
print(time.process_time() - begun)
print(*sorted(set(sys.modules) - before))
maps = open("/proc/self/maps").read()
print("-provider.wasm" in maps or "sandbox_host" in maps)
"""


def test_importing_the_entry_point_loads_nothing_but_the_classes() -> None:
    """Every `inspect` command imports the entry point, so it must load neither the host library nor other packages."""
    seconds = []
    for _ in range(3):
        ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
        took, modules, mapped = ran.stdout.splitlines()
        seconds.append(float(took))
    package = "inspect_modal_sandbox"
    names = (package, f"{package}._registry", f"{package}.environment", f"{package}.kinds")
    assert modules.split() == sorted(names)
    assert mapped == "False"
    # The processor time of the best attempt, because other work of the machine disturbs it.
    assert min(seconds) < 0.02


OPEN = """
import asyncio, sys
from inspect_modal_sandbox.provider import component
from sandbox_host import Provider, SandboxError
if sys.argv[1:]:
    sys.executable = sys.argv[1]
env = {"MODAL_SERVER_URL": "http://127.0.0.1:1", "MODAL_TOKEN_ID": "ak-1", "MODAL_TOKEN_SECRET": "as-1"}
async def open():
    return await Provider.open(component(), env=env, owner="owner", lease=600)
try:
    asyncio.run(open())
    print("opened")
except SandboxError as error:
    print(error.message)
"""


def test_the_component_is_compiled_in_a_process_of_its_own(tmp_path: Path) -> None:
    """A component may be untrusted, so another process compiles it, with limits of memory and time."""

    def opened(cache: str, *interpreter: str) -> str:
        env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / cache)}
        command = [sys.executable, "-c", OPEN, *interpreter]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.strip()

    assert opened("one") == "opened"
    assert "compiling it failed" in opened("two", "/bin/false")
    # The compiled code is cached, so no process is needed.
    assert opened("one", "/bin/false") == "opened"
