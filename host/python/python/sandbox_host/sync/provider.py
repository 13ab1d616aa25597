# Made by make_sync.py from ../provider.py.
"""A provider of sandboxes."""

from __future__ import annotations

import builtins
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._calls import Handle
from .._components import find_component
from .._convert import Seconds, local, millis, pairs, words
from ..records import BuiltImage, Description, Grant, SandboxInfo, Swept, Throttled
from ..specs import Image, ImageLike, Limits, SandboxSettings, SandboxSpec
from ._io import call, done
from .build import Build
from .sandbox import Sandbox

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Provider"]


class Provider(Handle):
    """An open provider: a component with its settings and credentials.

    >>> with Provider.open("memory") as provider:
    ...     print(provider.name, (provider.describe()).supports("create.tags"))
    memory True
    """

    name: str
    """The short name, such as `modal`."""

    run_id: str | None
    """The id of this run, which all its sandboxes carry as a tag. `None` without `owner`."""

    interface_version: str
    """The version of the interface that the component implements."""

    def __init__(self, number: int, name: str, run_id: str | None, interface_version: str) -> None:
        self._number = number
        self._closed = False
        self.name = name
        self.run_id = run_id
        self.interface_version = interface_version

    @staticmethod
    def open(
        component: str | os.PathLike[str],
        *,
        env: Mapping[str, str] | None = None,
        inherit_env: bool = True,
        profile: str | None = None,
        read_profiles: bool | None = None,
        anonymous: bool = False,
        credentials: Mapping[str, str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        grant_only: Sequence[str] | None = None,
        show_only: Sequence[str] | None = None,
        proxy: str | None = None,
        create_patience: Seconds | None = None,
        limits: Limits | None = None,
        owner: str | None = None,
        lease: Seconds | None = None,
    ) -> Provider:
        """Opens a provider, without a request. `with` closes it at the end of the block.

        - `component`: `modal`, `docker` or `memory`, which are parts of this package, or the path of a component.
        - `env`: settings of the provider. They take precedence over the variables of this process, which are used too
          unless `inherit_env` is false.
        - `profile`: the profile of the configuration file of the service; `read_profiles=False` ignores that file.
        - `anonymous`: adds no credentials. `credentials`: credentials by their names in the manifest.
        - `ca_file`: additional root certificates. `proxy`: the URL of a proxy, or `none`.
        - `grant_only`: restricts the origins that the provider may connect to; `show_only`: restricts the environment
          variables that it sees.
        - `create_patience`: how long the creation of a sandbox waits for capacity.
        - `owner` with `lease`: marks all sandboxes with this owner and renews their leases while this process lives.
          If it is killed, `sweep` of another process ends them. The lease is at least 30 seconds; default two minutes.
        """
        arguments = {
            "component": str(find_component(component)),
            "env": pairs(env, "env") or None,
            "inherit_env": inherit_env,
            "profile": profile,
            "read_profiles": read_profiles,
            "anonymous": anonymous or None,
            "credentials": pairs(credentials, "credentials") or None,
            "ca_file": None if ca_file is None else local(ca_file),
            "grant_only": None if grant_only is None else words(grant_only, "grant_only"),
            "show_only": None if show_only is None else words(show_only, "show_only"),
            "proxy": proxy,
            "create_patience_ms": millis(create_patience, "create_patience"),
            "limits": None if limits is None else limits.to_json(),
            "owner": owner,
            "lease_ms": millis(lease if lease is not None or owner is None else 120, "lease"),
        }
        return done(Provider._open(arguments))

    @staticmethod
    def _open(arguments: Mapping[str, Any]) -> Provider:
        reply = call("provider.open", **arguments)
        return Provider(reply["provider"], reply["name"], reply["run_id"], reply["interface_version"])

    def describe(self) -> Description:
        """Returns name, capabilities and settings. Sends no request."""
        return Description.from_json(call("provider.describe", provider=self._number))

    def check(self) -> None:
        """Checks address and credentials with one cheap request."""
        call("provider.check", provider=self._number)

    # ---- sandboxes --------------------------------------------------------------------------------------------

    def create(self, spec: SandboxSpec | None = None, /, **settings: Unpack[SandboxSettings]) -> Sandbox:
        """Creates a sandbox, from a specification, from settings, or from both.

        `with` terminates it at the end of the block; `await` gives a sandbox that stays.

            >>> with provider.create(tags={"purpose": "example"}) as sandbox:
            ...     print((sandbox.tags())["purpose"])
            example
        """
        return done(self._create(SandboxSpec.of(spec, settings)))

    def _create(self, spec: SandboxSpec) -> Sandbox:
        reply = call("sandbox.create", provider=self._number, spec=spec.to_json())
        info = SandboxInfo.from_json(reply["info"])
        return Sandbox(self, info.id, created=info, retries=int(reply.get("retries", 0)))

    def check_spec(self, spec: SandboxSpec | None = None, /, **settings: Unpack[SandboxSettings]) -> None:
        """Checks before spending: raises the error that `create` would raise, as far as that is known without a request.

        >>> provider.check_spec(cpu=2, cpu_limit=1)
        Traceback (most recent call last):
        sandbox_host.errors.InvalidArgumentError: ...
        """
        call("provider.check_spec", provider=self._number, spec=SandboxSpec.of(spec, settings).to_json())

    def sandbox(self, id: str, *, container: str | None = None, user: str | None = None) -> Sandbox:
        """Returns a sandbox by its id. Sends no request and does not check that it exists."""
        if not isinstance(id, str):
            raise TypeError(f"the id of a sandbox is a string, not {type(id).__name__}")
        return Sandbox(self, id, container=container, user=user)

    def find(self, name: str) -> Sandbox:
        """Returns the running sandbox with a name. Raises `NotFoundError` if there is none."""
        info = SandboxInfo.from_json(call("sandbox.find", provider=self._number, name=name))
        return Sandbox(self, info.id, created=info)

    def list(
        self,
        *,
        tags: Mapping[str, str] | None = None,
        include_ended: bool = False,
        all_apps: bool = False,
        max: int = 1000,
    ) -> builtins.list[SandboxInfo]:
        """Lists sandboxes that have all these tags, newest first, at most `max`."""
        reply = call(
            "sandbox.list",
            provider=self._number,
            tags=pairs(tags, "tags"),
            include_ended=include_ended,
            all_apps=all_apps,
            max=max,
        )
        return [SandboxInfo.from_json(each) for each in reply]

    def restore(self, snapshot: str, *, name: str | None = None) -> Sandbox:
        """Creates a sandbox from a memory snapshot."""
        reply = call("sandbox.restore", provider=self._number, snapshot=snapshot, name=name)
        return Sandbox(self, reply["sandbox"])

    def sweep(self, owner: str, *, dry_run: bool = False) -> builtins.list[Swept]:
        """Terminates the sandboxes of an owner whose leases have expired, and returns them."""
        reply = call("sandbox.sweep", provider=self._number, owner=owner, dry_run=dry_run)
        return [Swept(each["id"], each["run"], each["overdue_ms"] / 1000, each["terminated"]) for each in reply]

    def delete_snapshot(self, snapshot: str) -> None:
        """Deletes a memory snapshot. Succeeds if it does not exist."""
        call("snapshot.delete", provider=self._number, snapshot=snapshot)

    def delete_volume(self, name: str) -> None:
        """Deletes a volume and its files. Succeeds if it does not exist."""
        call("volume.delete", provider=self._number, name=name)

    # ---- images -----------------------------------------------------------------------------------------------

    def build(self, image: ImageLike) -> Build:
        """Starts the build of an image, or joins one. See `Build` for the log."""
        return done(self._build(Image.of(image)))

    def _build(self, image: Image) -> Build:
        reply = call("image.build", provider=self._number, image=image.to_json())
        return Build(reply["build"], [str(each) for each in reply.get("skipped") or []])

    def image(self, id: str) -> BuiltImage:
        """Looks an image up by its id."""
        return BuiltImage.from_json(call("image.get", provider=self._number, image=id))

    def delete_image(self, id: str) -> None:
        """Deletes an image. Succeeds if it does not exist."""
        call("image.delete", provider=self._number, image=id)

    def list_images(self, max: int = 1000) -> builtins.list[BuiltImage]:
        """Lists the images that the provider has stored, newest first."""
        return [BuiltImage.from_json(each) for each in call("image.list", provider=self._number, max=max)]

    # ---- the host ---------------------------------------------------------------------------------------------

    def warm_up(self, instances: int) -> None:
        """Creates instances of the component before they are needed."""
        call("provider.warm_up", provider=self._number, instances=instances)

    def metrics(self) -> dict[str, float]:
        """Returns the counters of the host since the provider was opened: calls, requests, bytes, connections."""
        reply = call("provider.metrics", provider=self._number)
        return {name: value for name, value in reply.items() if isinstance(value, (int, float))}

    def prometheus(self) -> str:
        """Returns the counters in the text format of Prometheus."""
        return str((call("provider.metrics", provider=self._number))["prometheus"])

    def throttled(self) -> Throttled:
        """Returns the waits that the service asked for in creations."""
        reply = call("provider.throttled", provider=self._number)
        return Throttled(int(reply["count"]), reply["remaining_ms"] / 1000)

    def grants(self) -> builtins.list[Grant]:
        """Returns the origins that the provider may connect to."""
        reply = call("provider.grants", provider=self._number)
        return [Grant(each["origin"], {name: value for name, value in each.items() if name != "origin"}) for each in reply]

    def shutdown(self, grace: Seconds = 10) -> int:
        """Waits up to `grace` for the calls that are under way, cancels the others, and closes the provider.

        What was opened through it is closed too: see `close`. Returns the number of cancelled calls.
        """
        reply = call("provider.shutdown", provider=self._number, grace_ms=millis(grace, "grace"))
        self._closed = True
        return int(reply["cancelled"])

    def close(self) -> None:
        """Closes the provider at once, and everything that was opened through it.

        Calls that are under way fail. Their commands are killed, and those of processes that were not detached. Forwarded
        ports and watches end. Later calls raise `ClosedError`. Sandboxes keep running. Closing twice is no error.
        """
        if not self._closed:
            self._closed = True
            call("provider.shutdown", provider=self._number, grace_ms=0)

    def __enter__(self) -> Provider:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Provider {self.name}{' closed' if self._closed else ''}>"
