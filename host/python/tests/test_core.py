"""The group `core` of the conformance kit, written again over the package, for the providers in memory and for Modal."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import pytest_asyncio
from conftest import until
from sandbox_host import (
    AlreadyExistsError,
    ConflictError,
    Description,
    FileNotFoundInSandboxError,
    NotFoundError,
    Probe,
    Provider,
    Sandbox,
)

END = 60
"""How long the end of a sandbox may take after it was caused, in seconds."""


class World:
    """A provider and the sandboxes of a test, which are terminated at its end."""

    def __init__(self, name: str, provider: Provider, description: Description, stack: AsyncExitStack) -> None:
        self.name = name
        self.provider = provider
        self.description = description
        self.stack = stack

    async def create(self, **settings: Any) -> Sandbox:
        return await self.stack.enter_async_context(self.provider.create(**settings))

    async def other(self) -> Provider:
        """Another provider over the same service. The provider in memory has no service."""
        if self.name == "memory":
            return self.provider
        return await self.stack.enter_async_context(Provider.open(self.name))

    def needs(self, *capabilities: str, shell: bool = False) -> None:
        """Skips the test if the provider lacks something."""
        for capability in capabilities:
            if not self.description.supports(capability):
                pytest.skip(f"the provider has no `{capability}`")
        if shell and self.name == "memory":
            pytest.skip("the sandboxes have no shell")

    async def ended(self) -> Sandbox:
        """A sandbox that was terminated."""
        sandbox = await self.create()
        await sandbox.terminate()
        assert await sandbox.wait(END) is not None
        return sandbox

    async def unknown(self) -> Sandbox:
        """A sandbox that does not exist."""
        known = (await self.create()).id
        return self.provider.sandbox(known[:-1] + ("a" if known[-1] != "a" else "b"))


@pytest_asyncio.fixture(params=["memory", "modal"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(Provider.open(request.param))
        yield World(request.param, provider, await provider.describe(), stack)


def fresh() -> str:
    return uuid.uuid4().hex


@pytest.mark.asyncio
async def test_create(world: World) -> None:
    sandbox = await world.create()
    assert sandbox.created is not None and sandbox.created.id == sandbox.id
    assert sandbox.created.state.kind != "ended"
    info = await sandbox.info()
    assert info.id == sandbox.id and info.state.kind != "ended"


@pytest.mark.asyncio
async def test_create_gives_new_ids(world: World) -> None:
    assert (await world.create()).id != (await world.create()).id


@pytest.mark.asyncio
async def test_create_with_one_key(world: World) -> None:
    world.needs("create.idempotent")
    key = fresh()
    first, again = await world.create(key=key), await world.create(key=key)
    async with (await world.other()).create(key=key) as other:
        assert first.id == again.id == other.id


@pytest.mark.asyncio
async def test_create_with_another_key(world: World) -> None:
    world.needs("create.idempotent")
    assert (await world.create(key=fresh())).id != (await world.create(key=fresh())).id


@pytest.mark.asyncio
async def test_created_time(world: World) -> None:
    created = (await (await world.create()).info()).created
    if created is not None:
        assert abs(datetime.now(timezone.utc) - created) < timedelta(days=1)


@pytest.mark.asyncio
async def test_id_characters(world: World) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,256}", (await world.create()).id)


@pytest.mark.asyncio
async def test_user(world: World) -> None:
    world.needs("create.user", shell=True)
    sandbox = await world.create()
    wanted = (await sandbox.run("id -u nobody")).check().text
    other = await world.create(user="nobody")
    assert (await other.run("id -u")).check().text == wanted


@pytest.mark.asyncio
async def test_get_unknown(world: World) -> None:
    with pytest.raises(NotFoundError) as error:
        await (await world.unknown()).info()
    assert error.value.happened == "no"


@pytest.mark.asyncio
@pytest.mark.parametrize("timeout", [0.0, 0.3])
async def test_wait_running(world: World, timeout: float) -> None:
    sandbox = await world.create()
    assert await asyncio.wait_for(sandbox.wait(timeout), timeout + 20) is None


@pytest.mark.asyncio
async def test_wait_reason(world: World) -> None:
    sandbox = await world.create()
    waiting = asyncio.create_task(sandbox.wait(END))
    await asyncio.sleep(0)
    await sandbox.terminate()
    reason = await waiting
    assert reason is not None and reason.kind == "terminated"


@pytest.mark.asyncio
async def test_wait_again(world: World) -> None:
    ended = await world.ended()
    for provider in (world.provider, await world.other()):
        reason = await provider.sandbox(ended.id).wait(END)
        assert reason is not None and reason.kind == "terminated"


@pytest.mark.asyncio
async def test_terminate_again(world: World) -> None:
    ended = await world.ended()
    await ended.terminate()
    await (await world.other()).sandbox(ended.id).terminate()


@pytest.mark.asyncio
async def test_terminate_unknown(world: World) -> None:
    with pytest.raises(NotFoundError):
        await (await world.unknown()).terminate()


@pytest.mark.asyncio
async def test_get_ended(world: World) -> None:
    state = (await (await world.ended()).info()).state
    assert state.kind == "ended" and state.end is not None and state.end.kind == "terminated"


@pytest.mark.asyncio
async def test_list_has_created(world: World) -> None:
    sandbox = await world.create()
    assert [info.id for info in await world.provider.list(max=5000)].count(sandbox.id) == 1


@pytest.mark.asyncio
async def test_list_newest_first(world: World) -> None:
    first = await world.create()
    # Services record the time of creation in seconds or finer.
    await asyncio.sleep(1.1)
    second = await world.create()
    ids = [info.id for info in await world.provider.list(max=5000)]
    assert ids.index(second.id) < ids.index(first.id)


@pytest.mark.asyncio
async def test_list_has_at_most_max(world: World) -> None:
    made = {(await world.create()).id for _ in range(3)}
    assert len(await world.provider.list(max=2)) == 2
    ids = [info.id for info in await world.provider.list(max=5000)]
    assert len(ids) == len(set(ids)) and made <= set(ids)


@pytest.mark.asyncio
async def test_list_without_ended(world: World) -> None:
    ended = await world.ended()
    assert ended.id not in [info.id for info in await world.provider.list(max=5000)]
    every = await world.provider.list(include_ended=True, max=5000)
    assert all(info.state.kind == "ended" for info in every if info.id == ended.id)


@pytest.mark.asyncio
async def test_list_by_tags(world: World) -> None:
    world.needs("create.tags")
    mark = fresh()
    one = await world.create(tags={"test": mark, "part": "one"})
    two = await world.create(tags={"test": mark, "part": "two"})

    async def ids(**tags: str) -> set[str]:
        return {info.id for info in await world.provider.list(tags=tags)}

    assert await ids(test=mark) == {one.id, two.id}
    assert await ids(test=mark, part="two") == {two.id}
    assert await ids(test=mark, part="three") == set()


@pytest.mark.asyncio
async def test_tags(world: World) -> None:
    world.needs("create.tags")
    sandbox = await world.create(tags={"a": "1", "b": "later"})
    for provider in (world.provider, await world.other()):
        assert await provider.sandbox(sandbox.id).tags() == {"a": "1", "b": "later"}


@pytest.mark.asyncio
async def test_tags_in_list(world: World) -> None:
    world.needs("create.tags")
    mark = fresh()
    sandbox = await world.create(tags={"test": mark})
    tags = {info.id: info.tags for info in await world.provider.list(max=5000)}
    assert tags[sandbox.id]["test"] == mark


@pytest.mark.asyncio
async def test_set_tags(world: World) -> None:
    world.needs("create.tags", "tags.update")
    sandbox = await world.create(tags={"before": "1"})
    for _ in range(2):
        await sandbox.set_tags({"after": "2"})
        assert await (await world.other()).sandbox(sandbox.id).tags() == {"after": "2"}


@pytest.mark.asyncio
async def test_tags_of_unknown(world: World) -> None:
    world.needs("create.tags")
    with pytest.raises(NotFoundError):
        await (await world.unknown()).tags()


@pytest.mark.asyncio
async def test_find(world: World) -> None:
    world.needs("create.names", "find")
    name = f"test-{fresh()}"
    sandbox = await world.create(name=name)
    found = await (await world.other()).find(name)
    assert found.id == sandbox.id and found.created is not None and found.created.name == name


@pytest.mark.asyncio
async def test_find_unknown(world: World) -> None:
    world.needs("find")
    with pytest.raises(NotFoundError):
        await world.provider.find(f"test-{fresh()}")


@pytest.mark.asyncio
async def test_name_is_taken(world: World) -> None:
    world.needs("create.names")
    name = f"test-{fresh()}"
    await world.create(name=name)
    with pytest.raises(AlreadyExistsError) as error:
        await world.create(name=name)
    assert error.value.happened == "no"


@pytest.mark.asyncio
async def test_name_is_free_again(world: World) -> None:
    world.needs("create.names")
    name = f"test-{fresh()}"
    first = await world.create(name=name)
    await first.terminate()
    await first.wait(END)
    assert (await world.create(name=name)).id != first.id


@pytest.mark.asyncio
async def test_env(world: World) -> None:
    world.needs("create.env", shell=True)
    value = "a=b '\"$x ü\n"
    sandbox = await world.create(env={"A": value, "B": "later"})
    assert (await sandbox.run('printf "%s|%s" "$A" "$B"')).check().text == f"{value}|later"
    assert (await sandbox.run('printf %s "$B"', env={"B": "of the command"})).check().text == "of the command"


@pytest.mark.asyncio
async def test_workdir(world: World) -> None:
    world.needs("create.workdir", shell=True)
    sandbox = await world.create(workdir="/tmp")
    assert (await sandbox.run("pwd")).text == "/tmp\n"
    assert (await sandbox.run("pwd", cwd="/")).text == "/\n"


@pytest.mark.asyncio
async def test_lifetime(world: World) -> None:
    world.needs("create.lifetime")
    reason = await (await world.create(lifetime=timedelta(seconds=2))).wait(END)
    assert reason is not None and reason.kind == "lifetime"


@pytest.mark.asyncio
async def test_idle_timeout(world: World) -> None:
    world.needs("create.idle-timeout")
    reason = await (await world.create(idle_timeout=2)).wait(END)
    assert reason is not None and reason.kind == "idle"


@pytest.mark.asyncio
async def test_entry_point(world: World) -> None:
    world.needs("create.command", shell=True)
    reason = await (await world.create(command=["/bin/sh", "-c", "exit 7"])).wait(END)
    assert reason is not None and (reason.kind, reason.code) == ("finished", 7)


@pytest.mark.asyncio
async def test_readiness(world: World) -> None:
    world.needs("create.readiness", shell=True)
    sandbox = await world.create(readiness=Probe(command=["/bin/sh", "-c", "test -e /tmp/ready"]))
    assert not await sandbox.wait_ready(0.2)
    (await sandbox.run(": >/tmp/ready")).check()
    assert await sandbox.wait_ready(END)


@pytest.mark.asyncio
async def test_readiness_of_port(world: World) -> None:
    world.needs("create.readiness", "create.command", shell=True)
    server = "if command -v python3 >/dev/null; then exec python3 -m http.server 8080; fi; while :; do nc -l -p 8080; done"
    sandbox = await world.create(readiness=Probe(tcp=8080), command=["/bin/sh", "-c", server])
    assert await sandbox.wait_ready(END)


@pytest.mark.asyncio
async def test_no_readiness_probe(world: World) -> None:
    world.needs("create.readiness")
    with pytest.raises(ConflictError):
        await (await world.create()).wait_ready(1)


@pytest.mark.asyncio
async def test_sandboxes_are_apart(world: World) -> None:
    one, other = await world.create(), await world.create()
    await one.write_file("/tmp/file", "x")
    with pytest.raises(FileNotFoundInSandboxError):
        await other.read_file("/tmp/file")


@pytest.mark.asyncio
async def test_the_block_terminates_the_sandbox(world: World) -> None:
    async with world.provider.create() as sandbox:
        assert await sandbox.wait(0) is None
    reason = await sandbox.wait(END)
    assert reason is not None and reason.kind == "terminated"


@pytest.mark.asyncio
async def test_an_awaited_sandbox_stays(world: World) -> None:
    sandbox = await world.provider.create()
    identity, started = sandbox.id, time.monotonic()
    del sandbox

    async def runs() -> bool:
        return (await world.provider.sandbox(identity).info()).state.kind != "ended"

    while time.monotonic() < started + 1:
        assert await runs()
        await asyncio.sleep(0.1)
    await world.provider.sandbox(identity).terminate()

    async def ended() -> bool:
        return not await runs()

    await until(ended, "the sandbox has ended")
