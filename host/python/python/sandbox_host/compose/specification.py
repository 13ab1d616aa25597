"""Turns services of a plan into the specifications of this package: images, sidecars and network policies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..specs import Dockerfile, Image, Login, Network, SidecarSpec, VolumeMount
from .plan import Service

BuiltImage = tuple[str, "str | None"]
"""The id of an image, and its working directory if known."""


def image_specification(definition: Mapping[str, Any]) -> Image:
    """Returns the image for a definition.

    A definition has a `source`, which is `{"id": …}`, `{"named": …}`, `{"registry": {"reference", "login_secret"}}` or
    `{"dockerfile": {"text", "path", "context", "build_args", "target", "login_secret"}}`, and optionally further `commands`,
    `secrets` of the build, and `force`.
    """
    ((kind, source),) = definition["source"].items()
    settings: dict[str, Any] = {name: definition[name] for name in ("commands", "secrets", "force") if name in definition}
    match kind:
        case "id":
            return Image(id=source, **settings)
        case "named":
            return Image(named=source, **settings)
        case "registry":
            return Image(registry=source["reference"], login=_login(source), **settings)
    # A text that was not changed is read from its file again, which may have a `.dockerignore` of its own beside it.
    path = source.get("path")
    dockerfile = Dockerfile(
        path=path,
        text=source["text"] if path is None else None,
        context=source["context"],
        build_args=dict(source.get("build_args") or []),
        target=source.get("target"),
        login=_login(source),
    )
    return Image(dockerfile=dockerfile, **settings)


def directories_definition(image: BuiltImage, directories: Sequence[str], *, as_volumes: bool = False) -> dict[str, Any]:
    """Returns the definition of an image in which these directories exist. With `as_volumes`, they become volumes of the
    image, which makes them in each container. Neither form needs a shell in the image, and existing directories keep their
    content."""
    identity, workdir = image
    if as_volumes:
        # Podman creates only the last of several working directories.
        lines = [f"VOLUME {json.dumps(list(directories))}"]
    else:
        # The last line restores the working directory of the image.
        lines = [f"WORKDIR {directory}" for directory in [*directories, workdir or "/"]]
    return {"source": {"id": identity}, "commands": lines}


def sidecar_specification(service: Service, image: str) -> SidecarSpec:
    """Returns the specification of a sidecar."""
    return SidecarSpec(
        name=service.name,
        image=Image(id=image),
        command=service.command or None,
        env=service.env,
        secrets=service.secrets,
        workdir=service.workdir,
        volumes=[VolumeMount(**volume) for volume in service.volumes],
        network=network(service.outbound),
    )


def network(outbound: Any, inbound_cidrs: Any = ()) -> Network:
    """Returns the network policy of a container.

    Services of an internal network reach each other and nothing else. An empty allow-list does that; a container whose network
    is blocked has no address at which the others reach it.
    """
    if outbound == "internal":
        return Network(outbound="allowed", inbound_cidrs=inbound_cidrs)
    if isinstance(outbound, str):
        return Network(outbound=outbound, inbound_cidrs=inbound_cidrs)
    allowed = outbound["allowed"]
    return Network(
        outbound="allowed",
        cidrs=allowed.get("cidrs") or (),
        domains=allowed.get("domains") or (),
        inbound_cidrs=inbound_cidrs,
    )


def _login(source: Mapping[str, Any]) -> Login | None:
    secret = source.get("login_secret")
    return None if secret is None else Login(secret)
