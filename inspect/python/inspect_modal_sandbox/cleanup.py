"""`inspect sandbox cleanup TYPE [id]`: terminates sandboxes of this owner. It runs in a process of its own."""

from __future__ import annotations

import os
import sys
import time

from inspect_ai._util.error import PrerequisiteError
from sandbox_host import SandboxError

from .kinds import Kind
from .lifecycle.tags import LEASE_TAG, OWNER_TAG
from .lifecycle.volumes import volumes_of
from .provider import opened, owner

MAX_SANDBOXES = 10_000
"""The number of sandboxes that one clean-up looks at."""


async def run(kind: Kind, id: str | None) -> None:
    """Lists the owner's sandboxes, asks for confirmation on a terminal, and terminates them. With an id, only that one.

    Exits with code 1 if a sandbox could not be terminated, and names it on standard error.

    Raises:
        PrerequisiteError: if they cannot be listed, or there is no sandbox with that id.
    """
    provider = await opened(kind=kind)
    own = owner(kind)
    try:
        # Also for a single id: sandboxes with another owner's tag must not be terminated.
        found = await provider.list(tags={OWNER_TAG: own}, max=MAX_SANDBOXES, all_apps=True)
    except SandboxError as error:
        raise PrerequisiteError(error.message) from None
    if id is not None:
        found = [sandbox for sandbox in found if id in (sandbox.id, sandbox.name)]
        if not found:
            raise PrerequisiteError(f"There is no live sandbox {id!r} of {own} {kind.place()}.")
    if not found:
        print(f"There are no sandboxes of {own} {kind.place()}.")
        return
    print(f"Sandboxes of {own} {kind.place()}:")
    now = time.time()
    for sandbox in found:
        tags = sandbox.tags
        age = f"{max(now - sandbox.created.timestamp(), 0) / 60:.0f} min" if sandbox.created else ""
        lease = tags.get(LEASE_TAG, "")
        state = "in use" if lease.isdigit() and int(lease) > now * 1000 else "left"
        about = " ".join(tags.get(f"inspect-{key}", "") for key in ("task", "sample")).strip()
        print(f"  {sandbox.id}  {state:<7} {age:>8}  {about or sandbox.name or ''}".rstrip())
    if not _confirmed(len(found)):
        print("Nothing was terminated.")
        return
    left = []
    for sandbox in found:
        try:
            await provider.sandbox(sandbox.id).terminate()
            for volume in volumes_of(sandbox.tags):
                await provider.delete_volume(volume)
            print(f"Terminated {sandbox.id}")
        except SandboxError as error:
            left.append(sandbox.id)
            print(f"Not terminated: {sandbox.id}: {error.message}", file=sys.stderr)
    if left:
        print(f"Still there: {', '.join(left)}", file=sys.stderr)
        sys.exit(1)


def _confirmed(number: int) -> bool:
    """Asks for confirmation on a terminal. Returns true without a question elsewhere, and in CI and tests."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("CI") or os.environ.get("PYTEST_CURRENT_TEST"):
        return True
    answer = input(f"Terminate {'it' if number == 1 else f'these {number}'}? [y/N] ")
    return answer.strip().lower() in ("y", "yes")
