"""Compose documents: everything that Docker accepts and a sandbox can honour.

Inspect's own parser refuses much of what Docker takes (`version`, build arguments, integers), so documents are read here as
they are. Each key is either honoured, or known to make no difference in a sandbox, or named in a warning, or an error: none
is dropped in silence.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

import yaml

from .plan import LIFETIME_SECS, ConfigError, Healthcheck, Plan, Service, dockerfile_image, parse_gpu

logger = getLogger(__name__)

HONOURED = {
    "image", "build", "command", "entrypoint", "working_dir", "environment", "env_file", "user", "healthcheck", "ports",
    "volumes", "networks", "network_mode", "deploy", "mem_limit", "mem_reservation", "cpus", "gpus", "depends_on", "links",
    "container_name", "extra_hosts", "profiles",
}  # fmt: skip

NO_DIFFERENCE = {
    "init", "labels", "logging", "stop_grace_period", "stop_signal", "stdin_open", "tty", "pull_policy", "expose",
    "annotations", "attach", "cgroup", "oom_score_adj", "develop",
}  # fmt: skip
"""Of a service: logs, terminals, labels and the like, which a sandbox has no use for."""

WARNED = {
    "platform": "Modal has one platform, linux/amd64",
    "privileged": "commands run as root of a sandbox that is a boundary of its own",
    "cap_add": "capabilities are those of Modal's sandboxes",
    "cap_drop": "capabilities are those of Modal's sandboxes",
    "security_opt": "security is that of Modal's sandboxes",
    "ulimits": "limits are those of Modal's sandboxes",
    "pids_limit": "limits are those of Modal's sandboxes",
    "shm_size": "the size of /dev/shm is Modal's",
    "sysctls": "kernel settings are Modal's",
    "tmpfs": "the directories are ordinary ones",
    "memswap_limit": "there is no swap",
    "runtime": "the runtime is Modal's",
    "dns": "the resolver is Modal's",
    "dns_search": "the resolver is Modal's",
    "hostname": "a sandbox is named by Modal",
    "restart": "what has ended stays ended",
    "scale": "there is one container of each service",
    "blkio_config": "limits are those of Modal's sandboxes",
    "ipc": "namespaces are the sandbox's own",
    "pid": "namespaces are the sandbox's own",
    "uts": "namespaces are the sandbox's own",
    "group_add": "groups are those of the user",
    "cpu_shares": "give cpus",
    "mac_address": "there is no Ethernet",
}
"""Of a service: cannot be honoured, and the service runs all the same."""

REFUSED = {
    "read_only": "file systems of sandboxes are writable",
    "devices": "sandboxes have no devices of the host's; ask for a GPU under deploy.resources.reservations.devices",
    "secrets": "name secrets of Modal's in x-modal: {secrets: [...]}",
    "configs": "put the files into the image",
    "extends": "write the service out",
    "volumes_from": "name a volume in both services",
    "userns_mode": "user namespaces are Modal's",
}
"""Of a service: cannot be honoured, and without it the service is not what it was meant to be."""

TOP = {"services", "volumes", "networks", "version", "name"}
IDLE = (["tail"], ["sleep"])
"""Commands that only keep a container alive."""
WITHOUT_EFFECT = {"restart": ("no", False), "scale": (1,)}
"""Values that say what holds anyway."""
DEPLOY_NO_DIFFERENCE = {"labels", "update_config", "rollback_config", "placement", "mode", "endpoint_mode"}
CONDITIONS = {"service_started": "started", "service_healthy": "healthy", "service_completed_successfully": "completed"}
BUILD = {"context", "dockerfile", "dockerfile_inline", "args", "target", "no_cache", "pull", "secrets"}
BUILD_NO_DIFFERENCE = {"cache_from", "cache_to", "labels", "tags", "platforms", "network", "shm_size", "isolation"}

DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h)")
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)
VARIABLE = re.compile(r"\$(?:\$|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:?[-?+])((?:[^{}]|\$\{[^{}]*\})*))?\})")


# ---- reading --------------------------------------------------------------------------------------------------------


def read(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A compose file with its variables filled in."""
    try:
        text = path.read_text()
        document = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The compose file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is no compose file: it holds no mapping.")
    return filled(document, str(path), path.parent, metadata)


def filled(document: dict[str, Any], where: str, directory: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A document with its variables filled in: from the environment, the `.env` in its directory, and the sample's metadata
    as SAMPLE_METADATA_<KEY>."""
    from .lifecycle import metadata_variable

    variables = {**_env_file(directory / ".env", missing_ok=True), **os.environ}
    variables |= {metadata_variable(str(key)): str(value) for key, value in metadata.items()}
    return {key: interpolate(value, variables, f"{where}: {key}") for key, value in document.items()}


def interpolate(value: Any, variables: Mapping[str, str], where: str) -> Any:
    """Fills in `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `${NAME:+other}` in all values."""
    if isinstance(value, dict):
        return {key: interpolate(inner, variables, f"{where}: {key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolate(inner, variables, where) for inner in value]
    if not isinstance(value, str) or "$" not in value:
        return value

    def fill(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        name, operator, word = match.group(1) or match.group(2), match.group(3), match.group(4) or ""
        found = variables.get(name)
        if operator and operator.startswith(":") and found == "":
            found = None
        match (operator or "")[-1:]:
            case "-":
                return found if found is not None else str(interpolate(word, variables, where))
            case "+":
                return str(interpolate(word, variables, where)) if found is not None else ""
            case "?" if found is None:
                raise ConfigError(f"{where}: the variable {name} is not set. {word}".rstrip())
        if found is None and not name.startswith("SAMPLE_METADATA_"):
            logger.warning("%s: the variable %s is not set, and taken as empty.", where, name)
        return found or ""

    return VARIABLE.sub(fill, value)


def _env_file(path: Path, missing_ok: bool = False) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        if missing_ok:
            return {}
        raise ConfigError(f"The env_file {path} is not there.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The env_file {path} cannot be read: {error}") from None
    values = {}
    for line in lines:
        name, separator, value = line.strip().removeprefix("export ").partition("=")
        if name.startswith("#") or not name.strip():
            continue
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        elif separator:
            value = re.sub(r"\s+#.*$", "", value)
        values[name.strip()] = value if separator else os.environ.get(name.strip(), "")
    return values


# ---- the document ---------------------------------------------------------------------------------------------------


def plan(document: Mapping[str, Any], where: str, directory: Path) -> Plan:
    """What a document comes to; relative paths start at `directory`.

    Raises:
        ConfigError: for what cannot be honoured, with the key.
    """
    services = document.get("services")
    if not isinstance(services, Mapping) or not services:
        raise ConfigError(f"{where}: there are no services.")
    warnings: list[str] = []
    for key in document:
        if key in ("secrets", "configs", "include"):
            raise ConfigError(f"{where}: the key {key} cannot be honoured: {REFUSED.get(key, 'write it out')}.")
        if key not in TOP and not str(key).startswith("x-"):
            warnings.append(f"{where}: the key {key} is not known and makes no difference.")
    bodies = {str(name): (body or {}) for name, body in services.items()}
    for name, body in bodies.items():
        if not isinstance(body, Mapping):
            raise ConfigError(f"{where}: services.{name} is no mapping.")
    active = {one.strip() for one in os.environ.get("COMPOSE_PROFILES", "").split(",")}
    bodies = {
        name: body for name, body in bodies.items() if not body.get("profiles") or active & {"*", *map(str, body["profiles"])}
    }
    if not bodies:
        raise ConfigError(f"{where}: all services have profiles, and COMPOSE_PROFILES names none of them.")
    default = _default(bodies)
    after = {name: _after(body, f"{where}: services.{name}.depends_on", bodies) for name, body in bodies.items()}
    ordered = _order(default, after, where)
    volumes = document.get("volumes") or {}
    made = [_service(name, bodies[name], f"{where}: services.{name}", directory, volumes, warnings) for name in ordered]
    for service in made:
        service.after = after[service.name]
        for source, condition in service.after.items():
            if condition == "completed" and source == default:
                raise ConfigError(f"{where}: services.{service.name}.depends_on: {default} ends with the sandbox.")
            if condition == "healthy" and not any(other.name == source and other.healthcheck for other in made):
                raise ConfigError(f"{where}: services.{service.name}.depends_on: {source} has no healthcheck.")
        for entry in bodies[service.name].get("links") or []:
            source, _, alias = str(entry).partition(":")
            for other in made:
                if other.name == source and alias:
                    other.names.append(alias)
    _resolvable(made)
    if made[0].after and made[0].command and made[0].command[:1] not in IDLE:
        warnings.append(
            f"{where}: services.{default}.depends_on makes no difference to its command: its container is the sandbox's own, "
            "and starts first. The sample begins when all services are there and healthy."
        )

    main, at = bodies[default], f"{where}: services.{default}"
    sandbox: dict[str, Any] = {"lifetime_secs": LIFETIME_SECS, **_resources(main, at)}
    networks = {_network(bodies[name], f"{where}: services.{name}", document, warnings) for name in ordered}
    if len(networks) > 1:
        raise ConfigError(
            f"{where}: services with and without a network cannot share a sandbox: give all of them network_mode: none, or "
            "all of them internal networks, or none of them."
        )
    for name in ordered[1:]:
        if _resources(bodies[name], f"{where}: services.{name}"):
            warnings.append(f"{where}: services.{name}: resources are the sandbox's, those of {default}.")
        if bodies[name].get("ports"):
            warnings.append(f"{where}: services.{name}.ports: only ports of {default} can be reached from outside.")
    sandbox["ports"] = [[port, "tls"] for port in _ports(main.get("ports") or [], f"{at}.ports")]
    network = networks.pop()
    # With nobody else there, it is the same.
    outbound = "blocked" if network == "internal" and len(made) == 1 else network
    result = Plan(made, outbound, sandbox, warnings=warnings)
    _extensions(document, where, result)
    return result


def _default(bodies: Mapping[str, Mapping[str, Any]]) -> str:
    marked = [name for name, body in bodies.items() if body.get("x-default")]
    if marked:
        return marked[0]
    return "default" if "default" in bodies else next(iter(bodies))


def _service(
    name: str,
    body: Mapping[str, Any],
    where: str,
    directory: Path,
    volumes: Mapping[str, Any],
    warnings: list[str],
) -> Service:
    for key in body:
        if key in REFUSED and body[key]:
            raise ConfigError(f"{where}.{key} cannot be honoured: {REFUSED[key]}.")
        if key in WARNED and body[key] not in WITHOUT_EFFECT.get(key, ()):
            warnings.append(f"{where}.{key} makes no difference: {WARNED[key]}.")
        elif key not in HONOURED | NO_DIFFERENCE | set(REFUSED) | set(WARNED) and not str(key).startswith("x-"):
            warnings.append(f"{where}.{key} is not known and makes no difference.")
    deploy = body.get("deploy") or {}
    for key in deploy:
        if key == "resources" or key in DEPLOY_NO_DIFFERENCE or (key == "replicas" and deploy[key] == 1):
            continue
        warnings.append(f"{where}.deploy.{key} makes no difference: there is one container, and what has ended stays ended.")
    for key in ((deploy.get("resources") or {}).get("limits")) or {}:
        if key not in ("cpus", "memory"):
            warnings.append(f"{where}.deploy.resources.limits.{key} makes no difference: it is Modal's.")
    image = _image(body, where, directory)
    commands: list[str] = []
    if body.get("entrypoint") is not None:
        words = _words(body["entrypoint"], f"{where}.entrypoint")
        commands.append("ENTRYPOINT [" + ", ".join(_json(word) for word in words) + "]")
        # As with Docker: a new entry point without a command does without the image's.
        if body.get("command") is None:
            commands.append("CMD []")
    if commands:
        image["commands"] = commands
    check = body.get("healthcheck")
    user = body.get("user")
    words = _words(body["command"], f"{where}.command") if body.get("command") is not None else []
    if user is not None:
        user = str(user)
        # Who only keeps the container alive can be anybody.
        if body.get("entrypoint") is not None or words[:1] not in IDLE:
            warnings.append(
                f"{where}.user is whom commands, files and the health check run as; the service's own command runs as the "
                "user of its image."
            )
    return Service(
        name,
        image,
        words,
        _environment(body, where, directory),
        [],
        body.get("working_dir"),
        user,
        _volumes(body.get("volumes") or [], f"{where}.volumes", volumes),
        _healthcheck(check, f"{where}.healthcheck") if check is not None else None,
        _names(body, where, warnings),
        _hosts(body.get("extra_hosts") or {}, f"{where}.extra_hosts", warnings),
    )


def _names(body: Mapping[str, Any], where: str, warnings: list[str]) -> list[str]:
    """What Docker calls a service besides its own name."""
    found = [str(body["container_name"])] if body.get("container_name") else []
    networks = body.get("networks")
    for network, options in networks.items() if isinstance(networks, Mapping) else ():
        for key, value in (options or {}).items():
            if key == "aliases":
                found += [str(alias) for alias in value]
            else:
                warnings.append(f"{where}.networks.{network}.{key} makes no difference: the network is the sandbox's own.")
    return found


def _hosts(value: Any, where: str, warnings: list[str]) -> dict[str, str]:
    """`{NAME: ADDRESS}`, or `[NAME:ADDRESS]` and `[NAME=ADDRESS]`."""
    if isinstance(value, Mapping):
        pairs = [(str(name), one) for name, given in value.items() for one in (given if isinstance(given, list) else [given])]
    else:
        split = [re.split(r"[:=]", str(entry), maxsplit=1) for entry in value]
        pairs = [(parts[0], parts[1] if len(parts) > 1 else "") for parts in split]
    found = {}
    for name, address in pairs:
        address = str(address).strip("[]")
        if address == "host-gateway":
            warnings.append(f"{where}.{name} makes no difference: a sandbox has no host to reach.")
            continue
        try:
            found[name] = str(ipaddress.ip_address(address))
        except ValueError:
            raise ConfigError(f"{where}.{name}: {address!r} is no address.") from None
    return found


def _after(body: Mapping[str, Any], where: str, bodies: Mapping[str, Any]) -> dict[str, str]:
    """What a service depends on, with what it waits for."""
    given = body.get("depends_on") or {}
    pairs = given.items() if isinstance(given, Mapping) else [(name, {}) for name in given]
    found = {}
    for name, options in pairs:
        condition = (options or {}).get("condition", "service_started")
        if condition not in CONDITIONS:
            raise ConfigError(f"{where}.{name}.condition is one of {', '.join(CONDITIONS)}, not {condition!r}.")
        if name in bodies:
            found[str(name)] = CONDITIONS[condition]
        elif (options or {}).get("required", True):
            raise ConfigError(f"{where}: there is no service {name}.")
    return found


def _order(default: str, after: Mapping[str, Mapping[str, str]], where: str) -> list[str]:
    """The default service, whose container is the sandbox's own and always the first, and then each after what it needs."""
    ordered = [default]
    left = [name for name in after if name != default]
    while left:
        ready = [name for name in left if all(source in ordered for source in after[name])]
        if not ready:
            raise ConfigError(f"{where}: services depend on each other in a circle: {', '.join(left)}.")
        ordered.append(ready[0])
        left.remove(ready[0])
    return ordered


def _resolvable(services: list[Service]) -> None:
    """Keeps of further names what nobody else is called."""
    taken = {service.name for service in services}
    for service in services:
        service.names = [name for name in dict.fromkeys(service.names) if name not in taken]
        taken |= set(service.names)


def _image(body: Mapping[str, Any], where: str, directory: Path) -> dict[str, Any]:
    build = body.get("build")
    if build is None:
        if not body.get("image"):
            raise ConfigError(f"{where} has neither image nor build.")
        return {"source": {"registry": {"reference": str(body["image"])}}}
    if isinstance(build, str):
        build = {"context": build}
    if not isinstance(build, Mapping):
        raise ConfigError(f"{where}.build is neither a path nor a mapping.")
    for key in build:
        if key not in BUILD | BUILD_NO_DIFFERENCE and not str(key).startswith("x-"):
            raise ConfigError(f"{where}.build.{key} cannot be honoured.")
    context = directory / str(build.get("context") or ".")
    if not context.is_dir():
        raise ConfigError(f"{where}.build.context: {context} is no directory.")
    args = _mapping(build.get("args") or {}, f"{where}.build.args", inherit=True)
    target = build.get("target")
    if build.get("dockerfile_inline") is not None:
        text = str(build["dockerfile_inline"])
        source = {"text": text, "context": str(context), "build_args": sorted(args.items()), "target": target}
        image: dict[str, Any] = {"source": {"dockerfile": source}}
    else:
        image = dockerfile_image(context / str(build.get("dockerfile") or "Dockerfile"), context, args, target)
    image["force"] = bool(build.get("no_cache"))
    secrets = build.get("secrets") or []
    if not all(isinstance(secret, str) for secret in secrets):
        raise ConfigError(f"{where}.build.secrets: give names of secrets of Modal's.")
    image["secrets"] = list(secrets)
    return image


def _environment(body: Mapping[str, Any], where: str, directory: Path) -> dict[str, str]:
    values: dict[str, str] = {}
    files = body.get("env_file") or []
    for entry in [files] if isinstance(files, (str, Mapping)) else files:
        name, missing_ok = (entry, False) if isinstance(entry, str) else (entry["path"], not entry.get("required", True))
        values |= _env_file(directory / name, missing_ok)
    return values | _mapping(body.get("environment") or {}, f"{where}.environment", inherit=True)


def _mapping(value: Any, where: str, inherit: bool = False) -> dict[str, str]:
    """`{NAME: value}` or `[NAME=value]`. A name without a value is taken from the environment, as with Docker."""
    if isinstance(value, Mapping):
        pairs = [(str(name), text) for name, text in value.items()]
    elif isinstance(value, list):
        parts = [str(item).partition("=") for item in value]
        pairs = [(name, text if separator else None) for name, separator, text in parts]
    else:
        raise ConfigError(f"{where} is neither a mapping nor a list.")
    found = {}
    for name, text in pairs:
        if text is None:
            if inherit and name in os.environ:
                found[name] = os.environ[name]
            continue
        found[name] = str(text).lower() if isinstance(text, bool) else str(text)
    return found


def _words(value: Any, where: str) -> list[str]:
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise ConfigError(f"{where}: {value!r} cannot be split into words: {error}.") from None
    if isinstance(value, list):
        return [str(word) for word in value]
    raise ConfigError(f"{where} is neither a text nor a list.")


def _json(word: str) -> str:
    import json

    return json.dumps(word, ensure_ascii=False)


def _volumes(value: list[Any], where: str, named: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for entry in value:
        if isinstance(entry, str):
            parts = entry.split(":")
            source, target = (None, parts[0]) if len(parts) == 1 else (parts[0], parts[1])
            read_only = "ro" in ",".join(parts[2:]).split(",")
            sub_path = None
        else:
            source, target = entry.get("source"), entry.get("target")
            read_only, sub_path = bool(entry.get("read_only")), (entry.get("volume") or {}).get("subpath")
            if entry.get("type") == "tmpfs":
                continue
        if source is None:
            # An anonymous volume: a directory of the sandbox's own.
            continue
        if source not in named:
            raise ConfigError(
                f"{where}: {source} is a directory of this machine, which a sandbox does not see: copy it into the image, "
                "or use the sample's files."
            )
        options = named[source] or {}
        name = options.get("name") or source
        found.append(
            {
                "volume": str(name),
                "path": str(target),
                "read_only": read_only,
                "sub_path": sub_path,
                "create": not options.get("external"),
            }
        )
    return found


def _ports(value: list[Any], where: str) -> list[int]:
    found = []
    for entry in value:
        text = str(entry.get("target")) if isinstance(entry, Mapping) else str(entry).rpartition(":")[2]
        number, _, protocol = text.partition("/")
        if protocol == "udp" or not number.isdigit():
            raise ConfigError(f"{where}: {entry} cannot be honoured: give single TCP ports.")
        found.append(int(number))
    return found


def _network(body: Mapping[str, Any], where: str, document: Mapping[str, Any], warnings: list[str]) -> str:
    mode = body.get("network_mode")
    if mode == "none":
        return "blocked"
    if mode is not None and mode not in ("bridge", "default"):
        warnings.append(f"{where}.network_mode: {mode} makes no difference: the network is the sandbox's own.")
    joined = body.get("networks")
    names = list(joined) if joined else ["default"]
    known = document.get("networks") or {}
    if all(isinstance(known.get(name), Mapping) and known[name].get("internal") for name in names):
        return "internal"
    return "open"


def seconds(value: Any, where: str) -> float:
    """`90`, `1m30s`, `500ms`."""
    text = str(value).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigError(f"{where}: {value!r} is no span of time: give one such as 1m30s.")
    return float(sum(float(number) * SECONDS[unit] for number, unit in parts))


def _healthcheck(body: Mapping[str, Any], where: str) -> Healthcheck | None:
    test = body.get("test")
    if body.get("disable") or test is None or test == ["NONE"]:
        return None
    if isinstance(test, str):
        argv = ["/bin/sh", "-c", test]
    elif isinstance(test, list) and test and test[0] == "CMD-SHELL":
        argv = ["/bin/sh", "-c", " ".join(str(word) for word in test[1:])]
    elif isinstance(test, list) and test and test[0] == "CMD":
        argv = [str(word) for word in test[1:]]
    else:
        raise ConfigError(f"{where}.test begins with CMD, CMD-SHELL or NONE.")
    read: Callable[[str, float], float] = lambda key, default: (  # noqa: E731
        seconds(body[key], f"{where}.{key}") if body.get(key) is not None else default
    )
    return Healthcheck(
        argv,
        read("interval", 30.0),
        read("timeout", 30.0),
        read("start_period", 0.0),
        read("start_interval", 5.0),
        max(int(body.get("retries") or 3), 1),
    )


def mebibytes(value: Any, where: str) -> int:
    """`512m`, `2g`, or bytes as with Docker; at least 1."""
    match = SIZE.fullmatch(str(value))
    if not match:
        raise ConfigError(f"{where}: {value!r} is no amount of memory: give one such as 512m or 2g.")
    shift = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match.group(2).lower()]
    return max(math.ceil(float(match.group(1)) * (1 << shift) / (1 << 20)), 1)


def millicores(value: Any, where: str) -> int:
    """Processors as a number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < 1e6:
        raise ConfigError(f"{where}: {value!r} is no number of processors.")
    return max(round(number * 1000), 1)


def _resources(body: Mapping[str, Any], where: str) -> dict[str, Any]:
    resources = ((body.get("deploy") or {}).get("resources")) or {}
    limits, reservations = resources.get("limits") or {}, resources.get("reservations") or {}
    found: dict[str, Any] = {}

    def take(field: str, read: Callable[[Any, str], int], *places: tuple[Mapping[str, Any], str, str]) -> None:
        for mapping, key, path in places:
            if mapping.get(key) is not None:
                found[field] = read(mapping[key], f"{where}.{path}{key}")
                return

    at_limits, at_reservations = "deploy.resources.limits.", "deploy.resources.reservations."
    take("memory_limit_mib", mebibytes, (limits, "memory", at_limits), (body, "mem_limit", ""))
    take("memory_request_mib", mebibytes, (reservations, "memory", at_reservations), (body, "mem_reservation", ""))
    take("cpu_limit_millicores", millicores, (limits, "cpus", at_limits), (body, "cpus", ""))
    take("cpu_request_millicores", millicores, (reservations, "cpus", at_reservations))
    devices = list(reservations.get("devices") or [])
    gpus = body.get("gpus")
    if gpus == "all":
        devices.append({"count": 1, "capabilities": ["gpu"]})
    elif isinstance(gpus, list):
        devices += [{**device, "capabilities": ["gpu"]} for device in gpus]
    for device in devices:
        if "gpu" not in (device.get("capabilities") or []) and device.get("driver") != "nvidia":
            raise ConfigError(f"{where}.deploy.resources.reservations.devices: only GPUs can be had.")
        ids, count = device.get("device_ids"), device.get("count")
        model = str((device.get("options") or {}).get("model", "ANY"))
        number = len(ids) if ids else 1 if count in (None, "all") else int(count)
        found["gpu"] = parse_gpu(f"{model}:{number}")
    return found


# ---- extensions -----------------------------------------------------------------------------------------------------


def _extensions(document: Mapping[str, Any], where: str, result: Plan) -> None:
    """`x-modal` and `x-inspect_modal_sandbox`, which the two older plugins brought up; the former wins."""
    main = result.services[0]
    options: dict[str, Any] = {}
    for key in ("x-inspect_modal_sandbox", "x-modal"):
        body = document.get(key) or {}
        if not isinstance(body, Mapping):
            raise ConfigError(f"{where}: {key} is no mapping.")
        for name, value in body.items():
            at = f"{where}: {key}.{name}"
            match name:
                case "block_network":
                    result.outbound = "blocked" if value else "open"
                case "cidr_allowlist" | "outbound_cidr_allowlist":
                    _allowed(result)["cidrs"] = [str(one) for one in value]
                case "outbound_domain_allowlist":
                    _allowed(result)["domains"] = [str(one) for one in value]
                case "inbound_cidr_allowlist":
                    result.sandbox["inbound_cidrs"] = [str(one) for one in value]
                case "timeout":
                    result.sandbox["lifetime_secs"] = int(value)
                case "idle_timeout":
                    result.sandbox["idle_timeout_secs"] = int(value)
                case "cloud" | "custom_domain" | "verbose":
                    options[name] = value
                case "region":
                    result.sandbox["regions"] = [value] if isinstance(value, str) else list(value)
                case "gpu":
                    result.sandbox["gpu"] = parse_gpu(str(value))
                case "pty":
                    result.sandbox["pty"] = bool(value)
                case "encrypted_ports" | "h2_ports" | "unencrypted_ports":
                    form = {"encrypted_ports": "tls", "h2_ports": "h2", "unencrypted_ports": "tcp"}[name]
                    result.sandbox["ports"] += [[int(port), form] for port in value]
                case "secrets":
                    main.secrets = [value] if isinstance(value, str) else [str(one) for one in value]
                case "registry_secret":
                    for service in result.services:
                        for source in service.image["source"].values():
                            source["login_secret"] = str(value)
                case "app_name":
                    result.app = str(value)
                case "environment":
                    result.environment = str(value)
                case "tags":
                    result.tags |= _mapping(value, at)
                case "options":
                    options |= dict(value)
                case _:
                    raise ConfigError(f"{at} is not known.")
    if options:
        result.sandbox["options"] = list(options.items())


def _allowed(result: Plan) -> dict[str, Any]:
    if not isinstance(result.outbound, dict):
        result.outbound = {"allowed": {"cidrs": [], "domains": []}}
    allowed: dict[str, Any] = result.outbound["allowed"]
    return allowed
