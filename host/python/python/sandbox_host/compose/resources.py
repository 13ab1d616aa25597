"""Resources and public ports of the sandbox."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from .document import pairs, text
from .plan import parse_gpu
from .traits import Traits
from .values import flag, refuse, text_list, whole

MAX_PORTS = 32
"""The number of ports that are opened. Further ports are named in a warning."""

SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", re.IGNORECASE)

GPUS = {
    "T4", "L4", "A10", "A10G", "A100", "A100-40GB", "A100-80GB", "L40S", "H100", "H100!", "H200", "B200", "B200+",
    "RTX-PRO-6000",
}  # fmt: skip
"""The types of GPU in Modal's documentation."""


def ports(value: list[Mapping[str, Any]], where: str, warnings: list[str]) -> list[int]:
    """Returns the ports to open to the outside. Services reach all ports of each other in any case."""
    udp = [port["target"] for port in value if port["protocol"] != "tcp"]
    if udp:
        warnings.append(
            f"{where}: only TCP ports can be reached from outside, not {', '.join(map(str, udp))}. Other services reach them."
        )
    found = list(dict.fromkeys(int(port["target"]) for port in value if port["protocol"] == "tcp"))
    if len(found) > MAX_PORTS:
        warnings.append(f"{where}: only the first {MAX_PORTS} ports can be reached from outside. Other services reach all.")
    return found[:MAX_PORTS]


def mebibytes(value: Any, where: str) -> int:
    """Reads an amount of memory, such as `512m`, `2g`, or a number of bytes. Returns MiB, at least 1."""
    match = SIZE.fullmatch(text(value))
    if not match:
        refuse(where, f": {text(value)!r} is not an amount of memory. Give one such as 512m or 2g.")
    shift = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match.group(2).lower()]
    return max(math.ceil(float(match.group(1)) * (1 << shift) / (1 << 20)), 1)


def millicores(value: Any, where: str) -> int:
    """Reads a number of processors. Returns thousandths, at least 1."""
    try:
        number = float(text(value))
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < 1e6:
        refuse(where, f": {text(value)!r} is not a number of processors.")
    return max(round(number * 1000), 1)


def resources(body: Mapping[str, Any], where: str, traits: Traits) -> dict[str, Any]:
    """Returns the resources that a service asks for, with the names that `Plan.sandbox` has."""
    given = ((body.get("deploy") or {}).get("resources")) or {}
    limits, reservations = given.get("limits") or {}, given.get("reservations") or {}
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
            refuse(place, ": the only supported devices are GPUs.")
        ids, count = device.get("device_ids"), device.get("count")
        number = len(ids) if ids else 1 if text(count) in ("", "all") else whole(count, f"{place}.count")
        if number == -1:
            number = 1
        if number:
            about = pairs(device.get("options") or {}, f"{place}.options")
            found["gpu"] = (_gpu(about, f"{place}.options") if traits.gpu_models else "ANY", number)
    return found


def options(body: Mapping[str, Any], where: str, traits: Traits) -> dict[str, Any]:
    """Returns the options of the provider that a service sets, with their values."""
    found: dict[str, Any] = {}
    for key, form in traits.options.items():
        value = body.get(key)
        if value is None:
            continue
        match form:
            case "texts":
                found[key] = text_list(value)
            case "flag":
                found[key] = flag(value, f"{where}.{key}")
            case "whole":
                found[key] = whole(value, f"{where}.{key}")
            case "mebibytes":
                found[f"{key}_mib"] = mebibytes(value, f"{where}.{key}")
            case _:
                found[key] = text(value)
    return found


def _gpu(options: Mapping[str, Any], where: str) -> str:
    """Returns the type of GPU that the options of a device name: `model`, or the first of `gpu_types` that Modal has."""
    if options.get("model"):
        return parse_gpu(text(options["model"]))[0]
    given = options.get("gpu_types")
    if not given:
        return "ANY"
    types = [one.strip() for one in text_list(given if isinstance(given, list) else text(given).split(","))]
    for one in types:
        name = re.sub(r"^NVIDIA[-_ ]|(?<=\d)[-_ ](?=GB$)", "", one.upper()).replace("_", "-").replace(" ", "-")
        if name in GPUS or name == "ANY":
            return name
    refuse(f"{where}.gpu_types", f": Modal has none of {', '.join(types)}. It has {', '.join(sorted(GPUS))}.")
