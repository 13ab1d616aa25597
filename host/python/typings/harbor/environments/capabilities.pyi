"""What environments can do."""

class EnvironmentCapabilities:
    def __init__(
        self,
        *,
        gpus: bool = ...,
        disable_internet: bool = ...,
        network_allowlist: bool = ...,
        network_allowlist_hostnames: bool = ...,
        network_allowlist_wildcard_hostnames: bool = ...,
        network_allowlist_ipv4_addresses: bool = ...,
        network_allowlist_ipv6_addresses: bool = ...,
        network_allowlist_ipv4_cidrs: bool = ...,
        network_allowlist_ipv6_cidrs: bool = ...,
        dynamic_network_policy: bool = ...,
        mounted: bool = ...,
        docker_compose: bool = ...,
    ) -> None: ...

class EnvironmentResourceCapabilities:
    def __init__(
        self,
        *,
        cpu_limit: bool = ...,
        cpu_request: bool = ...,
        memory_limit: bool = ...,
        memory_request: bool = ...,
        fractional_cpus: bool = ...,
    ) -> None: ...
