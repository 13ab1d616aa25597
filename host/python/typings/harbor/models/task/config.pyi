"""Parts of `task.toml`."""

from enum import Enum

class NetworkMode(str, Enum):
    NO_NETWORK = "no-network"
    PUBLIC = "public"
    ALLOWLIST = "allowlist"

class NetworkAllowlistEntryType(str, Enum):
    HOSTNAME = "hostname"
    WILDCARD_HOSTNAME = "wildcard-hostname"
    IPV4_ADDRESS = "ipv4-address"
    IPV6_ADDRESS = "ipv6-address"
    IPV4_CIDR = "ipv4-cidr"
    IPV6_CIDR = "ipv6-cidr"

def classify_network_allowlist_entry(entry: str) -> NetworkAllowlistEntryType: ...

class NetworkPolicy:
    network_mode: NetworkMode
    allowed_hosts: list[str]

class EnvironmentConfig:
    docker_image: str | None
    gpu_types: list[str] | None
    workdir: str | None
