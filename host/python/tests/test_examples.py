"""The examples in the documentation, of the package and of its README."""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
import sandbox_host
import sandbox_host.sync

# The environment for Harbor needs Harbor, and the reader of compose files PyYAML. They have tests of their own.
LEFT_OUT = ("sandbox_host._native", "sandbox_host.harbor", "sandbox_host._harbor_services", "sandbox_host.compose")
MODULES = [
    name for _, name, _ in pkgutil.walk_packages(sandbox_host.__path__, "sandbox_host.") if not name.startswith(LEFT_OUT)
]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    for name in ["sandbox_host", *MODULES]:
        module = importlib.import_module(name)
        found += [test for test in finder.find(module, name) if test.examples]
    return found


EXAMPLES = examples()


class Runner(doctest.DocTestRunner):
    """Runs examples with `await` at their top level in an event loop of their own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(optionflags=OPTIONS, verbose=False)
        self.loop = loop


def awaited(test: doctest.DocTest, loop: asyncio.AbstractEventLoop) -> None:
    """Rewrites examples, so that `await` works as in a notebook."""

    def run(source: str, values: dict[str, Any]) -> Any:
        code = compile(source, "<example>", "single", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, values)
        return loop.run_until_complete(result) if inspect.iscoroutine(result) else result

    test.globs["__run"] = lambda source: run(source, test.globs)
    for example in test.examples:
        if "await" in example.source or "async" in example.source:
            example.source = f"__run({example.source!r})\n"


@pytest.mark.parametrize("test", EXAMPLES, ids=[test.name for test in EXAMPLES])
def test_the_example(test: doctest.DocTest) -> None:
    loop = asyncio.new_event_loop()
    with ExitStack() as stack:
        stack.callback(loop.close)
        test.globs.update({name: getattr(sandbox_host, name) for name in sandbox_host.__all__})
        if ".sync" in test.name:
            test.globs.update({name: getattr(sandbox_host.sync, name) for name in sandbox_host.sync.__all__})
            provider = stack.enter_context(sandbox_host.sync.Provider.open("modal"))
            test.globs.update(provider=provider, sandbox=stack.enter_context(provider.create()))
        else:
            opened = AsyncExitStack()
            stack.callback(lambda: loop.run_until_complete(opened.aclose()))
            test.globs.update(loop.run_until_complete(world(opened)))
        awaited(test, loop)
        said: list[str] = []
        result = Runner(loop).run(test, out=said.append, clear_globs=False)
        assert result.failed == 0 and result.attempted > 0, "".join(said)


async def world(stack: AsyncExitStack) -> dict[str, Any]:
    provider = await stack.enter_async_context(sandbox_host.Provider.open("modal"))
    return {"provider": provider, "sandbox": await stack.enter_async_context(provider.create())}


def test_there_are_examples() -> None:
    names = {test.name for test in EXAMPLES}
    assert {"sandbox_host", "sandbox_host.sync", "sandbox_host.sandbox.Sandbox.run"} <= names
    assert len(names) >= 20


def programs() -> list[tuple[str, str]]:
    """The programs of the README, and of the page on embedding, that are followed by their output."""
    package = Path(__file__).parent.parent
    found = []
    for page in (package / "README.md", package.parent.parent / "docs" / "embedding" / "python.md"):
        here = re.findall(r"```python\n((?:(?!```).)*)```\n+```text\n(.*?)```", page.read_text(), re.DOTALL)
        assert len(here) >= 2, page
        found += [(str(program), str(output)) for program, output in here]
    return found


@pytest.mark.parametrize(("program", "output"), programs())
def test_the_programs_of_the_pages(program: str, output: str) -> None:
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, output), ran.stderr
