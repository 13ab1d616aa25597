"""What loading the plugin costs those who do not use it."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import inspect_ai.util, inspect_ai._util.error
before = set(sys.modules)
import inspect_modal_sandbox._registry
print(*sorted(set(sys.modules) - before))
print("modal-provider" in open("/proc/self/maps").read())
"""


def test_importing_the_entry_point_loads_nothing_but_the_class() -> None:
    """Inspect imports it with every command: neither the native module, nor the component, nor any other package."""
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    modules, mapped = ran.stdout.splitlines()
    names = ("inspect_modal_sandbox", "inspect_modal_sandbox._registry", "inspect_modal_sandbox.environment")
    assert modules.split() == sorted(names)
    assert mapped == "False"
