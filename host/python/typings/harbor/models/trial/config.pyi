"""Parts of the configuration of a trial."""

from enum import Enum
from typing import Literal, TypedDict

class ResourceMode(str, Enum):
    AUTO = "auto"
    LIMIT = "limit"
    REQUEST = "request"
    GUARANTEE = "guarantee"
    IGNORE = "ignore"

class ServiceVolumeVolume(TypedDict, total=False):
    subpath: str

class _Mount(TypedDict):
    type: Literal["bind", "volume", "image"]
    source: str
    target: str

class ServiceVolumeConfig(_Mount, total=False):
    read_only: Literal[True]
    volume: ServiceVolumeVolume
