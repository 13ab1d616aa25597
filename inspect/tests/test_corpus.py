"""The compose files in `corpus/compose`. Each states the plan, or the error, that it leads to.

Under `x-expect`, a file gives attributes of its services and of the plan. `dockerfile` of a service is the text that is built.
`warnings` has a part of each warning, and there must be no others. A file that is refused has a part of the error under
`x-expect-refused`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from inspect_modal_sandbox import plan, planning
from sandbox_host.compose import goyaml

CORPUS = Path(__file__).parent / "corpus" / "compose"
FILES = sorted(CORPUS.glob("*.yaml"))


def expected(path: Path) -> dict[str, Any]:
    """Returns the expectations in a file. If Docker Compose does not accept it as YAML, PyYAML reads it."""
    text = path.read_text("utf-8-sig")
    try:
        documents = goyaml.load(text)
    except yaml.YAMLError:
        documents = [yaml.safe_load(text)]
    return {key: value for document in documents for key, value in document.items() if key.startswith("x-expect")}


def found(value: object) -> Any:
    """Converts a value to the types of JSON."""
    return json.loads(json.dumps(value, default=vars))


def test_the_corpus_is_complete() -> None:
    assert len(FILES) > 60


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_compose_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOT_SET", "ALSO_NOT", "DATA_DIRECTORY", "FROM_DOT_ENV", "POSTGRES", "COMPOSE_PROFILES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TAG", "trixie")
    monkeypatch.setenv("EMPTY", "")
    says = expected(path)
    if "x-expect-refused" in says:
        with pytest.raises(plan.ConfigError) as refused:
            planning.make(str(path), CORPUS, {})
        assert says["x-expect-refused"] in str(refused.value)
        return
    expect = says["x-expect"]
    made = planning.make(str(path), CORPUS, {})
    services = {service.name: service for service in made.services}
    assert set(expect.get("services", {"default": {}})) == set(services)
    for name, attributes in expect.get("services", {}).items():
        for attribute, value in attributes.items():
            service = services[name]
            actual = service.image["source"]["dockerfile"]["text"] if attribute == "dockerfile" else getattr(service, attribute)
            assert found(actual) == value, f"{name}.{attribute}"
    for key, value in expect.get("sandbox", {}).items():
        assert found(made.sandbox[key]) == value, key
    if "outbound" in expect:
        assert made.outbound == expect["outbound"]
    warnings = list(made.warnings)
    for piece in expect.get("warnings", []):
        of_piece = [warning for warning in warnings if piece in warning]
        assert of_piece, (piece, warnings)
        warnings.remove(of_piece[0])
    assert warnings == []
