"""What a provider and its sandboxes can do besides commands and files."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import urllib.request
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import DEADLINE, Emulator, processes, until
from sandbox_host import (
    BuildFailedError,
    ClosedError,
    ConflictError,
    Dockerfile,
    Image,
    InvalidArgumentError,
    Limits,
    Network,
    NotFoundError,
    Port,
    Provider,
    ResourceExhaustedError,
    Sandbox,
    SandboxError,
    SandboxSpec,
    SidecarSpec,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from sandbox_host._calls import forget

pytestmark = pytest.mark.asyncio


async def test_the_description(provider: Provider) -> None:
    description = await provider.describe()
    assert description.name == provider.name == "modal"
    assert description.supports("exec.user") and not description.supports("no.such.thing")
    assert description.options_schema["type"] == "object"
    assert any(each.name == "MODAL_TOKEN_SECRET" and each.secret for each in description.environment)


async def test_bundled_components_and_paths() -> None:
    import sandbox_host

    folder = Path(sandbox_host.__file__).parent
    for component in ("memory", folder / "memory-provider.wasm", str(folder / "memory-provider.wasm")):
        async with Provider.open(component) as provider:
            assert provider.name == "memory" and provider.interface_version
    async with Provider.open("docker", env={"DOCKER_HOST": "tcp://127.0.0.1:1"}) as docker:
        assert docker.name == "docker"
        with pytest.raises(SandboxError):
            await docker.check()


async def test_an_unknown_component_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no provider `nothing`; bundled are: docker, memory, modal"):
        await Provider.open("nothing")
    with pytest.raises(SandboxError, match="none"):
        await Provider.open(tmp_path / "none.wasm")


async def test_check_needs_credentials_and_an_address(provider: Provider, emulator: Emulator) -> None:
    await provider.check()
    async with Provider.open("modal", env={"MODAL_SERVER_URL": "http://127.0.0.1:1"}) as nowhere:
        with pytest.raises(UnavailableError) as error:
            await nowhere.check()
        assert error.value.retryable and error.value.happened == "no"
    with pytest.raises(SandboxError) as missing:
        settings = {"MODAL_SERVER_URL": emulator.url, "MODAL_CONFIG_PATH": "/dev/null"}
        async with Provider.open("modal", inherit_env=False, read_profiles=False, env=settings) as empty:
            await empty.check()
    assert isinstance(missing.value, UnauthenticatedError) or missing.value.kind == "config"


async def test_check_before_spending(provider: Provider) -> None:
    await provider.check_spec(cpu=1, memory_mib=512, gpu="H100:2")
    await provider.check_spec(SandboxSpec(image="debian"), name="a-name")
    with pytest.raises(InvalidArgumentError) as error:
        await provider.check_spec(options={"no_such_option": 1})
    assert error.value.subject == "no_such_option"
    with pytest.raises(InvalidArgumentError):
        await provider.check_spec(cpu=2, cpu_limit=1)
    with pytest.raises(UnsupportedError):
        async with Provider.open("memory") as memory:
            await memory.check_spec(gpu="H100")


async def test_a_build_has_a_log_and_gives_an_image(provider: Provider) -> None:
    image = Image(commands=["RUN echo in-the-log && echo content >/built"])
    async with provider.build(image) as build:
        text = "".join([chunk.text async for chunk in build])
        built = await build.wait()
    assert "in-the-log" in text and built.id
    assert (await provider.image(built.id)).id == built.id
    async with provider.create(image=Image(id=built.id)) as sandbox:
        assert await sandbox.read_text("/built") == "content\n"


async def test_a_dockerfile_with_its_context(provider: Provider, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from here")
    (tmp_path / "ignored").write_text("not sent")
    (tmp_path / ".dockerignore").write_text("ignored\n")
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM debian\nARG NAME\nCOPY . /here\nRUN echo $NAME >/name\n")
    image = Dockerfile(path=dockerfile, context=tmp_path, build_args={"NAME": "value"})
    async with provider.create(image=image) as sandbox:
        assert await sandbox.read_text("/here/file") == "from here"
        assert await sandbox.read_text("/name") == "value\n"
        assert not await sandbox.exists("/here/ignored")


async def test_a_failed_build_shows_the_line(provider: Provider) -> None:
    with pytest.raises(BuildFailedError, match="exit 9"):
        async with provider.build(Dockerfile(text="FROM debian\nRUN echo before; exit 9\n")) as build:
            await build.wait()


async def test_snapshots_of_files(provider: Provider, sandbox: Sandbox) -> None:
    await sandbox.write_file("/kept/file", "x")
    image = await sandbox.snapshot_filesystem(ttl=timedelta(hours=1))
    async with provider.create(image=Image(id=image)) as other:
        assert await other.read_text("/kept/file") == "x"
        directory = await sandbox.snapshot_directory("/kept")
        await other.mount("/mounted", directory)
        assert await other.read_text("/mounted/file") == "x"
        await other.unmount("/mounted")
        assert not await other.exists("/mounted/file")


async def test_ports_are_reached_by_tunnel_and_forward(provider: Provider) -> None:
    server = ["python3", "-m", "http.server", "8000", "--directory", "/srv"]
    async with provider.create(ports=[Port(8000, "tcp")], image="python:3.12-slim") as sandbox:
        await sandbox.write_file("/srv/file", "served")
        async with sandbox.start(server):
            (tunnel,) = await sandbox.tunnels()
            assert (tunnel.port, tunnel.kind) == (8000, "tcp") and tunnel.public_port > 0
            async with sandbox.forward(8000) as address:

                def fetch() -> bytes:
                    with urllib.request.urlopen(f"http://{address}/file", timeout=10) as answer:
                        return bytes(answer.read())

                async def served() -> bool:
                    try:
                        return await asyncio.to_thread(fetch) == b"served"
                    except OSError:
                        return False

                await until(served, "the file is served")
            with pytest.raises(OSError):
                await asyncio.to_thread(fetch)
        with pytest.raises(InvalidArgumentError):
            await sandbox.forward(9000)


@pytest.mark.parametrize("end", ["close", "shutdown", "forget"])
async def test_the_end_of_a_provider_ends_what_it_opened(provider: Provider, end: str) -> None:
    mark, detached = f"73{uuid.uuid4().int % 10**6}", f"74{uuid.uuid4().int % 10**6}"
    async with provider.create(ports=[Port(8000, "tcp")]) as sandbox:
        other = await Provider.open("modal")
        place = other.sandbox(sandbox.id)
        process = await place.start(["sleep", mark])
        stays = await place.start(["sleep", detached])
        await stays.detach()
        forward = await place.forward(8000)
        watch = await place.watch("/tmp")
        host, port = forward.address.split(":")

        async def refused() -> bool:
            try:
                socket.create_connection((host, int(port)), 5).close()
            except ConnectionRefusedError:
                return True
            return False

        async def started() -> bool:
            return await processes(sandbox, mark) == await processes(sandbox, detached) == 1 and not await refused()

        await until(started, "the commands have started")
        if end == "forget":
            # As when the object of a provider is collected.
            forget(other._number)
        else:
            # A call on the process must not delay or prevent the end of its command.
            waiting = asyncio.ensure_future(process.wait())
            await asyncio.sleep(0)
            await (other.close() if end == "close" else other.shutdown(grace=0))
            with pytest.raises(SandboxError):
                await waiting

        async def ended() -> bool:
            return await processes(sandbox, mark) == 0 and await refused()

        await until(ended, "the end of the command and of the forwarding")
        with pytest.raises(ClosedError):
            await process.wait()
        with pytest.raises(ClosedError):
            await watch.next()
        assert await processes(sandbox, detached) == 1


async def test_the_network_changes(provider: Provider) -> None:
    async with provider.create(network=Network.allow(cidrs=["192.0.2.0/24"])) as sandbox:
        await sandbox.set_network(Network.allow(domains=["example.org"], cidrs=["192.0.2.0/24"]))
        await sandbox.set_network(Network.blocked())
    async with provider.create(network=Network.blocked()) as blocked:
        with pytest.raises(ConflictError):
            await blocked.set_network(Network.open())


async def test_sidecars(provider: Provider) -> None:
    async with provider.create() as sandbox:
        sidecar = await sandbox.create_sidecar(SidecarSpec(name="side", keep_alive=True, env={"A": "1"}))
        assert (await sidecar.run("echo $A")).check().text == "1\n"
        await sidecar.write_file("/only-here", "x")
        assert not await sandbox.exists("/only-here")
        assert [each.name for each in await sandbox.sidecars()] == ["side"]
        await sandbox.terminate_sidecar("side")
        assert await sandbox.wait_sidecar("side", DEADLINE) is not None


async def test_metrics_count_calls(provider: Provider, sandbox: Sandbox) -> None:
    before = await provider.metrics()
    await sandbox.run("true")
    after = await provider.metrics()
    assert after["calls"] > before["calls"] and after["requests"] > before["requests"]
    assert "calls" in await provider.prometheus()
    throttled = await provider.throttled()
    assert (throttled.count, throttled.remaining) == (0, 0)
    assert any(grant.origin.startswith("http://127.0.0.1") for grant in await provider.grants())


async def test_usage_and_logs(sandbox: Sandbox) -> None:
    capabilities = await sandbox.provider.describe()
    if capabilities.supports("stats"):
        usage = await sandbox.usage()
        assert usage.cpu_core_seconds >= 0 and usage.memory_mib_seconds >= 0
    if capabilities.supports("logs"):
        async with sandbox.provider.create(command=["/bin/sh", "-c", "echo logged; sleep 600"]) as other:

            async def logged() -> bool:
                return "logged" in "".join([chunk.text async for chunk in other.logs()])

            await until(logged, "the output is in the log")


async def test_a_lease_ends_with_its_owner(provider: Provider) -> None:
    """A process that is killed leaves a sandbox with a lease. `release` and `lease=False` leave sandboxes without one."""
    async with Provider.open("modal", owner="tests", lease=timedelta(seconds=60)) as owner:
        assert owner.run_id
        async with owner.create() as kept, owner.create(lease=False) as free:
            tags = await kept.tags()
            assert tags["sandbox-owner"] == "tests" and tags["sandbox-run"] == owner.run_id
            assert int(tags["sandbox-lease"]) > 0
            assert "sandbox-lease" not in await free.tags()
            assert await provider.sweep("tests", dry_run=True) == []
            await kept.set_tags({**tags, "sandbox-lease": "1000"})
            swept = await provider.sweep("tests", dry_run=True)
            assert [(each.id, each.run, each.terminated) for each in swept] == [(kept.id, owner.run_id, False)]
            assert swept[0].overdue > 0
            assert [each.id for each in await provider.sweep("tests") if each.terminated] == [kept.id]
            assert (await kept.wait(DEADLINE)) is not None


KILLED = """
import asyncio, os, signal
from sandbox_host import Provider
async def main():
    provider = await Provider.open("modal", owner="killed", lease=30)
    print((await provider.create()).id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_a_killed_process_leaves_a_lease(provider: Provider) -> None:
    ran = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=120)
    sandbox = provider.sandbox(ran.stdout.strip())
    tags = await sandbox.tags()
    assert tags["sandbox-owner"] == "killed" and "sandbox-lease" in tags
    await sandbox.terminate()


async def test_a_service_without_capacity_says_when_to_retry(emulator: Emulator) -> None:
    status = {"code": 8, "message": "no capacity", "retry_after_secs": 120}
    emulator.ask("faults", {"method": "SandboxCreate*", "fault": {"status": status}})
    try:
        async with Provider.open("modal", create_patience=0) as provider:
            with pytest.raises(ResourceExhaustedError, match="no capacity") as error:
                await provider.create()
    finally:
        emulator.ask("faults", method="DELETE")
    assert error.value.retryable and error.value.happened == "no"
    assert error.value.retry_after is not None and 100 <= error.value.retry_after <= 120


async def test_shutdown_closes(memory: Provider) -> None:
    provider = await Provider.open("memory", limits=Limits(call_time=60, memory_bytes=200 << 20))
    async with provider.create() as sandbox:
        assert (await sandbox.run(["echo", "x"])).text == "x\n"
    assert await provider.shutdown(1) == 0
    with pytest.raises(SandboxError) as error:
        await provider.describe()
    assert error.value.kind == "closed"


async def test_an_unknown_sandbox_is_not_found(provider: Provider) -> None:
    with pytest.raises(NotFoundError) as error:
        await provider.sandbox("sb-0123456789abcdefghijkl").run("true")
    assert error.value.happened == "no" and not error.value.retryable


OPENED = """
import sys
from sandbox_host import PluginError
from sandbox_host.sync import Provider
if sys.argv[1:]:
    sys.executable = sys.argv[1]
try:
    with Provider.open("memory") as provider:
        print("opened", provider.name)
except PluginError as error:
    print(error.message)
"""


async def test_the_component_is_compiled_in_a_process_of_its_own(tmp_path: Path) -> None:
    """A component may be untrusted, so another process compiles it, with limits of memory and time."""

    async def opened(cache: str, *interpreter: str) -> str:
        env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / cache)}
        command = [sys.executable, "-c", OPENED, *interpreter]
        ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, env=env, timeout=300)
        return ran.stdout.strip()

    assert await opened("one") == "opened memory"
    assert "compiling it failed" in await opened("two", "/bin/false")
    # The compiled code is cached, so no process is needed.
    assert await opened("one", "/bin/false") == "opened memory"
