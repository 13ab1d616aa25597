"""Turns a complete compose document into a plan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .document import Document, canonical, text
from .extensions import apply_extensions
from .keys import DOCUMENT, is_idle
from .networks import set_networks
from .order import default_service, dependencies, start_order
from .plan import LIFETIME_SECS, ComposeError, Plan, Service
from .resources import options, ports, resources
from .services import service
from .traits import Traits
from .values import Refusal, refuse
from .volumes import Volumes


def of_document(document: Document, traits: Traits) -> Plan:
    """Returns the plan for a document.

    Raises:
        ComposeError: if a value is wrong or not supported. The text names its key, and the unset variables that the value
            refers to.
    """
    try:
        return plan(document.body, document.where, document.directory, traits, document.variables)
    except Refusal as refusal:
        names = [
            name
            for place, names in document.unset.items()
            if place == refusal.at or place.startswith(refusal.at + ".") or refusal.at.startswith(place + ".")
            for name in names
        ]
        if not names:
            raise
        unset = f"the variables {', '.join(names)} are" if len(names) > 1 else f"the variable {names[0]} is"
        raise ComposeError(f"{refusal} (In this value, {unset} not set.)") from None


def plan(
    document: Mapping[str, Any],
    where: str,
    directory: Path,
    traits: Traits,
    variables: Mapping[str, str] | None = None,
) -> Plan:
    """Returns the plan for a document whose variables are filled in. Relative paths start at `directory`.

    `where` names the document in errors. Names without a value, and files of variables, take values from `variables`, which are
    by default those of the process.

    Raises:
        ComposeError: if a value is wrong or not supported. The text names its key.
    """
    variables = os.environ if variables is None else variables
    warnings: list[str] = []
    for key in document:
        if key not in DOCUMENT and not str(key).startswith("x-"):
            if traits.strict:
                refuse(f"{where}: {key}", " is not known.")
            warnings.append(f"{where}: the key {key} is not known and has no effect.")
    bodies = _active_services(document, where, directory, variables)
    if len(bodies) > 1 and not traits.services:
        refuse(
            f"{where}: services",
            f": a sandbox of the type {traits.name} has one container, and these are {len(bodies)}: {', '.join(bodies)}. Use "
            "the sandbox type docker or modal for several services, or give all but one a profile.",
        )
    default = default_service(bodies, where, traits)
    after = {name: dependencies(body, f"{where}: services.{name}.depends_on", bodies) for name, body in bodies.items()}
    ordered = start_order(default, after, where)
    volumes = Volumes(document.get("volumes") or {}, bodies, where, warnings, traits)
    services = [
        service(name, bodies[name], f"{where}: services.{name}", directory, volumes, variables, warnings, traits)
        for name in ordered
    ]
    for one in services:
        one.after = after[one.name]
        _check_conditions(one, default, services, where)
    _add_links(services, bodies)
    _drop_taken_names(services)
    main = services[0]
    if main.after and main.command and not is_idle(main.command):
        warnings.append(
            f"{where}: services.{default}.depends_on has no effect on its command: its container is the sandbox's own, and "
            "starts first. The sample begins when all services are running and healthy."
        )
    at = f"{where}: services.{default}"
    sandbox: dict[str, Any] = {"lifetime_secs": LIFETIME_SECS, **resources(bodies[default], at, traits)}
    for name in ordered[1:]:
        if resources(bodies[name], f"{where}: services.{name}", traits):
            warnings.append(f"{where}: services.{name}: its resources have no effect: the sandbox has those of {default}.")
        if bodies[name].get("ports"):
            warnings.append(f"{where}: services.{name}.ports: only ports of {default} can be reached from outside.")
    opened = ports(bodies[default].get("ports") or [], f"{at}.ports", warnings)
    sandbox["ports"] = [[port, traits.port_kind] for port in opened]
    known = document.get("networks") or {}
    outbound = set_networks({name: bodies[name] for name in ordered}, known, services, where, warnings)
    if chosen := options(bodies[default], at, traits):
        sandbox["options"] = list(chosen.items())
    result = Plan(services, outbound, sandbox, warnings=warnings)
    apply_extensions(document, where, result, traits)
    return result


def _active_services(
    document: Mapping[str, Any], where: str, directory: Path, variables: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Returns the services in their canonical form, without those whose profiles are not active."""
    services = document.get("services")
    if not isinstance(services, Mapping) or not services:
        raise ComposeError(f"{where}: there are no services.")
    bodies: dict[str, dict[str, Any]] = {}
    for name, body in services.items():
        at = f"{where}: services.{name}"
        if body is not None and not isinstance(body, Mapping):
            refuse(at, " is not a mapping.")
        if "extends" in (body or {}):
            refuse(f"{at}.extends", " is only supported in files.")
        bodies[str(name)] = canonical(body or {}, at, directory, variables)
    active = {one.strip() for one in variables.get("COMPOSE_PROFILES", "").split(",")}
    bodies = {
        name: body for name, body in bodies.items() if not body.get("profiles") or active & {"*", *map(str, body["profiles"])}
    }
    if not bodies:
        raise ComposeError(f"{where}: all services have profiles, and COMPOSE_PROFILES names none of them.")
    return bodies


def _check_conditions(one: Service, default: str, services: list[Service], where: str) -> None:
    """Refuses conditions of `depends_on` that can never become true."""
    at = f"{where}: services.{one.name}.depends_on"
    for source, condition in one.after.items():
        if condition == "completed" and source == default:
            refuse(at, f": {default} ends with the sandbox.")
        if condition == "healthy" and not any(other.name == source and other.healthcheck for other in services):
            refuse(
                at,
                f": {source} has no healthcheck. The healthcheck of an image from a registry is not known here: write it under "
                f"services.{source}.healthcheck.",
            )


def _add_links(services: list[Service], bodies: Mapping[str, Mapping[str, Any]]) -> None:
    """Gives services the names by which `links` refer to them."""
    for one in services:
        for entry in bodies[one.name].get("links") or []:
            source, _, alias = text(entry).partition(":")
            for other in services:
                if other.name == source and alias:
                    other.names.append(alias)


def _drop_taken_names(services: list[Service]) -> None:
    """Drops further names that another service has already."""
    taken = {one.name for one in services}
    for one in services:
        one.names = [name for name in dict.fromkeys(one.names) if name not in taken]
        taken |= set(one.names)
