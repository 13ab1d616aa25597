"""How tasks define their environments."""

from collections.abc import Sequence
from pathlib import Path

COMPOSE_FILE_NAME: str

def require_agent_environment_definition(
    environment_dir: Path, *, docker_image: str | None = ..., extra_docker_compose_paths: Sequence[Path] | None = ...
) -> None: ...
def should_use_prebuilt_docker_image(environment_dir: Path, *, docker_image: str | None, force_build: bool) -> bool: ...
