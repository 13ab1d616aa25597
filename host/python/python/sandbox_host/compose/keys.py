"""What becomes of each key of a service: it takes effect, has no meaning in a sandbox, gives a warning, or is an error."""

from __future__ import annotations

from collections.abc import Sequence

SUPPORTED = {
    "image", "build", "command", "entrypoint", "working_dir", "environment", "env_file", "user", "healthcheck", "ports",
    "volumes", "networks", "network_mode", "deploy", "mem_limit", "mem_reservation", "cpus", "gpus", "depends_on", "links",
    "container_name", "extra_hosts", "profiles",
}  # fmt: skip

WITHOUT_MEANING = {
    "init", "labels", "logging", "stop_grace_period", "stop_signal", "stdin_open", "tty", "pull_policy", "expose",
    "annotations", "attach", "cgroup", "oom_score_adj", "develop",
}  # fmt: skip
"""Keys for logs, terminals, labels and the like, for which a sandbox has no use."""

WARNED = {
    "platform": "Modal has one platform, linux/amd64",
    "privileged": "commands run as root, and the sandbox itself is the boundary",
    "cap_add": "capabilities are those of Modal's sandboxes",
    "cap_drop": "capabilities are those of Modal's sandboxes",
    "security_opt": "security options are those of Modal's sandboxes",
    "ulimits": "limits are those of Modal's sandboxes",
    "pids_limit": "limits are those of Modal's sandboxes",
    "shm_size": "Modal sets the size of /dev/shm",
    "sysctls": "Modal sets the kernel parameters",
    "tmpfs": "the directories are ordinary ones",
    "memswap_limit": "there is no swap",
    "mem_swappiness": "there is no swap",
    "oom_kill_disable": "limits are those of Modal's sandboxes",
    "runtime": "Modal chooses the runtime",
    "dns": "Modal chooses the resolver",
    "dns_opt": "Modal chooses the resolver",
    "dns_search": "Modal chooses the resolver",
    "hostname": "Modal names the sandbox",
    "domainname": "Modal names the sandbox",
    "restart": "a service that has ended is not started again",
    "scale": "each service has one container",
    "blkio_config": "limits are those of Modal's sandboxes",
    "ipc": "the sandbox has its own namespaces",
    "pid": "the sandbox has its own namespaces",
    "uts": "the sandbox has its own namespaces",
    "group_add": "groups are those of the user",
    "cpu_count": "use cpus",
    "cpu_percent": "use cpus",
    "cpu_period": "use cpus",
    "cpu_quota": "use cpus",
    "cpu_shares": "use cpus",
    "cpuset": "use cpus",
    "cgroup_parent": "Modal manages the control groups",
    "external_links": "a sandbox does not contain the containers of other projects",
    "mac_address": "there is no Ethernet",
}
"""Keys that have no effect, with the reason. The service runs without them."""

REFUSED = {
    "read_only": "file systems of sandboxes are writable",
    "devices": "a sandbox has no devices of the host; ask for a GPU under deploy.resources.reservations.devices",
    "device_cgroup_rules": "a sandbox has no devices of the host",
    "secrets": "name Modal secrets in x-modal: {secrets: [...]}",
    "configs": "put the files into the image, or mount them with `:ro`",
    "volumes_from": "name a volume in both services",
    "userns_mode": "Modal chooses the user namespace",
    "provider": "the plugin cannot run the program",
}
"""Keys that are errors, with the reason. Without them the service would be a different one."""

DOCUMENT = {"services", "volumes", "networks", "version", "name", "secrets", "configs", "models"}
"""Keys at the top of a document."""

WITHOUT_EFFECT = {"restart": ("no",), "scale": ("1",), "platform": ("linux/amd64", "linux")}
"""Values of `WARNED` keys that describe a sandbox correctly, so there is nothing to warn of."""

DEPLOY_WITHOUT_MEANING = {"labels", "update_config", "rollback_config", "placement", "mode", "endpoint_mode"}

BUILD = {"context", "dockerfile", "dockerfile_inline", "args", "target", "no_cache", "pull", "secrets"}

BUILD_WITHOUT_MEANING = {
    "cache_from", "cache_to", "labels", "tags", "platforms", "network", "shm_size", "isolation", "provenance", "sbom",
    "no_cache_filter",
}  # fmt: skip

HEALTHCHECK = {"test", "interval", "timeout", "start_period", "start_interval", "retries", "disable"}

DEPENDENCY = {"condition", "required", "restart"}
"""Keys of a service under `depends_on`."""

NETWORK_WITHOUT_MEANING = {"priority", "gw_priority", "driver_opts", "interface_name"}

IDLE_PROGRAMS = {"tail", "sleep"}
"""Programs that only keep a container alive."""


def is_idle(command: Sequence[str]) -> bool:
    """Returns whether a command only keeps a container alive."""
    return bool(command) and (command[0] in IDLE_PROGRAMS or list(command) == ["sh", "-c", "sleep infinity"])
