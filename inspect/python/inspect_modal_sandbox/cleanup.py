"""`inspect sandbox cleanup TYPE [id]`: terminates sandboxes of this owner. It runs in a process of its own."""

from __future__ import annotations

import os
import sys
import time

from inspect_ai._util.error import PrerequisiteError

from .kinds import Kind
from .lifecycle.tags import LEASE_TAG, OWNER_TAG
from .lifecycle.volumes import volumes_of
from .nativeerror import NativeError
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
        found = await provider.list([(OWNER_TAG, own)], MAX_SANDBOXES, all_apps=True)
    except NativeError as error:
        raise PrerequisiteError(error.message) from None
    if id is not None:
        found = [sandbox for sandbox in found if id in (sandbox[0], sandbox[1])]
        if not found:
            raise PrerequisiteError(f"There is no live sandbox {id!r} of {own} {kind.place()}.")
    if not found:
        print(f"There are no sandboxes of {own} {kind.place()}.")
        return
    print(f"Sandboxes of {own} {kind.place()}:")
    now = time.time() * 1000
    for sandbox, name, created, pairs in found:
        tags = dict(pairs)
        age = f"{max(now - created, 0) / 60000:.0f} min" if created else ""
        lease = tags.get(LEASE_TAG, "")
        state = "in use" if lease.isdigit() and int(lease) > now else "left"
        about = " ".join(tags.get(f"inspect-{key}", "") for key in ("task", "sample")).strip()
        print(f"  {sandbox}  {state:<7} {age:>8}  {about or name or ''}".rstrip())
    if not _confirmed(len(found)):
        print("Nothing was terminated.")
        return
    left = []
    for sandbox, _, _, pairs in found:
        try:
            await provider.terminate(sandbox)
            for volume in volumes_of(dict(pairs)):
                await provider.delete_volume(volume)
            print(f"Terminated {sandbox}")
        except NativeError as error:
            left.append(sandbox)
            print(f"Not terminated: {sandbox}: {error.message}", file=sys.stderr)
    if left:
        print(f"Still there: {', '.join(left)}", file=sys.stderr)
        sys.exit(1)


def _confirmed(number: int) -> bool:
    """Asks for confirmation on a terminal. Returns true without a question elsewhere, and in CI and tests."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("CI") or os.environ.get("PYTEST_CURRENT_TEST"):
        return True
    answer = input(f"Terminate {'it' if number == 1 else f'these {number}'}? [y/N] ")
    return answer.strip().lower() in ("y", "yes")
