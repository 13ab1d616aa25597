"""The structure of the package."""

from __future__ import annotations

import ast
from pathlib import Path

import inspect_modal_sandbox

ROOT = Path(inspect_modal_sandbox.__file__).parent


def modules() -> dict[str, Path]:
    """Returns the files of the package by module name. Packages have the name of their directory."""
    files = {file: file.relative_to(ROOT.parent).with_suffix("").parts for file in ROOT.rglob("*.py")}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): file for file, parts in files.items()}


def imported(name: str, file: Path, known: set[str]) -> set[str]:
    """Returns the modules of the package that a module imports, also inside of functions."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            found.add(inner if inner in known else base)
    return found & known - {name}


def test_no_module_imports_itself_through_others() -> None:
    files = modules()
    imports = {name: imported(name, file, set(files)) for name, file in files.items()}
    assert f"{ROOT.name}.lifecycle.create" in imports[f"{ROOT.name}.environment"], "imports inside of functions count"
    left = dict(imports)
    # Removes modules whose imports are all removed. What remains is in a circle, or imports one.
    while ready := [name for name, needs in left.items() if not needs & set(left)]:
        for name in ready:
            del left[name]
    assert not left


def test_every_module_says_what_it_is_for() -> None:
    without = [name for name, file in modules().items() if not ast.get_docstring(ast.parse(file.read_text()))]
    assert without == []
