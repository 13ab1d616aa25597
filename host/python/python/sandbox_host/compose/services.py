"""Turns one service of a document into a `Service`: its image, command, environment and names."""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import binds, envfile, healthcheck
from .document import text
from .keys import (
    BUILD,
    BUILD_WITHOUT_MEANING,
    DEPENDENCY,
    DEPLOY_WITHOUT_MEANING,
    HEALTHCHECK,
    NETWORK_WITHOUT_MEANING,
    REFUSED,
    SUPPORTED,
    WARNED,
    WITHOUT_EFFECT,
    WITHOUT_MEANING,
    is_idle,
)
from .plan import Healthcheck, Service, dockerfile_image
from .traits import Traits
from .values import flag, is_unset, refuse, texts
from .volumes import Volumes


def service(
    name: str,
    body: Mapping[str, Any],
    where: str,
    directory: Path,
    volumes: Volumes,
    variables: Mapping[str, str],
    warnings: list[str],
    traits: Traits,
) -> Service:
    """Returns the service, without dependencies and networks.

    Raises:
        ComposeError: if a value is wrong or not supported.
    """
    _check_keys(body, where, warnings, traits)
    image = _image(body, where, directory, variables, traits)
    mounted = volumes.of(name, body.get("volumes") or [], f"{where}.volumes")
    mounted.directories += [text(entry).partition(":")[0] for entry in body.get("tmpfs") or []]
    binds.add_copies(image, mounted.copies, f"{where}.volumes", directory)
    if body.get("entrypoint") is not None:
        words = _words(body["entrypoint"], f"{where}.entrypoint")
        image["commands"] = ["ENTRYPOINT [" + ", ".join(json.dumps(word, ensure_ascii=False) for word in words) + "]"]
        # With Docker too, a new entry point without a command discards the command of the image.
        if body.get("command") is None:
            image["commands"].append("CMD []")
    command = _words(body["command"], f"{where}.command") if body.get("command") is not None else []
    user = text(body["user"]) if body.get("user") is not None else None
    # For a command that only keeps the container alive, the user makes no difference.
    if user is not None and (body.get("entrypoint") is not None or not is_idle(command)):
        warnings.append(
            f"{where}.user is the user of commands, files and the health check. The service's own command runs as the user of "
            "its image."
        )
    return Service(
        name,
        image,
        command,
        _environment(body, where, variables),
        [],
        text(body["working_dir"]) if body.get("working_dir") is not None else None,
        user,
        mounted.volumes,
        healthcheck.of_service(body.get("healthcheck"), _image_healthcheck(image, where), f"{where}.healthcheck"),
        _names(body, where, warnings),
        _hosts(body.get("extra_hosts") or {}, f"{where}.extra_hosts", warnings),
        directories=mounted.directories,
    )


def _check_keys(body: Mapping[str, Any], where: str, warnings: list[str], traits: Traits) -> None:
    """Refuses keys that are not supported, and warns of those without an effect."""
    refused, warned = {**REFUSED, **traits.reasons}, {**WARNED, **traits.reasons}
    for key in body:
        if key in traits.options:
            continue
        if key in REFUSED and not is_unset(body[key]):
            refuse(f"{where}.{key}", f" is not supported: {refused[key]}.")
        if key in WARNED:
            if not is_unset(body[key]) and text(body[key]) not in WITHOUT_EFFECT.get(key, ()):
                warnings.append(f"{where}.{key} has no effect: {warned[key]}.")
        elif key not in SUPPORTED | WITHOUT_MEANING | set(REFUSED) and not str(key).startswith("x-"):
            if traits.strict:
                refuse(f"{where}.{key}", " is not known.")
            warnings.append(f"{where}.{key} is not known and has no effect.")
    if traits.strict:
        _refuse_unknown(body.get("healthcheck"), HEALTHCHECK, f"{where}.healthcheck")
        for name, options in (body.get("depends_on") or {}).items():
            _refuse_unknown(options, DEPENDENCY, f"{where}.depends_on.{name}")
    deploy = body.get("deploy") or {}
    for key in deploy:
        if key == "resources" or key in DEPLOY_WITHOUT_MEANING or (key == "replicas" and text(deploy[key]) == "1"):
            continue
        warnings.append(
            f"{where}.deploy.{key} has no effect: each service has one container, which is not started again after its end."
        )
    for key in ((deploy.get("resources") or {}).get("limits")) or {}:
        if key not in ("cpus", "memory"):
            warnings.append(f"{where}.deploy.resources.limits.{key} has no effect: {warned['ulimits']}.")


def _refuse_unknown(body: Any, known: set[str], where: str) -> None:
    """Refuses keys of a mapping that are not known."""
    for key in body if isinstance(body, Mapping) else ():
        if key not in known and not str(key).startswith("x-"):
            refuse(f"{where}.{key}", " is not known.")


def _image(
    body: Mapping[str, Any], where: str, directory: Path, variables: Mapping[str, str], traits: Traits
) -> dict[str, Any]:
    """Returns the definition of the image."""
    build = body.get("build")
    if build is None:
        if not body.get("image"):
            refuse(f"{where}.image", ": the service has neither image nor build.")
        return {"source": {"registry": {"reference": text(body["image"])}}}
    for key in build:
        if key not in BUILD | BUILD_WITHOUT_MEANING and not str(key).startswith("x-") and not is_unset(build[key]):
            refuse(f"{where}.build.{key}", " is not supported.")
    context = Path(build["context"])
    if not context.is_dir():
        refuse(f"{where}.build.context", f": {context} is not a directory.")
    args = texts(build.get("args") or {}, variables)
    target = text(build["target"]) if build.get("target") is not None else None
    if build.get("dockerfile_inline") is not None:
        inline = text(build["dockerfile_inline"])
        source = {"text": inline, "context": str(context), "build_args": sorted(args.items()), "target": target}
        image: dict[str, Any] = {"source": {"dockerfile": source}}
    else:
        image = dockerfile_image(context / text(build.get("dockerfile") or "Dockerfile"), context, args, target)
    image["force"] = flag(build.get("no_cache"), f"{where}.build.no_cache")
    secrets = build.get("secrets") or []
    if secrets and not traits.secrets:
        refuse(f"{where}.build.secrets", f" is not supported: {traits.title} stores no secrets.")
    if not all(isinstance(secret, str) for secret in secrets):
        refuse(f"{where}.build.secrets", ": give names of Modal secrets.")
    image["secrets"] = list(secrets)
    return image


def _image_healthcheck(image: Mapping[str, Any], where: str) -> Healthcheck | None:
    """Returns the health check that the Dockerfile of an image defines. That of an image from a registry is not known."""
    source = image["source"].get("dockerfile")
    return healthcheck.of_dockerfile(source["text"], source.get("target"), f"{where}.build") if source else None


def _environment(body: Mapping[str, Any], where: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of `env_file` and `environment`; the latter win."""
    own = texts(body.get("environment") or {}, variables)

    def lookup(name: str) -> str | None:
        found = variables.get(name)
        return own.get(name) if found is None else found

    values: dict[str, str] = {}
    for entry in body.get("env_file") or []:
        values |= envfile.read(
            Path(entry["path"]),
            lookup,
            missing_ok=not flag(entry.get("required", True), f"{where}.env_file.required"),
            format=entry.get("format"),
        )
    return values | own


def _words(value: Any, where: str) -> list[str]:
    """Returns the words of a command, which is a string in shell syntax or a list."""
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            refuse(where, f": {value!r} cannot be split into words: {error}.")
    if isinstance(value, list):
        return [text(word) for word in value]
    refuse(where, " is neither a string nor a list.")


def _names(body: Mapping[str, Any], where: str, warnings: list[str]) -> list[str]:
    """Returns the names of the container in its networks, besides the name of the service."""
    found = [text(body["container_name"])] if body.get("container_name") else []
    for network, options in (body.get("networks") or {}).items():
        for key, value in (options or {}).items():
            if key == "aliases":
                found += [text(alias) for alias in value or []]
            elif key not in NETWORK_WITHOUT_MEANING:
                warnings.append(f"{where}.networks.{network}.{key} has no effect: the sandbox has its own network.")
    return found


def _hosts(value: Mapping[str, Any], where: str, warnings: list[str]) -> dict[str, str]:
    """Returns the names of `extra_hosts` with their addresses."""
    found = {}
    for name, given in value.items():
        for one in given if isinstance(given, list) else [given]:
            address = text(one).strip("[]")
            if address == "host-gateway":
                warnings.append(f"{where}.{name} has no effect: a sandbox cannot reach a host.")
                continue
            try:
                found[name] = str(ipaddress.ip_address(address))
            except ValueError:
                refuse(f"{where}.{name}", f": {address!r} is not an address.")
    return found
