"""`inspect sandbox cleanup modal [id]`: ends sandboxes of this owner, in a process of its own."""

from __future__ import annotations

import os
import sys
import time

from inspect_ai._util.error import PrerequisiteError

from .lifecycle import volumes_of
from .nativeerror import NativeError
from .provider import opened, owner

MOST = 10_000
"""Sandboxes that one clean-up looks at."""

OWNER_TAG = "sandbox-owner"
LEASE_TAG = "sandbox-lease"


async def run(id: str | None) -> None:
    """Lists, asks where somebody can answer, and terminates. Ends the process with code 1 and names when some are left."""
    provider = await opened()
    try:
        # The tags decide, for one id as well: what is not ours is not touched, whatever was typed.
        found = await provider.list([(OWNER_TAG, owner())], MOST, all_apps=True)
    except NativeError as error:
        raise PrerequisiteError(error.message) from None
    if id is not None:
        found = [sandbox for sandbox in found if id in (sandbox[0], sandbox[1])]
        if not found:
            raise PrerequisiteError(f"There is no live sandbox {id!r} of {owner()} {_where()}.")
    if not found:
        print(f"There are no sandboxes of {owner()} {_where()}.")
        return
    print(f"Sandboxes of {owner()} {_where()}:")
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


def _where() -> str:
    """Where was looked."""
    environment = os.environ.get("MODAL_ENVIRONMENT")
    server = os.environ.get("MODAL_SERVER_URL")
    place = f"the environment {environment}" if environment else "the default environment"
    return f"in all apps of {place}" + (f" at {server}" if server else "")


def _confirmed(number: int) -> bool:
    """Asks on a terminal only, and never where nobody watches."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("CI") or os.environ.get("PYTEST_CURRENT_TEST"):
        return True
    answer = input(f"Terminate {'it' if number == 1 else f'these {number}'}? [y/N] ")
    return answer.strip().lower() in ("y", "yes")
