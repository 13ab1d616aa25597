"""Tasks with a `docker-compose.yaml`: the service `main` and its neighbours, in sandboxes of the emulator."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from conftest import OUTSIDE, Emulator, Make
from harbor.environments.base import ServiceOperationsUnsupportedError
from harbor.models.task.config import NetworkMode, NetworkPolicy
from sandbox_host import NotFoundError, Provider, SandboxError, SandboxSpec, VolumeMount
from sandbox_host.compose.container import StartError
from sandbox_host.compose.plan import ComposeError
from sandbox_host.harbor import SandboxEnvironment
from test_tasks import ENVIRONMENT, TASKS, left, rewards, run, scripted, trials, written

IDLE = "image: debian:13, command: [tail, -f, /dev/null]"
BLOCKED = NetworkPolicy(network_mode=NetworkMode.NO_NETWORK)
LISTED = NetworkPolicy(network_mode=NetworkMode.ALLOWLIST, allowed_hosts=["10.2.0.0/16"])

SERVER = "import socket; s = socket.create_server(('', 8000))\nwhile True:\n c = s.accept()[0]; c.sendall(b'%s'); c.close()"

ASK = """
import socket, sys
while True:
    try:
        print(socket.create_connection((sys.argv[1], 8000), 30).makefile().read())
        break
    except ConnectionRefusedError:
        pass
"""

LOGS = [
    {"type": "bind", "source": f"/nowhere/{name}", "target": f"/logs/{name}"} for name in ("agent", "verifier", "artifacts")
]
"""The directories of a trial, as Harbor passes them."""

Composed = Callable[..., SandboxEnvironment]
Run = Callable[..., Awaitable[SandboxEnvironment]]


@pytest.fixture
def composed(make: Make, tmp_path: Path) -> Composed:
    """Makes environments with a compose file, which are not started. `IDLE` stands for the keys of an idle service."""
    count = 0

    def made(compose: str | dict[str, Any], files: dict[str, str] | None = None, **more: Any) -> SandboxEnvironment:
        nonlocal count
        count += 1
        folder = tmp_path / f"composed-{count}"
        text = compose.replace("IDLE", IDLE) if isinstance(compose, str) else json.dumps(compose)
        written(folder, {"Dockerfile": "FROM debian:13\nWORKDIR /app\n", "docker-compose.yaml": text, **(files or {})})
        return make(**{"environment_dir": folder, "auto_mounts": LOGS, **more})

    return made


@pytest_asyncio.fixture
async def start(composed: Composed) -> AsyncIterator[Run]:
    """Makes and starts environments with a compose file, which are stopped after the test."""
    started: list[SandboxEnvironment] = []

    async def begun(*arguments: Any, **more: Any) -> SandboxEnvironment:
        environment = composed(*arguments, **more)
        started.append(environment)
        await environment.start(force_build=False)
        return environment

    yield begun
    for environment in started:
        await environment.stop(delete=True)


@pytest.fixture(autouse=True)
def nothing_is_left(emulator: Emulator) -> Iterator[None]:
    """Fails a test that leaves a sandbox behind. It comes before the fixture that stops the environments."""
    yield
    assert left(emulator) == []


STORE: dict[str, Any] = {
    "image": "python:3.13",
    "command": ["python3", "-c", SERVER % "of the store"],
    "healthcheck": {"test": ["CMD", "python3", "-c", ASK, "localhost"], "interval": "1s", "retries": 60},
}
WAITS = {"depends_on": {"store": {"condition": "service_healthy"}}}
PYTHON = {"Dockerfile": "FROM python:3.13\nWORKDIR /app\n"}


async def ask(environment: SandboxEnvironment, name: str) -> str | None:
    """Returns what a service says to `main`."""
    result = await environment.exec('python3 -c "$ASK" ' + name, env={"ASK": ASK}, timeout_sec=60)
    return result.stdout or result.stderr


@pytest.mark.asyncio
async def test_main_reaches_a_service_by_its_names(start: Run) -> None:
    store = {**STORE, "networks": {"inner": {"aliases": ["shop"]}}}
    services = {"main": {**WAITS, "networks": ["inner"]}, "store": store}
    environment = await start({"services": services, "networks": {"inner": {"internal": True}}}, PYTHON)
    assert environment.capabilities.docker_compose
    assert await ask(environment, "store") == await ask(environment, "shop") == "of the store\n"
    result = await environment.exec("pwd")
    assert result.stdout == "/app\n", "main is built from the Dockerfile of the task"


@pytest.mark.asyncio
async def test_commands_and_files_of_a_service(start: Run, tmp_path: Path) -> None:
    environment = await start(
        "services: {other: {IDLE, user: nobody, working_dir: /srv, environment: {WHO: other}}}",
        persistent_env={"TOKEN": "of-main"},
        config={"workdir": "/app"},
    )
    other = await environment.service_exec('id -un; pwd; echo "$WHO $TOKEN $MORE"; exit 3', service="other", env={"MORE": "m"})
    assert (other.stdout, other.return_code) == ("nobody\n/srv\nother  m\n", 3)
    other = await environment.service_exec("id -u; pwd; echo no >&2", service="other", user="root", cwd="/tmp")
    assert (other.stdout, other.stderr) == ("0\n/tmp\n", "no\n")
    with pytest.raises(RuntimeError, match="1 seconds had passed"):
        await environment.service_exec("sleep 600", service="other", timeout_sec=1)
    main = await environment.service_exec("pwd; echo $TOKEN", service="main")
    assert main.stdout == "/app\nof-main\n"
    await environment.service_exec("mkdir -p /tmp/d/e; echo one >/tmp/d/f; echo two >/tmp/d/e/g", service="other")
    await environment.service_download_file("/tmp/d/f", tmp_path / "to" / "f", service="other")
    assert (tmp_path / "to" / "f").read_text() == "one\n"
    await environment.service_download_dir("/tmp/d", tmp_path / "all", service="other")
    assert (tmp_path / "all" / "e" / "g").read_text() == "two\n"
    await environment.service_download_dir_with_exclusions(
        source_dir="/tmp/d", target_dir=tmp_path / "some", exclude=["e"], service="other"
    )
    assert [each.name for each in (tmp_path / "some").iterdir()] == ["f"]
    assert await environment.service_is_dir("/tmp/d", service="other") and not await environment.is_dir("/tmp/d")
    with pytest.raises(ValueError, match=r"no service `othr`; there are main, other"):
        await environment.service_exec("true", service="othr")


@pytest.mark.asyncio
async def test_a_service_can_be_stopped_and_main_cannot(start: Run) -> None:
    environment = await start("services: {other: {IDLE}}")
    with pytest.raises(ServiceOperationsUnsupportedError, match="`main` is the sandbox itself"):
        await environment.stop_service("main")
    await environment.stop_service("other")
    with pytest.raises(SandboxError, match="has ended"):
        await environment.service_exec("true", service="other")
    assert (await environment.exec("true")).return_code == 0


@pytest.mark.asyncio
async def test_main_waits_for_the_conditions_of_its_dependencies(start: Run) -> None:
    environment = await start(
        """
services:
  main: {depends_on: {db: {condition: service_healthy}, setup: {condition: service_completed_successfully}}}
  db:
    image: debian:13
    command: [sh, -c, 'sleep 2; touch /tmp/ready; exec tail -f /dev/null']
    healthcheck: {test: [CMD, test, -e, /tmp/ready], interval: 1s, retries: 60}
  setup: {image: debian:13, command: [sh, -c, 'sleep 3']}
"""
    )
    assert (await environment.service_exec("test -e /tmp/ready", service="db")).return_code == 0


@pytest.mark.asyncio
async def test_work_that_main_waits_for_reaches_the_services_by_name(start: Run) -> None:
    look = "for i in $$(seq 600); do grep -qw db /etc/hosts && exit 0; sleep 0.1; done; exit 1"
    await start(
        f"""
services:
  main:
    depends_on:
      before: {{condition: service_completed_successfully}}
      after: {{condition: service_completed_successfully}}
  db:
    image: debian:13
    command: [tail, -f, /dev/null]
    healthcheck: {{test: [CMD, "true"], interval: 1s}}
  before:
    image: debian:13
    command: [sh, -c, '{look}']
  after:
    image: debian:13
    command: [sh, -c, '{look}']
    depends_on: {{db: {{condition: service_healthy}}}}
"""
    )


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("service", "words"),
    [
        (
            "command: [sh, -c, 'echo starting; echo no space left >&2; exit 7']",
            r"(?s)'db' has ended: .*exit code 7.*no space left",
        ),
        (
            "command: [tail, -f, /dev/null], healthcheck: {test: echo not yet; exit 1, interval: 1s, retries: 2}",
            r"'db' is not healthy: not yet",
        ),
    ],
    ids=["ends", "unhealthy"],
)
async def test_a_service_that_fails_is_named_and_nothing_is_left(
    composed: Composed, emulator: Emulator, service: str, words: str
) -> None:
    environment = composed(f"services: {{db: {{image: debian:13, {service}}}, other: {{IDLE}}}}")
    with pytest.raises(StartError, match=words):
        await environment.start(force_build=False)
    assert left(emulator) == []
    with pytest.raises(RuntimeError, match="is not running"):
        await environment.service_exec("true", service="other")


@pytest.mark.asyncio
async def test_main_depends_on_work_that_fails(composed: Composed) -> None:
    environment = composed(
        "services: {main: {depends_on: {setup: {condition: service_completed_successfully}}}, "
        "setup: {image: debian:13, command: [sh, -c, 'echo broken; exit 4']}}"
    )
    with pytest.raises(StartError, match=r"(?s)'setup', which others depend on, did not complete.*4.*broken"):
        await environment.start(force_build=False)


REFUSED: dict[str, tuple[str, str]] = {
    "key-of-a-service": ("services: {main: {}, db: {IDLE, comand: x}}", r"services\.db\.comand is not known"),
    "key-of-a-health-check": (
        "services: {main: {}, db: {IDLE, healthcheck: {tset: x}}}",
        r"db\.healthcheck\.tset is not known",
    ),
    "key-of-a-dependency": (
        "services: {main: {depends_on: {db: {when: healthy}}}, db: {IDLE}}",
        r"main\.depends_on\.db\.when is not known",
    ),
    "key-of-the-document": ("services: {main: {}}\nservice: {}", r": service is not known"),
    "devices": ("services: {main: {devices: [/dev/kvm]}}", r"services\.main\.devices is not supported"),
    "secrets": ("services: {main: {secrets: [a]}}\nsecrets: {a: {file: a}}", r"services\.main\.secrets .*option `secrets`"),
    "a-writable-mount": ("services: {main: {}, db: {IDLE, volumes: ['./data:/data']}}", r"services\.db\.volumes.*data"),
    "shared-logs": (
        "services: {main: {}, db: {IDLE, volumes: ['${HOST_ARTIFACTS_PATH}:/logs']}}",
        r"services\.db\.volumes: /logs/artifacts is a directory of main.*`artifacts`",
    ),
    "separate-networks": (
        "services: {main: {networks: [a]}, db: {IDLE, networks: [b]}}\nnetworks: {a: {}, b: {}}",
        "must not reach each other",
    ),
    "no-image": ("services: {main: {}, db: {}}", r"services\.db\.image: the service has neither image nor build"),
    "no-main": ("services: {main: !reset null, db: {IDLE}}", "there is no service main"),
    "a-required-variable": (
        "services: {main: {environment: {A: '${NOT_SET_ANYWHERE:?give it}'}}}",
        "NOT_SET_ANYWHERE.*give it",
    ),
    "an-extension": ("services: {main: {}}\nx-modal: {cidr_allowlist: [10.0.0.0/8]}", r"x-modal\.cidr_allowlist"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("case", REFUSED)
async def test_what_a_sandbox_cannot_do_is_refused_before_anything_is_created(
    composed: Composed, emulator: Emulator, case: str
) -> None:
    text, words = REFUSED[case]
    before = emulator.ids()
    with pytest.raises(ComposeError, match=words):
        await composed(text).start(force_build=False)
    assert not emulator.ids() - before


@pytest.mark.asyncio
async def test_keys_without_an_effect_are_warned_of(start: Run, caplog: pytest.LogCaptureFixture) -> None:
    await start("services: {main: {ports: ['8080:80'], tty: true}, db: {IDLE, restart: always, shm_size: 64m}}")
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    for words in ("main.ports has no effect", "db.restart has no effect", "db.shm_size has no effect: the provider sets"):
        assert sum(words in each for each in said) == 1, (words, said)
    assert not any("tty" in each for each in said)


@pytest.mark.asyncio
@pytest.mark.parametrize("provider", ["memory", "docker"])
async def test_a_provider_without_sidecars_refuses_compose_files(
    composed: Composed, make: Make, tmp_path: Path, provider: str
) -> None:
    with pytest.raises(ValueError, match=r"has one container, and the task has a docker-compose\.yaml"):
        composed("services: {main: {build: .}}", provider=provider)
    extra = written(tmp_path, {"extra.yaml": "services: {other: {image: debian:13}}"}) / "extra.yaml"
    with pytest.raises(ValueError, match="extra-docker-compose"):
        make(extra_docker_compose=[extra], provider=provider)


@pytest.mark.asyncio
async def test_variables_of_harbor_and_of_the_task(
    start: Run, specs: list[SandboxSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form of the tasks that Harbor's own environments accept, with all its variables."""
    monkeypatch.setenv("OF_THE_PROCESS", "process")
    compose = """
services:
  main:
    build: {context: "${CONTEXT_DIR}"}
    image: ${MAIN_IMAGE_NAME}
    command: ["sh", "-c", "sleep infinity"]
    environment: ["LOGS=${ENV_VERIFIER_LOGS_PATH}", "SECRET=${OF_THE_TASK}", "P=${OF_THE_PROCESS}", "D=${NOT_SET_HERE:-none}"]
    volumes:
      - ${HOST_VERIFIER_LOGS_PATH}:${ENV_VERIFIER_LOGS_PATH}
      - ${HOST_AGENT_LOGS_PATH}:${ENV_AGENT_LOGS_PATH}
    deploy: {resources: {limits: {cpus: "${CPUS}", memory: "${MEMORY}"}}}
  other: {IDLE, environment: ["SECRET=${OF_THE_TASK}"]}
"""
    config = {"cpus": 2, "memory_mb": 768, "env": {"OF_THE_TASK": "task"}}
    environment = await start(compose, config=config, persistent_env={"OF_THE_TRIAL": "trial"})
    result = await environment.exec('echo "$LOGS $SECRET $P $D $OF_THE_TASK $OF_THE_TRIAL"; test -w /logs/verifier; echo $?')
    assert result.stdout == "/logs/verifier task process none task trial\n0\n"
    other = await environment.service_exec('echo "$SECRET-$OF_THE_TASK-$OF_THE_TRIAL"', service="other")
    assert other.stdout == "task--\n", "the variables of the task are those of main"
    (spec,) = specs
    assert (spec.cpu, spec.cpu_limit, spec.memory_mib, spec.memory_limit_mib) == (2, 2, 768, 768)


@pytest.mark.asyncio
async def test_a_prebuilt_image_and_files_of_the_run(start: Run, tmp_path: Path) -> None:
    """Later files win, and relative paths start at the directory of the task in all of them."""
    extra = tmp_path / "elsewhere" / "extra.yaml"
    written(extra.parent, {"extra.yaml": "services: {other: {environment: {B: extra}, volumes: ['./note:/etc/note:ro']}}"})
    compose = "services: {main: {build: .}, other: {IDLE, environment: {A: task, B: task}}}"
    environment = await start(
        compose,
        {"Dockerfile": "FROM debian:13\nRUN touch /built\n", "note": "a note\n"},
        extra_docker_compose=[extra],
        config={"docker_image": "debian:13"},
    )
    assert (await environment.exec("test -e /built")).return_code == 1
    other = await environment.service_exec('echo "$A $B"; cat /etc/note', service="other")
    assert other.stdout == "task extra\na note\n"


@pytest.mark.asyncio
async def test_a_run_adds_services_to_a_task_without_a_compose_file(make: Make, tmp_path: Path, emulator: Emulator) -> None:
    extra = written(tmp_path / "extra", {"extra.yaml": f"services: {{other: {{{IDLE}}}}}"}) / "extra.yaml"
    environment = make(extra_docker_compose=[extra])
    await environment.start(force_build=False)
    try:
        assert (await environment.service_exec("true", service="other")).return_code == 0
        assert (await environment.exec("cat words.txt")).stdout == "pear\napple\n"
    finally:
        await environment.stop(delete=True)


@pytest.mark.asyncio
async def test_the_user_of_main_runs_its_commands(start: Run) -> None:
    environment = await start(
        "services: {main: {user: worker}, other: {IDLE}}", {"Dockerfile": "FROM debian:13\nRUN useradd --create-home worker\n"}
    )
    assert (await environment.exec("id -un")).stdout == "worker\n"
    assert (await environment.exec("id -un", user="root")).stdout == "root\n"


# Some machines have no route to any address, so a name tells whether the network is open.
REACH = f"getent hosts {OUTSIDE}"


@pytest.mark.asyncio
async def test_without_a_network_the_services_still_reach_each_other(start: Run, specs: list[SandboxSpec]) -> None:
    environment = await start({"services": {"main": WAITS, "store": STORE}}, PYTHON, network_policy=BLOCKED)
    assert await ask(environment, "store") == "of the store\n"
    for service in ("main", "store"):
        result = await environment.service_exec(REACH, service=service, timeout_sec=60)
        assert result.return_code == 2 and not result.stdout, service


@pytest.mark.asyncio
async def test_the_policy_of_the_task_holds_for_its_services(start: Run, specs: list[SandboxSpec]) -> None:
    text = "services: {main: {}, out: {IDLE, networks: [default, more]}, in: {IDLE, networks: [default]}}\nnetworks: {more: {}"
    await start(f"{text}, default: {{internal: true}}}}", network_policy=LISTED)
    await start("services: {main: {}, out: {IDLE}}", phase_network_policies=[BLOCKED])
    await start("services: {main: {}, out: {IDLE}}")
    listed, changing, public = ({each.name: each.network for each in spec.sidecars} for spec in specs)
    assert list(listed["out"].cidrs) == ["10.2.0.0/16"] and listed["in"].outbound == "allowed" and not listed["in"].cidrs
    assert specs[0].network.outbound == "allowed" and not specs[0].network.cidrs, "the compose file permits less"
    assert changing["out"].outbound == "allowed" and not changing["out"].cidrs
    assert public["out"].outbound == specs[2].network.outbound == "open"


@pytest.mark.asyncio
async def test_a_phase_can_block_the_network_of_main(start: Run) -> None:
    environment = await start({"services": {"main": WAITS, "store": STORE}}, PYTHON, phase_network_policies=[BLOCKED])
    assert (await environment.exec(REACH, timeout_sec=60)).return_code == 0
    await environment.set_network_policy(BLOCKED)
    assert (await environment.exec(REACH, timeout_sec=60)).return_code == 2
    assert await ask(environment, "store") == "of the store\n"


@pytest.mark.asyncio
async def test_volumes_of_several_services_are_deleted_with_the_sandbox(composed: Composed) -> None:
    environment = composed(
        """
services:
  main: {volumes: ["both:/both", "own:/own"]}
  first: {image: debian:13, command: [sh, -c, 'echo x >/both/file; exec tail -f /dev/null'], volumes: ["both:/both"]}
volumes: {both: , own: }
"""
    )
    await environment.start(force_build=False)
    try:
        assert (await environment.exec("test -d /both && touch /both/a /own/a")).return_code == 0
        (name,) = environment._own_volumes
    finally:
        await environment.stop(delete=True)
    async with Provider.open("modal") as provider:
        with pytest.raises(NotFoundError, match=name):
            await provider.create(SandboxSpec(volumes=[VolumeMount(name, "/v")]))


# ---- whole trials -------------------------------------------------------------------------------------------------


def test_harbor_runs_the_reference_solution_of_a_task_with_services(harbor: Any, tmp_path: Path, emulator: Emulator) -> None:
    task = tmp_path / "ask-store"
    shutil.copytree(TASKS / "ask-store", task)
    check = task / "tests/test.sh"
    # `inspect_harbor` sets this variable for compose files, and Harbor does not.
    check.write_text(check.read_text().replace(' && [ "$TEST_DIR" = /tests ]', ""))
    run(harbor, task, tmp_path / "jobs", "oracle", "--ek", "provider=modal")
    assert rewards(tmp_path / "jobs") == [{"reward": 1}]
    run(harbor, task, tmp_path / "idle", "nop")
    assert rewards(tmp_path / "idle") == [{"reward": 0}]


WITNESS = {
    "instruction.md": "Tell the witness your name.",
    "environment/Dockerfile": "FROM python:3.13\nWORKDIR /app\n",
    "environment/docker-compose.yaml": """
services:
  main: {depends_on: {witness: {condition: service_healthy}}}
  witness:
    build: {context: ., dockerfile: witness.Dockerfile}
    healthcheck: {test: [CMD, test, -e, /seen/ready], interval: 1s, retries: 60}
""",
    "environment/witness.Dockerfile": 'FROM python:3.13\nCOPY witness.py /\nCMD ["python3", "/witness.py"]\n',
    "environment/witness.py": """\
import os, socket
os.makedirs("/seen")
server = socket.create_server(("", 9000))
open("/seen/ready", "w").close()
while True:
    connection = server.accept()[0]
    with open("/seen/names", "ab") as file:
        file.write(connection.recv(100))
    connection.sendall(b"seen")
""",
    "solution/solve.sh": "#!/bin/bash\npython3 -c \"import socket; s = socket.create_connection(('witness', 9000)); "
    "s.sendall(b'oracle\\n'); print(s.recv(9))\"\n",
    "tests/test.sh": "#!/bin/bash\ngrep -qx oracle /seen/names; echo $((1 - $?)) >/logs/verifier/reward.txt\n",
    "tests/Dockerfile": "FROM debian:13\nCOPY . /tests/\n",
    "task.toml": """
schema_version = "1.4"
[[artifacts]]
source = "/seen/names"
service = "witness"
[verifier]
environment_mode = "separate"
[[verifier.collect]]
service = "witness"
command = "echo collected >>/seen/names"
[environment]
""",
}


def test_artifacts_and_collect_hooks_of_a_service(harbor: Any, tmp_path: Path) -> None:
    task = written(tmp_path / "witness", WITNESS)
    run(harbor, task, tmp_path / "jobs", "oracle")
    (artifact,) = (tmp_path / "jobs").glob("*/*/artifacts/**/names")
    assert artifact.read_text() == "oracle\ncollected\n"
    assert rewards(tmp_path / "jobs") == [{"reward": 1}]


def test_the_python_interface_runs_a_job_with_services(tmp_path: Path) -> None:
    from harbor.job import Job
    from harbor.models.job.config import JobConfig
    from harbor.models.trial.config import AgentConfig, EnvironmentConfig, TaskConfig

    config = JobConfig(
        job_name="job",
        jobs_dir=tmp_path / "jobs",
        tasks=[TaskConfig(path=written(tmp_path / "witness", WITNESS))],
        agents=[AgentConfig(name="oracle")],
        environment=EnvironmentConfig(import_path=ENVIRONMENT),
        quiet=True,
    )

    async def whole() -> None:
        await (await Job.create(config)).run()

    asyncio.run(whole())
    assert rewards(tmp_path / "jobs") == [{"reward": 1}]


def test_a_trial_whose_service_fails_is_reported(harbor: Any, tmp_path: Path) -> None:
    broken = {"environment/witness.py": "print('no witness today', flush=True)\nraise SystemExit(9)\n"}
    task = written(tmp_path / "witness", {**WITNESS, **broken})
    run(harbor, task, tmp_path / "jobs", "scripted:Scripted", *scripted("true"))
    (trial,) = trials(tmp_path / "jobs")
    said = trial["exception_info"]["exception_message"]
    assert "'witness' has ended" in said and "exit code 9" in said and "no witness today" in said
