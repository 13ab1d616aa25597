"""Compose documents: everything that Docker accepts and a sandbox can honour.

Inspect's own parser refuses much of what Docker takes (`version`, build arguments, integers) and reads YAML 1.1, so files are
read here (`document`). Each key is either honoured, or known to make no difference in a sandbox, or named in a warning, or an
error: none is dropped in silence.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from . import binds, envfile, healthcheck
from .document import Document, canonical, complete, pairs, read, text
from .plan import LIFETIME_SECS, ConfigError, Healthcheck, Plan, Service, dockerfile_image, parse_gpu

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
    "mem_swappiness": "there is no swap",
    "oom_kill_disable": "limits are those of Modal's sandboxes",
    "runtime": "the runtime is Modal's",
    "dns": "the resolver is Modal's",
    "dns_opt": "the resolver is Modal's",
    "dns_search": "the resolver is Modal's",
    "hostname": "a sandbox is named by Modal",
    "domainname": "a sandbox is named by Modal",
    "restart": "what has ended stays ended",
    "scale": "there is one container of each service",
    "blkio_config": "limits are those of Modal's sandboxes",
    "ipc": "namespaces are the sandbox's own",
    "pid": "namespaces are the sandbox's own",
    "uts": "namespaces are the sandbox's own",
    "group_add": "groups are those of the user",
    "cpu_count": "give cpus",
    "cpu_percent": "give cpus",
    "cpu_period": "give cpus",
    "cpu_quota": "give cpus",
    "cpu_shares": "give cpus",
    "cpuset": "give cpus",
    "cgroup_parent": "control groups are Modal's",
    "external_links": "containers of other projects are not there",
    "mac_address": "there is no Ethernet",
}
"""Of a service: cannot be honoured, and the service runs all the same."""

REFUSED = {
    "read_only": "file systems of sandboxes are writable",
    "devices": "sandboxes have no devices of the host's; ask for a GPU under deploy.resources.reservations.devices",
    "device_cgroup_rules": "sandboxes have no devices of the host's",
    "secrets": "name secrets of Modal's in x-modal: {secrets: [...]}",
    "configs": "put the files into the image, or mount them with `:ro`",
    "volumes_from": "name a volume in both services",
    "userns_mode": "user namespaces are Modal's",
    "provider": "there is no program to ask",
}
"""Of a service: cannot be honoured, and without it the service is not what it was meant to be."""

TOP = {"services", "volumes", "networks", "version", "name", "secrets", "configs", "models"}
IDLE = (["tail"], ["sleep"])
"""Commands that only keep a container alive."""
WITHOUT_EFFECT = {"restart": ("no",), "scale": ("1",), "platform": ("linux/amd64", "linux")}
"""Values that say what holds anyway."""
DEPLOY_NO_DIFFERENCE = {"labels", "update_config", "rollback_config", "placement", "mode", "endpoint_mode"}
CONDITIONS = {"service_started": "started", "service_healthy": "healthy", "service_completed_successfully": "completed"}
BUILD = {"context", "dockerfile", "dockerfile_inline", "args", "target", "no_cache", "pull", "secrets"}
BUILD_NO_DIFFERENCE = {
    "cache_from", "cache_to", "labels", "tags", "platforms", "network", "shm_size", "isolation", "provenance", "sbom",
    "no_cache_filter",
}  # fmt: skip
NETWORK_NO_DIFFERENCE = {"priority", "gw_priority", "driver_opts", "interface_name"}
BRIDGE = "(bridge)"
"""The network of `network_mode: bridge`."""
HOST = "(host)"
"""The network of `network_mode: host`, which reaches every other."""

MOST_PORTS = 32
"""Ports of one service that are opened: of a longer list or range the others are named in a warning."""

SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)

GPUS = {
    "T4", "L4", "A10", "A10G", "A100", "A100-40GB", "A100-80GB", "L40S", "H100", "H100!", "H200", "B200", "B200+",
    "RTX-PRO-6000",
}  # fmt: skip
"""The types of GPU that Modal's documentation names."""


def of_file(path: Path, metadata: Mapping[str, Any]) -> Plan:
    """The plan for a compose file.

    Raises:
        ConfigError: for what cannot be read or honoured.
    """
    return of_document(read(path, metadata))


def of_object(body: dict[str, Any], directory: Path, metadata: Mapping[str, Any]) -> Plan:
    """The plan for a document that is no file; relative paths start at `directory`.

    Raises:
        ConfigError: for what cannot be honoured.
    """
    return of_document(complete(body, "the ComposeConfig", directory, metadata))


def of_document(document: Document) -> Plan:
    """The plan for a document that is complete."""
    try:
        return plan(document.body, document.where, document.directory, document.variables)
    except Refusal as refusal:
        names = [
            name
            for place, names in document.unset.items()
            if place == refusal.at or place.startswith(refusal.at + ".") or refusal.at.startswith(place + ".")
            for name in names
        ]
        if not names:
            raise
        several = f"the variables {', '.join(names)} are" if len(names) > 1 else f"the variable {names[0]} is"
        raise ConfigError(f"{refusal} (In its place {several} not set.)") from None


class Refusal(ConfigError):
    """What cannot be honoured, with the place of its key."""

    def __init__(self, at: str, why: str) -> None:
        super().__init__(at + why)
        # One argument, as any error has that is shown by its text.
        self.args = (at + why,)
        self.at = at


def refuse(at: str, why: str) -> NoReturn:
    """Refuses what stands at a place; `why` goes on where the place ends."""
    raise Refusal(at, why)


# ---- the document ---------------------------------------------------------------------------------------------------


def plan(document: Mapping[str, Any], where: str, directory: Path, variables: Mapping[str, str] | None = None) -> Plan:
    """What a document comes to, whose variables are filled in; relative paths start at `directory`. `variables` are what
    names without a value, and the files of variables, take theirs from.

    Raises:
        ConfigError: for what cannot be honoured, with the key.
    """
    variables = os.environ if variables is None else variables
    services = document.get("services")
    if not isinstance(services, Mapping) or not services:
        raise ConfigError(f"{where}: there are no services.")
    warnings: list[str] = []
    for key in document:
        if key not in TOP and not str(key).startswith("x-"):
            warnings.append(f"{where}: the key {key} is not known and makes no difference.")
    bodies: dict[str, dict[str, Any]] = {}
    for name, body in services.items():
        at = f"{where}: services.{name}"
        if body is not None and not isinstance(body, Mapping):
            refuse(at, " is no mapping.")
        if "extends" in (body or {}):
            refuse(f"{at}.extends", " cannot be honoured outside of a file.")
        bodies[str(name)] = canonical(body or {}, at, directory, variables)
    active = {one.strip() for one in variables.get("COMPOSE_PROFILES", "").split(",")}
    bodies = {
        name: body for name, body in bodies.items() if not body.get("profiles") or active & {"*", *map(str, body["profiles"])}
    }
    if not bodies:
        raise ConfigError(f"{where}: all services have profiles, and COMPOSE_PROFILES names none of them.")
    default = _default(bodies, where)
    after = {name: _after(body, f"{where}: services.{name}.depends_on", bodies) for name, body in bodies.items()}
    ordered = _order(default, after, where)
    volumes = _Volumes(document.get("volumes") or {}, bodies, where, warnings)
    made = [
        _service(name, bodies[name], f"{where}: services.{name}", directory, volumes, variables, warnings) for name in ordered
    ]
    for service in made:
        service.after = after[service.name]
        for source, condition in service.after.items():
            at = f"{where}: services.{service.name}.depends_on"
            if condition == "completed" and source == default:
                refuse(at, f": {default} ends with the sandbox.")
            if condition == "healthy" and not any(other.name == source and other.healthcheck for other in made):
                refuse(
                    at,
                    f": {source} has no healthcheck. That of an image from a registry is not known here: write it under "
                    f"services.{source}.healthcheck.",
                )
        for entry in bodies[service.name].get("links") or []:
            source, _, alias = text(entry).partition(":")
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
    for name in ordered[1:]:
        if _resources(bodies[name], f"{where}: services.{name}"):
            warnings.append(f"{where}: services.{name}: resources are the sandbox's, those of {default}.")
        if bodies[name].get("ports"):
            warnings.append(f"{where}: services.{name}.ports: only ports of {default} can be reached from outside.")
    sandbox["ports"] = [[port, "tls"] for port in _ports(main.get("ports") or [], f"{at}.ports", warnings)]
    outbound = _networks({name: bodies[name] for name in ordered}, document.get("networks") or {}, made, where, warnings)
    result = Plan(made, outbound, sandbox, warnings=warnings)
    _extensions(document, where, result)
    return result


def _default(bodies: Mapping[str, Mapping[str, Any]], where: str) -> str:
    marked = [name for name, body in bodies.items() if _flag(body.get("x-default"), f"{where}: services.{name}.x-default")]
    if marked:
        return marked[0]
    return "default" if "default" in bodies else next(iter(bodies))


def _flag(value: Any, where: str) -> bool:
    """A boolean, which after the filling in of variables may be a text."""
    given = text(value).lower()
    if given in ("", "false", "no", "n", "off"):
        return False
    if given in ("true", "yes", "y", "on"):
        return True
    refuse(where, f": {text(value)!r} is neither true nor false.")


def _whole(value: Any, where: str) -> int:
    """A whole number, which after the filling in of variables may be a text."""
    given = text(value).strip()
    if not re.fullmatch(r"[-+]?\d+", given):
        refuse(where, f": {given!r} is no whole number.")
    return int(given)


def _says_nothing(value: Any) -> bool:
    return value in (None, [], {}) or text(value).lower() in ("", "false")


def _service(
    name: str,
    body: Mapping[str, Any],
    where: str,
    directory: Path,
    volumes: _Volumes,
    variables: Mapping[str, str],
    warnings: list[str],
) -> Service:
    for key in body:
        if key in REFUSED and not _says_nothing(body[key]):
            refuse(f"{where}.{key}", f" cannot be honoured: {REFUSED[key]}.")
        if key in WARNED:
            if not _says_nothing(body[key]) and text(body[key]) not in WITHOUT_EFFECT.get(key, ()):
                warnings.append(f"{where}.{key} makes no difference: {WARNED[key]}.")
        elif key not in HONOURED | NO_DIFFERENCE | set(REFUSED) and not str(key).startswith("x-"):
            warnings.append(f"{where}.{key} is not known and makes no difference.")
    deploy = body.get("deploy") or {}
    for key in deploy:
        if key == "resources" or key in DEPLOY_NO_DIFFERENCE or (key == "replicas" and text(deploy[key]) == "1"):
            continue
        warnings.append(f"{where}.deploy.{key} makes no difference: there is one container, and what has ended stays ended.")
    for key in ((deploy.get("resources") or {}).get("limits")) or {}:
        if key not in ("cpus", "memory"):
            warnings.append(f"{where}.deploy.resources.limits.{key} makes no difference: it is Modal's.")
    image = _image(body, where, directory, variables)
    mounted = volumes.of(name, body.get("volumes") or [], f"{where}.volumes")
    mounted.directories += [text(entry).partition(":")[0] for entry in body.get("tmpfs") or []]
    binds.copied(image, mounted.copies, f"{where}.volumes", directory, refuse)
    commands: list[str] = []
    if body.get("entrypoint") is not None:
        words = _words(body["entrypoint"], f"{where}.entrypoint")
        commands.append("ENTRYPOINT [" + ", ".join(_json(word) for word in words) + "]")
        # As with Docker: a new entry point without a command does without the image's.
        if body.get("command") is None:
            commands.append("CMD []")
    if commands:
        image["commands"] = commands
    user = body.get("user")
    words = _words(body["command"], f"{where}.command") if body.get("command") is not None else []
    if user is not None:
        user = text(user)
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
        _environment(body, where, variables),
        [],
        text(body["working_dir"]) if body.get("working_dir") is not None else None,
        user,
        mounted.volumes,
        healthcheck.of_service(body.get("healthcheck"), _image_check(image, where), f"{where}.healthcheck"),
        _names(body, where, warnings),
        _hosts(body.get("extra_hosts") or {}, f"{where}.extra_hosts", warnings),
        directories=mounted.directories,
    )


def _image_check(image: Mapping[str, Any], where: str) -> Healthcheck | None:
    """The check that the image has of its own, as far as its Dockerfile tells."""
    source = image["source"].get("dockerfile")
    return healthcheck.of_dockerfile(source["text"], source.get("target"), f"{where}.build") if source else None


def _names(body: Mapping[str, Any], where: str, warnings: list[str]) -> list[str]:
    """What Docker calls a service besides its own name."""
    found = [text(body["container_name"])] if body.get("container_name") else []
    for network, options in (body.get("networks") or {}).items():
        for key, value in (options or {}).items():
            if key == "aliases":
                found += [text(alias) for alias in value or []]
            elif key not in NETWORK_NO_DIFFERENCE:
                warnings.append(f"{where}.networks.{network}.{key} makes no difference: the network is the sandbox's own.")
    return found


def _hosts(value: Mapping[str, Any], where: str, warnings: list[str]) -> dict[str, str]:
    """Names with their addresses."""
    found = {}
    for name, given in value.items():
        for one in given if isinstance(given, list) else [given]:
            address = text(one).strip("[]")
            if address == "host-gateway":
                warnings.append(f"{where}.{name} makes no difference: a sandbox has no host to reach.")
                continue
            try:
                found[name] = str(ipaddress.ip_address(address))
            except ValueError:
                refuse(f"{where}.{name}", f": {address!r} is no address.")
    return found


def _after(body: Mapping[str, Any], where: str, bodies: Mapping[str, Any]) -> dict[str, str]:
    """What a service depends on, with what it waits for."""
    found = {}
    for name, options in (body.get("depends_on") or {}).items():
        options = options or {}
        condition = text(options.get("condition") or "service_started")
        if condition not in CONDITIONS:
            refuse(f"{where}.{name}.condition", f" is one of {', '.join(CONDITIONS)}, not {condition!r}.")
        if name in bodies:
            found[str(name)] = CONDITIONS[condition]
        elif _flag(options.get("required", True), f"{where}.{name}.required"):
            refuse(where, f": there is no service {name}.")
    return found


def _order(default: str, after: Mapping[str, Mapping[str, str]], where: str) -> list[str]:
    """The default service, whose container is the sandbox's own and always the first, and then each after what it needs."""
    ordered: list[str] = []
    left = list(after)
    while left:
        ready = [name for name in left if all(source in ordered for source in after[name])]
        if not ready:
            # Without those that only wait for the circle.
            circle = [name for name in left if any(name in after[other] for other in left)]
            raise ConfigError(f"{where}: services depend on each other in a circle: {', '.join(circle)}.")
        ordered.append(ready[0])
        left.remove(ready[0])
    return [default, *[name for name in _sorted(default, after) if name != default]]


def _sorted(default: str, after: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Each after what it needs, with the default service counted as there from the beginning."""
    ordered = [default]
    left = [name for name in after if name != default]
    while left:
        ready = next(name for name in left if all(source in ordered for source in after[name]))
        ordered.append(ready)
        left.remove(ready)
    return ordered


def _resolvable(services: list[Service]) -> None:
    """Keeps of further names what nobody else is called."""
    taken = {service.name for service in services}
    for service in services:
        service.names = [name for name in dict.fromkeys(service.names) if name not in taken]
        taken |= set(service.names)


def _image(body: Mapping[str, Any], where: str, directory: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    build = body.get("build")
    if build is None:
        if not body.get("image"):
            refuse(f"{where}.image", ": the service has neither image nor build.")
        return {"source": {"registry": {"reference": text(body["image"])}}}
    for key in build:
        if key not in BUILD | BUILD_NO_DIFFERENCE and not str(key).startswith("x-") and not _says_nothing(build[key]):
            refuse(f"{where}.build.{key}", " cannot be honoured.")
    context = Path(build["context"])
    if not context.is_dir():
        refuse(f"{where}.build.context", f": {context} is no directory.")
    args = _texts(build.get("args") or {}, variables)
    target = text(build["target"]) if build.get("target") is not None else None
    if build.get("dockerfile_inline") is not None:
        inline = text(build["dockerfile_inline"])
        source = {"text": inline, "context": str(context), "build_args": sorted(args.items()), "target": target}
        image: dict[str, Any] = {"source": {"dockerfile": source}}
    else:
        image = dockerfile_image(context / text(build.get("dockerfile") or "Dockerfile"), context, args, target)
    image["force"] = _flag(build.get("no_cache"), f"{where}.build.no_cache")
    secrets = build.get("secrets") or []
    if not all(isinstance(secret, str) for secret in secrets):
        refuse(f"{where}.build.secrets", ": give names of secrets of Modal's.")
    image["secrets"] = list(secrets)
    return image


def _environment(body: Mapping[str, Any], where: str, variables: Mapping[str, str]) -> dict[str, str]:
    own = _texts(body.get("environment") or {}, variables)

    def lookup(name: str) -> str | None:
        found = variables.get(name)
        return own.get(name) if found is None else found

    values: dict[str, str] = {}
    for entry in body.get("env_file") or []:
        values |= envfile.read(
            Path(entry["path"]),
            lookup,
            missing_ok=not _flag(entry.get("required", True), f"{where}.env_file.required"),
            format=entry.get("format"),
        )
    return values | own


def _texts(value: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """Values as texts. A name without a value has that of a variable, as with Docker; without that, it is left out."""
    found = {name: variables.get(name) if one is None else text(one) for name, one in value.items()}
    return {name: one for name, one in found.items() if one is not None}


def _words(value: Any, where: str) -> list[str]:
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            refuse(where, f": {value!r} cannot be split into words: {error}.")
    if isinstance(value, list):
        return [text(word) for word in value]
    refuse(where, " is neither a text nor a list.")


def _json(word: str) -> str:
    return json.dumps(word, ensure_ascii=False)


def _ports(value: list[Mapping[str, Any]], where: str, warnings: list[str]) -> list[int]:
    """The ports to be opened. Among themselves the services reach every port of each other, whatever is written here."""
    udp = [port["target"] for port in value if port["protocol"] != "tcp"]
    if udp:
        warnings.append(
            f"{where}: only TCP ports can be reached from outside, not {', '.join(map(str, udp))}; the services reach them."
        )
    found = list(dict.fromkeys(int(port["target"]) for port in value if port["protocol"] == "tcp"))
    if len(found) > MOST_PORTS:
        warnings.append(f"{where}: only the first {MOST_PORTS} ports can be reached from outside; the services reach all.")
    return found[:MOST_PORTS]


# ---- volumes --------------------------------------------------------------------------------------------------------


class _Mounted:
    """What the mounts of a service come to."""

    def __init__(self) -> None:
        self.volumes: list[dict[str, Any]] = []
        """Volumes of Modal's; those with `sample` are made for each sample anew."""
        self.directories: list[str] = []
        """Directories of the container's own."""
        self.copies: list[tuple[Path, str]] = []
        """Files and directories of this machine, with the paths that they are copied to."""


class _Volumes:
    """The named volumes of a document."""

    def __init__(
        self, named: Mapping[str, Any], bodies: Mapping[str, Mapping[str, Any]], where: str, warnings: list[str]
    ) -> None:
        self.named = {str(name): options or {} for name, options in named.items()}
        self.warnings = warnings
        self.where = where
        self.users: dict[str, set[str]] = {}
        self.mounts: dict[str, int] = {}
        for service, body in bodies.items():
            for mount in body.get("volumes") or []:
                if mount.get("type") == "volume" and mount.get("source"):
                    source = text(mount["source"])
                    self.users.setdefault(source, set()).add(service)
                    self.mounts[source] = self.mounts.get(source, 0) + 1

    def of(self, service: str, mounts: list[Mapping[str, Any]], where: str) -> _Mounted:
        """What the mounts of one service come to."""
        made = _Mounted()
        for mount in mounts:
            target, source = text(mount["target"]), text(mount.get("source"))
            read_only = _flag(mount.get("read_only"), f"{where}.read_only")
            if not target.startswith("/"):
                refuse(where, f": {target} is no absolute path.")
            match mount["type"]:
                case "tmpfs":
                    made.directories.append(target)
                case "volume" if not source:
                    # An anonymous volume: a directory of the sandbox's own.
                    made.directories.append(target)
                case "volume":
                    self._named(made, source, target, read_only, mount, where)
                case "bind":
                    if not source:
                        refuse(where, f": what is mounted at {target} has no source.")
                    if not read_only:
                        refuse(
                            where,
                            f": {source} is on this machine, which a sandbox does not see, and may be written to. If it is "
                            "only read, add `:ro`, and it is copied in; otherwise copy it into the image, or use the "
                            "sample's files.",
                        )
                    made.copies.append((Path(source), target))
                case other:
                    refuse(where, f": mounts of the type {other} cannot be honoured.")
        return made

    def _named(self, made: _Mounted, source: str, target: str, read_only: bool, mount: Mapping[str, Any], where: str) -> None:
        if source not in self.named:
            refuse(where, f": there is no volume {source} under the key volumes; a path begins with `.` or `/`.")
        options = self.named[source]
        at = f"{self.where}: volumes.{source}"
        if options.get("driver_opts") or options.get("driver") not in (None, "local", "default"):
            kind = text((options.get("driver_opts") or {}).get("type"))
            if kind != "tmpfs":
                refuse(f"{at}.driver_opts" if options.get("driver_opts") else f"{at}.driver", " cannot be honoured.")
        external = options.get("external")
        shared = isinstance(external, Mapping) or _flag(external, f"{at}.external") or options.get("name") is not None
        sub_path = text((mount.get("volume") or {}).get("subpath")) or None
        if shared:
            name = options.get("name") or (external.get("name") if isinstance(external, Mapping) else None) or source
            self._warn(f"{at} is the volume {text(name)} of Modal's: all samples share it, and it is not removed.")
            entry = {"volume": text(name), "create": not external}
        elif self.mounts[source] == 1 and sub_path is None:
            # Nobody else sees it: a directory of the container's own, with what the image has there, as with Docker.
            made.directories.append(target)
            return
        else:
            if len(self.users[source]) > 1:
                self._warn(
                    f"{at} is a volume of Modal's, since several services mount it: others that run see what one writes "
                    "only once they reload it, and what their images have there is not seen."
                )
            entry = {"volume": source, "create": True, "sample": True}
        made.volumes.append({**entry, "path": target, "read_only": read_only, "sub_path": sub_path})

    def _warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)


# ---- networks -------------------------------------------------------------------------------------------------------


def _networks(
    bodies: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, Any],
    made: list[Service],
    where: str,
    warnings: list[str],
) -> str:
    """Gives each service its network, and the policy of the default one.

    The containers of a sandbox reach each other, except the sandbox's own container if its network is blocked; what leaves
    the sandbox is decided for each container by itself. So services that are to reach each other, all of them, are honoured,
    each with the internet or without it; and so is a default service that is to reach nothing at all. All other separations
    would be merged, and are refused.
    """
    joined = {name: _joined(body, f"{where}: services.{name}", known, warnings) for name, body in bodies.items()}
    internal = {
        name
        for name, options in known.items()
        if isinstance(options, Mapping) and _flag(options.get("internal"), f"{where}: networks.{name}.internal")
    }
    outside = {name: bool(networks - internal) for name, networks in joined.items()}
    main, *others = made
    for one, other in itertools.combinations(joined, 2):
        apart = not _together(joined[one], joined[other])
        if one != main.name:
            if apart:
                _separated(one, other, joined, where)
            continue
        if apart != (not joined[main.name]) or (apart and outside[main.name]):
            _separated(one, other, joined, where)
    for service in made:
        service.peers = [other for other in joined if other != service.name and _together(joined[service.name], joined[other])]
    for service in others:
        service.outbound = "open" if outside[service.name] else "internal"
    if outside[main.name]:
        return "open"
    # Without other services, an internal network reaches nothing.
    return "internal" if main.peers else "blocked"


def _together(one: set[str], other: set[str]) -> bool:
    return bool(one & other) or (HOST in one and bool(other)) or (HOST in other and bool(one))


def _separated(one: str, other: str, joined: Mapping[str, set[str]], where: str) -> NoReturn:
    def on(name: str) -> str:
        return ", ".join(sorted(joined[name])) or "none"

    raise Refusal(
        f"{where}: services.{other}.networks",
        f": {one} (networks: {on(one)}) and {other} (networks: {on(other)}) are not to reach each other, but the containers of "
        "a sandbox do. Give all services a network in common, which may be internal, and decide by further networks which of "
        "them reach the internet; or give the default service alone `network_mode: none`.",
    )


def _joined(body: Mapping[str, Any], where: str, known: Mapping[str, Any], warnings: list[str]) -> set[str]:
    """The networks of a service."""
    mode = body.get("network_mode")
    if mode is not None:
        mode = text(mode)
        if body.get("networks"):
            refuse(f"{where}.network_mode", " and networks exclude each other.")
        if mode.startswith(("service:", "container:")):
            refuse(
                f"{where}.network_mode",
                f": {mode} cannot be honoured: each container of a sandbox has a loopback of its own. Let the services reach "
                "each other by name.",
            )
        if mode == "none":
            return set()
        if mode == "host":
            warnings.append(f"{where}.network_mode: host makes no difference: the network is the sandbox's own.")
            return {HOST}
        if mode in ("bridge", "default"):
            return {BRIDGE}
        warnings.append(f"{where}.network_mode: {mode} makes no difference: the network is the sandbox's own.")
        return {mode}
    joined = {str(name) for name in body.get("networks") or {}} or {"default"}
    for name in joined - {"default"}:
        if name not in known:
            refuse(f"{where}.networks", f": there is no network {name} under the key networks.")
    return joined


# ---- resources ------------------------------------------------------------------------------------------------------


def mebibytes(value: Any, where: str) -> int:
    """`512m`, `2g`, or bytes as with Docker; at least 1."""
    match = SIZE.fullmatch(text(value))
    if not match:
        refuse(where, f": {text(value)!r} is no amount of memory: give one such as 512m or 2g.")
    shift = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match.group(2).lower()]
    return max(math.ceil(float(match.group(1)) * (1 << shift) / (1 << 20)), 1)


def millicores(value: Any, where: str) -> int:
    """Processors as a number."""
    try:
        number = float(text(value))
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < 1e6:
        refuse(where, f": {text(value)!r} is no number of processors.")
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
    at = f"{where}.deploy.resources.reservations.devices"
    devices = [(device, at) for device in reservations.get("devices") or []]
    gpus = body.get("gpus")
    if gpus == "all":
        devices.append(({"count": 1, "capabilities": ["gpu"]}, f"{where}.gpus"))
    elif isinstance(gpus, list):
        devices += [({**device, "capabilities": ["gpu"]}, f"{where}.gpus") for device in gpus]
    for device, place in devices:
        if "gpu" not in (device.get("capabilities") or []) and device.get("driver") != "nvidia":
            refuse(place, ": only GPUs can be had.")
        ids, count = device.get("device_ids"), device.get("count")
        number = len(ids) if ids else 1 if text(count) in ("", "all") else _whole(count, f"{place}.count")
        if number == -1:
            number = 1
        if number:
            found["gpu"] = (_gpu(pairs(device.get("options") or {}, f"{place}.options"), f"{place}.options"), number)
    return found


def _gpu(options: Mapping[str, Any], where: str) -> str:
    """The type of GPU that the options of a device name: `model`, or the first of `gpu_types` that Modal has."""
    if options.get("model"):
        return parse_gpu(text(options["model"]))[0]
    given = options.get("gpu_types")
    if not given:
        return "ANY"
    types = [text(one).strip() for one in (given if isinstance(given, list) else text(given).split(","))]
    for one in types:
        name = re.sub(r"^NVIDIA[-_ ]|(?<=\d)[-_ ](?=GB$)", "", one.upper()).replace("_", "-").replace(" ", "-")
        if name in GPUS or name == "ANY":
            return name
    refuse(f"{where}.gpu_types", f": Modal has none of {', '.join(types)}; it has {', '.join(sorted(GPUS))}.")


# ---- extensions -----------------------------------------------------------------------------------------------------


def _extensions(document: Mapping[str, Any], where: str, result: Plan) -> None:
    """`x-modal` and `x-inspect_modal_sandbox`, which older plugins brought up; the former wins."""
    main = result.services[0]
    options: dict[str, Any] = {}
    for key in ("x-inspect_modal_sandbox", "x-modal"):
        body = document.get(key) or {}
        if not isinstance(body, Mapping):
            refuse(f"{where}: {key}", " is no mapping.")
        for name, value in body.items():
            at = f"{where}: {key}.{name}"
            if value is None:
                continue
            match name:
                case "block_network":
                    _everywhere(result, "blocked" if _flag(value, at) else "open")
                case "cidr_allowlist" | "outbound_cidr_allowlist":
                    _allowed(result)["cidrs"] = _list(value)
                case "outbound_domain_allowlist":
                    _allowed(result)["domains"] = _list(value)
                case "inbound_cidr_allowlist":
                    result.sandbox["inbound_cidrs"] = _list(value)
                case "timeout":
                    result.sandbox["lifetime_secs"] = _whole(value, at)
                case "idle_timeout":
                    result.sandbox["idle_timeout_secs"] = _whole(value, at)
                case "verbose":
                    options[name] = _flag(value, at)
                case "cloud" | "custom_domain":
                    options[name] = text(value)
                case "region":
                    result.sandbox["regions"] = _list(value)
                case "gpu":
                    result.sandbox["gpu"] = parse_gpu(text(value))
                case "pty":
                    result.sandbox["pty"] = _flag(value, at)
                case "encrypted_ports" | "h2_ports" | "unencrypted_ports":
                    form = {"encrypted_ports": "tls", "h2_ports": "h2", "unencrypted_ports": "tcp"}[name]
                    ports = [_whole(port, at) for port in (value if isinstance(value, list) else [value])]
                    # What is written for Modal decides about a port that `ports` names too.
                    others = [pair for pair in result.sandbox["ports"] if pair[0] not in ports]
                    result.sandbox["ports"] = others + [[port, form] for port in ports]
                case "secrets":
                    main.secrets = _list(value)
                case "registry_secret" | "image_registry_secret":
                    for service in result.services:
                        for kind, source in service.image["source"].items():
                            if kind in ("registry", "dockerfile"):
                                source["login_secret"] = text(value)
                case "volumes":
                    main.volumes += [_modal_volume(entry, at) for entry in (value if isinstance(value, list) else [value])]
                case "app_name":
                    result.app = text(value)
                case "environment":
                    result.environment = text(value)
                case "tags":
                    result.tags |= _texts(pairs(value, at), {})
                case "options" | "experimental_options":
                    if not isinstance(value, Mapping):
                        refuse(at, " is no mapping.")
                    if name == "options":
                        options |= dict(value)
                    else:
                        options["experimental"] = {**options.get("experimental", {}), **value}
                case _:
                    refuse(at, " is not known.")
    if options:
        result.sandbox["options"] = list(options.items())


def _list(value: Any) -> list[str]:
    return [text(one) for one in (value if isinstance(value, list) else [value])]


def _modal_volume(entry: Any, where: str) -> dict[str, Any]:
    """`{name: …, mount_path: …, read_only: …}`: a volume of Modal's, which has to be there."""
    if not isinstance(entry, Mapping) or not entry.get("name") or not entry.get("mount_path"):
        refuse(where, ": give name and mount_path of each volume.")
    unknown = set(entry) - {"name", "mount_path", "read_only"}
    if unknown:
        refuse(where, f": {', '.join(sorted(unknown))} is not known; a volume has name, mount_path and read_only.")
    return {
        "volume": text(entry["name"]),
        "path": text(entry["mount_path"]),
        "read_only": _flag(entry.get("read_only"), f"{where}.read_only"),
        "sub_path": None,
        "create": False,
    }


def _everywhere(result: Plan, outbound: Any) -> None:
    """Sets the network of all services. Those that reach each other go on doing so when nothing may leave the sandbox."""
    main, *others = result.services
    result.outbound = "internal" if outbound == "blocked" and main.peers else outbound
    for service in others:
        service.outbound = "internal" if outbound == "blocked" else outbound


def _allowed(result: Plan) -> dict[str, Any]:
    if not isinstance(result.outbound, dict):
        _everywhere(result, {"allowed": {"cidrs": [], "domains": []}})
    allowed: dict[str, Any] = result.outbound["allowed"]
    return allowed
