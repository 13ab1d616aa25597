"""The extensions `x-modal` and `x-inspect_modal_sandbox` of a document.

Older plugins introduced both. If a key stands under both, `x-modal` wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .document import pairs, text
from .plan import Plan, parse_gpu
from .traits import Traits
from .values import flag, refuse, text_list, texts, whole

NARROWING = {"cidr_allowlist", "outbound_cidr_allowlist", "outbound_domain_allowlist", "inbound_cidr_allowlist"}
"""Keys without which a sandbox would reach more, or be reached by more."""


def apply_extensions(document: Mapping[str, Any], where: str, result: Plan, traits: Traits) -> None:
    """Changes the plan by what the extensions say.

    Raises:
        ComposeError: if a key is not known or a value is wrong.
    """
    options: dict[str, Any] = dict(result.sandbox.get("options", []))
    for key in ("x-inspect_modal_sandbox", "x-modal"):
        body = document.get(key) or {}
        if not isinstance(body, Mapping):
            refuse(f"{where}: {key}", " is not a mapping.")
        for name, value in body.items():
            if value is None:
                continue
            if traits.extensions is not None and name not in traits.extensions:
                if name in NARROWING:
                    refuse(f"{where}: {key}.{name}", f" is not supported by the sandbox type {traits.name}.")
                result.warnings.append(f"{where}: {key}.{name} has no effect with the sandbox type {traits.name}.")
            else:
                _apply(str(name), value, f"{where}: {key}.{name}", result, options)
    if options:
        result.sandbox["options"] = list(options.items())


def _apply(name: str, value: Any, at: str, result: Plan, options: dict[str, Any]) -> None:
    """Applies one key."""
    main = result.services[0]
    match name:
        case "block_network":
            _set_outbound(result, "blocked" if flag(value, at) else "open")
        case "cidr_allowlist" | "outbound_cidr_allowlist":
            _allow_list(result)["cidrs"] = text_list(value)
        case "outbound_domain_allowlist":
            _allow_list(result)["domains"] = text_list(value)
        case "inbound_cidr_allowlist":
            result.sandbox["inbound_cidrs"] = text_list(value)
        case "timeout":
            result.sandbox["lifetime_secs"] = whole(value, at)
        case "idle_timeout":
            result.sandbox["idle_timeout_secs"] = whole(value, at)
        case "verbose":
            options[name] = flag(value, at)
        case "cloud" | "custom_domain":
            options[name] = text(value)
        case "region":
            result.sandbox["regions"] = text_list(value)
        case "gpu":
            result.sandbox["gpu"] = parse_gpu(text(value))
        case "pty":
            result.sandbox["pty"] = flag(value, at)
        case "encrypted_ports" | "h2_ports" | "unencrypted_ports":
            kind = {"encrypted_ports": "tls", "h2_ports": "h2", "unencrypted_ports": "tcp"}[name]
            ports = [whole(port, at) for port in (value if isinstance(value, list) else [value])]
            # The extension also sets the kind of a port that the key `ports` names.
            others = [pair for pair in result.sandbox["ports"] if pair[0] not in ports]
            result.sandbox["ports"] = others + [[port, kind] for port in ports]
        case "secrets":
            main.secrets = text_list(value)
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
            result.tags |= texts(pairs(value, at), {})
        case "options" | "experimental_options":
            if not isinstance(value, Mapping):
                refuse(at, " is not a mapping.")
            if name == "options":
                options |= dict(value)
            else:
                options["experimental"] = {**options.get("experimental", {}), **value}
        case _:
            refuse(at, " is not known.")


def _modal_volume(entry: Any, where: str) -> dict[str, Any]:
    """Returns the mount of an existing Modal volume: `{name: …, mount_path: …, read_only: …}`."""
    if not isinstance(entry, Mapping) or not entry.get("name") or not entry.get("mount_path"):
        refuse(where, ": give name and mount_path of each volume.")
    unknown = set(entry) - {"name", "mount_path", "read_only"}
    if unknown:
        refuse(where, f": {', '.join(sorted(unknown))} is not known. A volume has name, mount_path and read_only.")
    return {
        "volume": text(entry["name"]),
        "path": text(entry["mount_path"]),
        "read_only": flag(entry.get("read_only"), f"{where}.read_only"),
        "sub_path": None,
        "create": False,
    }


def _set_outbound(result: Plan, outbound: Any) -> None:
    """Sets the network of all services. If it is blocked, services that reach each other still do."""
    main, *others = result.services
    result.outbound = "internal" if outbound == "blocked" and main.peers else outbound
    for service in others:
        service.outbound = "internal" if outbound == "blocked" else outbound


def _allow_list(result: Plan) -> dict[str, Any]:
    """Returns the allow-list of the sandbox, which starts empty."""
    if not isinstance(result.outbound, dict):
        _set_outbound(result, {"allowed": {"cidrs": [], "domains": []}})
    allowed: dict[str, Any] = result.outbound["allowed"]
    return allowed
