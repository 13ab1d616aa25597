"""A provider of sandboxes."""

from __future__ import annotations

import builtins
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._calls import Handle
from ._components import find_component
from ._convert import Seconds, local, millis, pairs, words
from ._io import Pending, call, finish
from .build import Build
from .records import BuiltImage, Description, Grant, SandboxInfo, Swept, Throttled
from .sandbox import Sandbox
from .specs import Image, ImageLike, Limits, SandboxSettings, SandboxSpec

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Provider"]


class Provider(Handle):
    """An open provider: a component with its settings and credentials.

    >>> async with Provider.open("memory") as provider:
    ...     print(provider.name, (await provider.describe()).supports("create.tags"))
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
    ) -> Pending[Provider, Provider]:
        """Opens a provider, without a request. `async with` closes it at the end of the block.

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
        return Pending(Provider._open(arguments))

    @staticmethod
    async def _open(arguments: Mapping[str, Any]) -> Provider:
        reply = await call("provider.open", **arguments)
        return Provider(reply["provider"], reply["name"], reply["run_id"], reply["interface_version"])

    async def describe(self) -> Description:
        """Returns name, capabilities and settings. Sends no request."""
        return Description.from_json(await call("provider.describe", provider=self._number))

    async def check(self) -> None:
        """Checks address and credentials with one cheap request."""
        await call("provider.check", provider=self._number)

    # ---- sandboxes --------------------------------------------------------------------------------------------

    def create(self, spec: SandboxSpec | None = None, /, **settings: Unpack[SandboxSettings]) -> Pending[Sandbox, Sandbox]:
        """Creates a sandbox, from a specification, from settings, or from both.

        `async with` terminates it at the end of the block; `await` gives a sandbox that stays.

            >>> async with provider.create(tags={"purpose": "example"}) as sandbox:
            ...     print((await sandbox.tags())["purpose"])
            example
        """
        return Pending(self._create(SandboxSpec.of(spec, settings)))

    async def _create(self, spec: SandboxSpec) -> Sandbox:
        reply = await call("sandbox.create", provider=self._number, spec=spec.to_json())
        info = SandboxInfo.from_json(reply["info"])
        return Sandbox(self, info.id, created=info, retries=int(reply.get("retries", 0)))

    async def check_spec(self, spec: SandboxSpec | None = None, /, **settings: Unpack[SandboxSettings]) -> None:
        """Checks before spending: raises the error that `create` would raise, as far as that is known without a request.

        >>> await provider.check_spec(cpu=2, cpu_limit=1)
        Traceback (most recent call last):
        sandbox_host.errors.InvalidArgumentError: ...
        """
        await call("provider.check_spec", provider=self._number, spec=SandboxSpec.of(spec, settings).to_json())

    def sandbox(self, id: str, *, container: str | None = None, user: str | None = None) -> Sandbox:
        """Returns a sandbox by its id. Sends no request and does not check that it exists."""
        if not isinstance(id, str):
            raise TypeError(f"the id of a sandbox is a string, not {type(id).__name__}")
        return Sandbox(self, id, container=container, user=user)

    async def find(self, name: str) -> Sandbox:
        """Returns the running sandbox with a name. Raises `NotFoundError` if there is none."""
        info = SandboxInfo.from_json(await call("sandbox.find", provider=self._number, name=name))
        return Sandbox(self, info.id, created=info)

    async def list(
        self,
        *,
        tags: Mapping[str, str] | None = None,
        include_ended: bool = False,
        all_apps: bool = False,
        max: int = 1000,
    ) -> builtins.list[SandboxInfo]:
        """Lists sandboxes that have all these tags, newest first, at most `max`."""
        reply = await call(
            "sandbox.list",
            provider=self._number,
            tags=pairs(tags, "tags"),
            include_ended=include_ended,
            all_apps=all_apps,
            max=max,
        )
        return [SandboxInfo.from_json(each) for each in reply]

    async def restore(self, snapshot: str, *, name: str | None = None) -> Sandbox:
        """Creates a sandbox from a memory snapshot."""
        reply = await call("sandbox.restore", provider=self._number, snapshot=snapshot, name=name)
        return Sandbox(self, reply["sandbox"])

    async def sweep(self, owner: str, *, dry_run: bool = False) -> builtins.list[Swept]:
        """Terminates the sandboxes of an owner whose leases have expired, and returns them."""
        reply = await call("sandbox.sweep", provider=self._number, owner=owner, dry_run=dry_run)
        return [Swept(each["id"], each["run"], each["overdue_ms"] / 1000, each["terminated"]) for each in reply]

    async def delete_snapshot(self, snapshot: str) -> None:
        """Deletes a memory snapshot. Succeeds if it does not exist."""
        await call("snapshot.delete", provider=self._number, snapshot=snapshot)

    async def delete_volume(self, name: str) -> None:
        """Deletes a volume and its files. Succeeds if it does not exist."""
        await call("volume.delete", provider=self._number, name=name)

    # ---- images -----------------------------------------------------------------------------------------------

    def build(self, image: ImageLike) -> Pending[Build, Build]:
        """Starts the build of an image, or joins one. See `Build` for the log."""
        return Pending(self._build(Image.of(image)))

    async def _build(self, image: Image) -> Build:
        reply = await call("image.build", provider=self._number, image=image.to_json())
        return Build(reply["build"], [str(each) for each in reply.get("skipped") or []])

    async def image(self, id: str) -> BuiltImage:
        """Looks an image up by its id."""
        return BuiltImage.from_json(await call("image.get", provider=self._number, image=id))

    async def delete_image(self, id: str) -> None:
        """Deletes an image. Succeeds if it does not exist."""
        await call("image.delete", provider=self._number, image=id)

    async def list_images(self, max: int = 1000) -> builtins.list[BuiltImage]:
        """Lists the images that the provider has stored, newest first."""
        return [BuiltImage.from_json(each) for each in await call("image.list", provider=self._number, max=max)]

    # ---- the host ---------------------------------------------------------------------------------------------

    async def warm_up(self, instances: int) -> None:
        """Creates instances of the component before they are needed."""
        await call("provider.warm_up", provider=self._number, instances=instances)

    async def metrics(self) -> dict[str, float]:
        """Returns the counters of the host since the provider was opened: calls, requests, bytes, connections."""
        reply = await call("provider.metrics", provider=self._number)
        return {name: value for name, value in reply.items() if isinstance(value, (int, float))}

    async def prometheus(self) -> str:
        """Returns the counters in the text format of Prometheus."""
        return str((await call("provider.metrics", provider=self._number))["prometheus"])

    async def throttled(self) -> Throttled:
        """Returns the waits that the service asked for in creations."""
        reply = await call("provider.throttled", provider=self._number)
        return Throttled(int(reply["count"]), reply["remaining_ms"] / 1000)

    async def grants(self) -> builtins.list[Grant]:
        """Returns the origins that the provider may connect to."""
        reply = await call("provider.grants", provider=self._number)
        return [Grant(each["origin"], {name: value for name, value in each.items() if name != "origin"}) for each in reply]

    async def shutdown(self, grace: Seconds = 10) -> int:
        """Waits up to `grace` for the calls that are under way, cancels the others, and closes the provider.

        What was opened through it is closed too: see `close`. Returns the number of cancelled calls.
        """
        reply = await call("provider.shutdown", provider=self._number, grace_ms=millis(grace, "grace"))
        self._closed = True
        return int(reply["cancelled"])

    async def close(self) -> None:
        """Closes the provider at once, and everything that was opened through it.

        Calls that are under way fail. Their commands are killed, and those of processes that were not detached. Forwarded
        ports and watches end. Later calls raise `ClosedError`. Sandboxes keep running. Closing twice is no error.
        """
        if not self._closed:
            self._closed = True
            await finish(call("provider.shutdown", provider=self._number, grace_ms=0))

    async def __aenter__(self) -> Provider:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Provider {self.name}{' closed' if self._closed else ''}>"
