"""The variables of Docker Compose files."""

from typing import Literal

from harbor.models.trial.config import ServiceVolumeConfig

class ComposeInfraEnvVars:
    def __init__(
        self,
        *,
        main_image_name: str,
        context_dir: str,
        prebuilt_image_name: str | None = ...,
        cpus: float | None = ...,
        memory: str | None = ...,
    ) -> None: ...
    def to_env_dict(self, include_os_env: bool = ...) -> dict[str, str]: ...

def legacy_log_mount_env_vars(
    mounts: list[ServiceVolumeConfig], *, host_value: Literal["source", "target"]
) -> dict[str, str]: ...
