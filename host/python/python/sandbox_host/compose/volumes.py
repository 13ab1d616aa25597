"""The mounts of services: volumes at the provider, directories of the container, and copies of local files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .document import text
from .traits import Traits
from .values import flag, refuse


class Mounted:
    """The mounts of one service."""

    def __init__(self) -> None:
        self.volumes: list[dict[str, Any]] = []
        """Volumes at the provider. Those with the key `sample` are created for each sample."""
        self.directories: list[str] = []
        """Directories of the container itself."""
        self.copies: list[tuple[Path, str]] = []
        """Local files and directories, each with the path that it is copied to."""


class Volumes:
    """The named volumes of a document."""

    def __init__(
        self,
        named: Mapping[str, Any],
        bodies: Mapping[str, Mapping[str, Any]],
        where: str,
        warnings: list[str],
        traits: Traits,
    ) -> None:
        self.named = {str(name): options or {} for name, options in named.items()}
        self.warnings = warnings
        self.traits = traits
        self.where = where
        self.users: dict[str, set[str]] = {}
        """The services that mount each volume."""
        self.mounts: dict[str, int] = {}
        """How often each volume is mounted."""
        for service, body in bodies.items():
            for mount in body.get("volumes") or []:
                if mount.get("type") == "volume" and mount.get("source"):
                    source = text(mount["source"])
                    self.users.setdefault(source, set()).add(service)
                    self.mounts[source] = self.mounts.get(source, 0) + 1

    def of(self, service: str, mounts: list[Mapping[str, Any]], where: str) -> Mounted:
        """Returns the mounts of one service.

        Raises:
            ComposeError: if a mount is wrong or not supported.
        """
        made = Mounted()
        for mount in mounts:
            target, source = text(mount["target"]), text(mount.get("source"))
            read_only = flag(mount.get("read_only"), f"{where}.read_only")
            if not target.startswith("/"):
                refuse(where, f": {target} is not an absolute path.")
            match mount["type"]:
                case "tmpfs":
                    made.directories.append(target)
                case "volume" if not source:
                    # An anonymous volume.
                    made.directories.append(target)
                case "volume":
                    self._mount_named(made, source, target, read_only, mount, where)
                case "bind":
                    if not source:
                        refuse(where, f": the mount at {target} has no source.")
                    if not read_only:
                        refuse(
                            where,
                            f": {source} is on this machine, and a sandbox cannot write to it. To copy it into the sandbox, "
                            "add `:ro`. Otherwise copy it into the image, or use the sample's files.",
                        )
                    made.copies.append((Path(source), target))
                case other:
                    refuse(where, f": mounts of the type {other} are not supported.")
        return made

    def _mount_named(
        self, made: Mounted, source: str, target: str, read_only: bool, mount: Mapping[str, Any], where: str
    ) -> None:
        if source not in self.named:
            refuse(where, f": there is no volume {source} under the key volumes. A path begins with `.` or `/`.")
        options = self.named[source]
        at = f"{self.where}: volumes.{source}"
        if options.get("driver_opts") or options.get("driver") not in (None, "local", "default"):
            kind = text((options.get("driver_opts") or {}).get("type"))
            if kind != "tmpfs":
                refuse(f"{at}.driver_opts" if options.get("driver_opts") else f"{at}.driver", " is not supported.")
        external = options.get("external")
        shared = isinstance(external, Mapping) or flag(external, f"{at}.external") or options.get("name") is not None
        sub_path = text((mount.get("volume") or {}).get("subpath")) or None
        if shared:
            name = options.get("name") or (external.get("name") if isinstance(external, Mapping) else None) or source
            self._warn(f"{at} is the volume {text(name)} {self.traits.at}: all samples share it, and it is not deleted.")
            entry = {"volume": text(name), "create": not external}
        elif self.mounts[source] == 1 and sub_path is None:
            # No other container sees it, so a directory of this one does the same. As with Docker, it has the content of the
            # image.
            made.directories.append(target)
            return
        else:
            if len(self.users[source]) > 1:
                self._warn(
                    f"{at} is a volume {self.traits.at}, because several services mount it. A running service sees what "
                    "another one writes only after it has reloaded the volume. What the images have at its path is not visible."
                )
            entry = {"volume": source, "create": True, "sample": True}
        made.volumes.append({**entry, "path": target, "read_only": read_only, "sub_path": sub_path})

    def _warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)
