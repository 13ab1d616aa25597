"""Makes the sources in `python/sandbox_host/sync` from the asynchronous ones, by replacing words.

python make_sync.py           writes the files
python make_sync.py --check   fails if a file is not up to date
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "python" / "sandbox_host"
MODULES = ("build", "forward", "process", "provider", "sandbox")
TWINS = (*MODULES, "_io")

REPLACED = (
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait finish\((.*)\)$", r"\1"),
    (r", finish\b", ""),
    (r"\bawait ", ""),
    (r"\bPending\[(\w+), \w+\]", r"\1"),
    (r"\breturn Pending\((.*)\)$", r"return done(\1)"),
    (r"\bimport Pending\b", "import done"),
    (r"\b__a(enter|exit|iter)__\b", r"__\1__"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"`(with|for)` kills", r"A `\1` block kills"),
)


def made(source: str, name: str) -> str:
    """Returns the synchronous form of a source."""
    for pattern, by in REPLACED:
        source = re.sub(pattern, by, source, flags=re.MULTILINE)
    # Modules without a twin are those of the package above.
    source = re.sub(
        r"^(\s*)from \.(\w+) import", lambda m: m[0] if m[2] in TWINS else f"{m[1]}from ..{m[2]} import", source, flags=re.M
    )
    # `done` comes after `call`, and `Pending` before it.
    source = re.sub(
        r"^from \._io import (.*)$",
        lambda m: f"from ._io import {', '.join(sorted(m[1].split(', '), key=order))}",
        source,
        flags=re.M,
    )
    # `AsyncIterator` comes before other names, and `Iterator` does not.
    source = re.sub(
        r"^from collections\.abc import (.*)$",
        lambda m: f"from collections.abc import {', '.join(sorted(m[1].split(', ')))}",
        source,
        flags=re.M,
    )
    return f"# Made by make_sync.py from ../{name}.py.\n{sort_imports(source)}"


def order(name: str) -> tuple[bool, str]:
    """Sorts as ruff does: classes before functions."""
    return name[:1].islower(), name


def sort_imports(source: str) -> str:
    """Sorts the relative imports at the top: those of the package above come first."""
    lines = source.split("\n")
    blocks: list[list[str]] = []
    start = next(index for index, line in enumerate(lines) if re.match(r"from \.\.?\w+ import", line))
    at = start
    while lines[at].startswith("from ."):
        end = at
        if lines[at].endswith("("):
            while lines[end] != ")":
                end += 1
        blocks.append(lines[at : end + 1])
        at = end + 1
    blocks.sort(key=lambda block: (not block[0].startswith("from .."), block[0].split()[1]))
    return "\n".join(lines[:start] + [line for block in blocks for line in block] + lines[at:])


def main() -> int:
    """Writes or checks the files."""
    wrong = []
    for name in MODULES:
        text = made((FOLDER / f"{name}.py").read_text(), name)
        target = FOLDER / "sync" / f"{name}.py"
        if "--check" in sys.argv:
            if not target.is_file() or target.read_text() != text:
                wrong.append(str(target))
        else:
            target.write_text(text)
    if wrong:
        print(f"not up to date, run make_sync.py: {', '.join(wrong)}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
