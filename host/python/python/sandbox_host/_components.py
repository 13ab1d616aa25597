"""The components that are parts of this package."""

from __future__ import annotations

import os
from pathlib import Path


def components() -> dict[str, Path]:
    """Returns the bundled components by their names."""
    suffix = "-provider.wasm"
    return {path.name[: -len(suffix)]: path for path in sorted(Path(__file__).parent.glob(f"*{suffix}"))}


def find_component(component: str | os.PathLike[str]) -> Path:
    """Returns the file of a component: of a bundled one by its name, or any other by its path.

    Raises `ValueError` for a name that is neither.
    """
    if isinstance(component, str) and os.sep not in component and not component.endswith(".wasm"):
        bundled = components()
        found = bundled.get(component)
        if found is None:
            names = ", ".join(bundled) or "none"
            raise ValueError(f"there is no provider `{component}`; bundled are: {names}. A path ends in `.wasm`.")
        return found
    return Path(os.path.abspath(os.path.expanduser(os.fspath(component))))
