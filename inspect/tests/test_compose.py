"""Plans for compose documents and configurations: supported keys, warnings and errors. Nothing is sent."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.util import ComposeConfig
from inspect_modal_sandbox import ModalSandboxConfig, ModalSandboxEnvironment, compose, planning
from inspect_modal_sandbox.lifecycle import directories
from inspect_modal_sandbox.lifecycle.images import image_variables
from inspect_modal_sandbox.lifecycle.run import Run
from inspect_modal_sandbox.lifecycle.specification import sandbox_specification
from inspect_modal_sandbox.lifecycle.volumes import name_volumes, volumes_of
from inspect_modal_sandbox.plan import ConfigError
from sandbox_host.compose import binds, envfile, extensions, goyaml, plan


def made(text: str, directory: Path = Path("/")) -> plan.Plan:
    (document,) = goyaml.load(text)
    return compose.plan(document, "compose.yaml", directory)


def of_service(text: str) -> plan.Plan:
    return made("services:\n  default:\n    image: debian\n" + "".join(f"    {line}\n" for line in text.splitlines()))


def test_keys_that_inspects_own_parser_refuses(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian\nARG version\n")
    result = made(
        """
        version: "3.8"
        name: project
        services:
          default:
            container_name: box
            labels: {a: b}
            build: {context: ., args: {version: 3, debug: true}, target: last}
            environment: {NUMBER: 1, FLAG: true, TEXT: a}
            mem_limit: 536870912
            user: 1000
            command: tail -f /dev/null
        """,
        tmp_path,
    )
    service = result.services[0]
    source = service.image["source"]["dockerfile"]
    assert source["build_args"] == [("debug", "true"), ("version", "3")] and source["target"] == "last"
    assert service.env == {"NUMBER": "1", "FLAG": "true", "TEXT": "a"}
    assert service.user == "1000"
    assert result.sandbox["memory_limit_mib"] == 512
    assert result.warnings == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mem_limit: 2g", {"memory_limit_mib": 2048}),
        ("mem_limit: 100k", {"memory_limit_mib": 1}),
        ("mem_reservation: 512m", {"memory_request_mib": 512}),
        ("cpus: 1.5", {"cpu_limit_millicores": 1500}),
        (
            "mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g, cpus: '2'}, reservations: {memory: 1g, cpus: '0.5'}}}",
            {"memory_limit_mib": 2048, "memory_request_mib": 1024, "cpu_limit_millicores": 2000, "cpu_request_millicores": 500},
        ),
        (
            "deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 2, capabilities: [gpu]}]}}}",
            {"gpu": ("ANY", 2)},
        ),
        ("ports: ['8080:80', 443, {target: 22}]", {"ports": [[80, "tls"], [443, "tls"], [22, "tls"]]}),
    ],
)
def test_resources_and_ports(line: str, expected: dict[str, Any]) -> None:
    assert {"ports": [], "lifetime_secs": 86400, **expected} == of_service(line).sandbox


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("platform: linux/arm64", "services.default.platform"),
        ("privileged: true", "services.default.privileged"),
        ("cap_add: [SYS_PTRACE]", "services.default.cap_add"),
        ("network_mode: host", "services.default.network_mode"),
        ("something: 1", "services.default.something"),
        ("restart: always", "services.default.restart"),
        ("scale: 2", "services.default.scale"),
        ("hostname: box", "services.default.hostname"),
        ("deploy: {replicas: 2}", "services.default.deploy.replicas"),
        ("deploy: {resources: {limits: {pids: 10}}}", "services.default.deploy.resources.limits.pids"),
        ("networks: {default: {ipv4_address: 10.0.0.2}}", "services.default.networks.default.ipv4_address"),
        ("extra_hosts: ['here:host-gateway']", "services.default.extra_hosts.here"),
        ("user: agent\ncommand: serve", "services.default.user"),
    ],
)
def test_warnings_name_the_key(line: str, key: str) -> None:
    (warning,) = of_service(line).warnings
    assert key in warning


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("volumes: ['./here:/there']", "services.default.volumes"),
        ("devices: [/dev/kvm]", "services.default.devices"),
        ("secrets: [one]", "services.default.secrets"),
        ("read_only: true", "services.default.read_only"),
        ("mem_limit: lots", "services.default.mem_limit"),
        ("ports: ['53:53/quic']", "services.default.ports"),
        ("build: {context: /no/such/directory}", "services.default.build.context"),
        ("healthcheck: {test: [CMD, x], interval: often}", "services.default.healthcheck.interval"),
        ("extra_hosts: {there: nowhere}", "services.default.extra_hosts.there"),
        ("depends_on: [missing]", "services.default.depends_on"),
    ],
)
def test_errors_name_the_key(line: str, key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        of_service(line)
    assert key in str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        "restart: 'no'",
        "scale: 1",
        "deploy: {replicas: 1, mode: replicated}",
        "labels: [a]\ninit: true\nstdin_open: true\ntty: true\nexpose: [80]",
        "user: agent\ncommand: tail -f /dev/null",
    ],
)
def test_values_that_describe_a_sandbox_give_no_warning(line: str) -> None:
    assert of_service(line).warnings == []


SEVERAL = """
services:
  web: {image: x, depends_on: {app: {condition: service_healthy}}, container_name: site, links: ['db:store']}
  default: {image: x, depends_on: [web], command: sleep infinity}
  app: {image: x, depends_on: {setup: {condition: service_completed_successfully}}, healthcheck: {test: [CMD, true]}}
  db: {image: x, networks: {default: , inner: {aliases: [database, web]}}, extra_hosts: ['a:10.0.0.1', 'b=::1']}
  setup: {image: x, depends_on: {db: {condition: service_started}}}
  debug: {image: x, profiles: [debug]}
networks: {inner: {}}
"""


def test_services_start_after_those_that_they_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPOSE_PROFILES", raising=False)
    result = made(SEVERAL)
    assert [service.name for service in result.services] == ["default", "db", "setup", "app", "web"]
    assert [service.name for service in result.later()] == ["app", "web"], "the others start with the sandbox"
    assert result.warnings == []
    monkeypatch.setenv("COMPOSE_PROFILES", "debug")
    assert "debug" in [service.name for service in made(SEVERAL).services]
    for text, words in [
        ("{a: {image: x}, b: {image: x, depends_on: [c]}, c: {image: x, depends_on: [b]}}", "circle: b, c"),
        ("{a: {image: x}, b: {image: x, depends_on: {a: {condition: service_healthy}}}}", "a has no healthcheck"),
        ("{a: {image: x}, b: {image: x, depends_on: {a: {condition: once}}}}", "not 'once'"),
    ]:
        with pytest.raises(ConfigError, match=words):
            made(f"services: {text}")
    early = made("services: {default: {image: x, command: serve, depends_on: [b]}, b: {image: x}}")
    assert len(early.warnings) == 1 and "services.default.depends_on" in early.warnings[0]


def test_further_names_and_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPOSE_PROFILES", raising=False)
    services = {service.name: service for service in made(SEVERAL).services}
    assert services["web"].names == ["site"]
    assert services["db"].names == ["database", "store"], "web is the name of another service"
    assert services["db"].hosts == {"a": "10.0.0.1", "b": "::1"}


def test_networks_of_services() -> None:
    assert of_service("").outbound == "open", "as with Docker, a compose file has a network by default"
    assert of_service("network_mode: none").outbound == "blocked"
    closed = "networks: {inner: {internal: true}}\nservices: {default: {image: debian, networks: [inner]}}"
    assert made(closed).outbound == "blocked"
    several = "networks: {inner: {internal: true}}\nservices: {%s}"
    both = ", ".join(f"{name}: {{image: debian, networks: [inner]}}" for name in "ab")
    assert made(several % both).outbound == "internal", "the services reach each other"
    with pytest.raises(ConfigError, match="must not reach each other"):
        made("services: {default: {image: a}, other: {image: b, network_mode: none}}")


def test_the_network_without_a_compose_file_is_closed_unless_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planning.make(None, Path("/"), {}).outbound == "blocked"
    assert planning.make(ModalSandboxConfig(), Path("/"), {}).outbound == "blocked"
    monkeypatch.setenv("INSPECT_MODAL_NETWORK", "open")
    assert planning.make(None, Path("/"), {}).outbound == "open"
    assert planning.make(ModalSandboxConfig(), Path("/"), {}).outbound == "open"
    assert planning.make(ModalSandboxConfig(network="blocked"), Path("/"), {}).outbound == "blocked"


def test_which_service_is_the_default() -> None:
    def names(text: str) -> list[str]:
        return [service.name for service in made(text).services]

    assert names("services: {a: {image: x}, b: {image: x, x-default: true}}") == ["b", "a"]
    assert names("services: {a: {image: x}, default: {image: x}}") == ["default", "a"]
    assert names("services: {a: {image: x}, b: {image: x}}") == ["a", "b"]


def test_environment_from_files_and_from_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.env").write_text("# note\nA=1\nexport B='two words'\nC=3 # note\n")
    monkeypatch.setenv("HERE", "h")
    monkeypatch.delenv("NOT_HERE", raising=False)
    result = made(
        "services: {default: {image: x, env_file: one.env, environment: [A=9, HERE, NOT_HERE]}}",
        tmp_path,
    )
    assert result.services[0].env == {"A": "9", "B": "two words", "C": "3", "HERE": "h"}


def test_commands_and_entrypoint() -> None:
    service = of_service("entrypoint: /bin/run --fast\ncommand: [a, 'b c']").services[0]
    assert service.image["commands"] == ['ENTRYPOINT ["/bin/run", "--fast"]']
    assert service.command == ["a", "b c"]
    assert of_service("command: sh -c 'sleep 1'").services[0].command == ["sh", "-c", "sleep 1"]


def test_modal_volumes() -> None:
    result = made(
        "volumes: {data: {}, shared: {external: true, name: there}}\n"
        "services: {default: {image: x, volumes: ['data:/data:ro', 'shared:/shared', /scratch]}}"
    )
    assert [(v["volume"], v["path"], v["read_only"], v["create"]) for v in result.services[0].volumes] == [
        ("there", "/shared", False, False),
    ]
    assert result.services[0].directories == ["/data", "/scratch"], "a volume that one container mounts is a directory of it"


def test_variables_are_substituted() -> None:
    def fill(text: str) -> Any:
        return envfile.substitute(text, {"A": "1", "EMPTY": ""}.get, "here", lambda name: None)

    assert fill("$A ${A} $$A ${NO-x} ${NO:-$A} ${EMPTY-x} ${EMPTY:-x} ${A:+y} ${NO:+y}") == "1 1 $A x 1  x y "
    with pytest.raises(plan.ComposeError, match="NO is not set"):
        fill("${NO:?give it}")


def test_modal_extensions() -> None:
    result = made(
        """
        services: {default: {image: x}}
        x-inspect_modal_sandbox: {block_network: true, timeout: 60, region: eu, cloud: aws}
        x-modal:
          timeout: 120
          idle_timeout: 30
          gpu: A100:2
          encrypted_ports: [80]
          unencrypted_ports: [22]
          secrets: mine
          verbose: true
        """
    )
    assert result.outbound == "blocked"
    assert result.services[0].secrets == ["mine"]
    assert result.sandbox == {
        "lifetime_secs": 120,
        "idle_timeout_secs": 30,
        "regions": ["eu"],
        "gpu": ("A100", 2),
        "ports": [[80, "tls"], [22, "tcp"]],
        "options": [("cloud", "aws"), ("verbose", True)],
    }
    listed = made("services: {default: {image: x}}\nx-modal: {cidr_allowlist: [10.0.0.0/8], outbound_domain_allowlist: [a.b]}")
    assert listed.outbound == {"allowed": {"cidrs": ["10.0.0.0/8"], "domains": ["a.b"]}}
    with pytest.raises(ConfigError, match=r"x-modal\.typo"):
        made("services: {default: {image: x}}\nx-modal: {typo: 1}")


def test_a_compose_config_object_makes_a_plan() -> None:
    config = ComposeConfig.model_validate({"services": {"default": {"image": "debian", "network_mode": "none"}}})
    result = planning.make(config, Path("/"), {})
    assert result.outbound == "blocked" and result.warnings == []
    config = ComposeConfig.model_validate({"services": {"default": {"image": "debian:${SAMPLE_METADATA_TAG}"}}})
    assert image_variables(config, {"tag": "13"}) == {"SAMPLE_METADATA_TAG": "13"}
    image = planning.make(config, Path("/"), {"tag": "13"}).services[0].image
    assert image == {"source": {"registry": {"reference": "debian:13"}}}


def test_images_that_depend_on_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "compose.yaml"
    path.write_text("services: {default: {image: 'debian:${SAMPLE_METADATA_TAG}', environment: {C: $SAMPLE_METADATA_C}}}")
    assert image_variables(str(path), {"tag": "13", "other": 1}) == {"SAMPLE_METADATA_TAG": "13"}
    path.write_text("services: {default: {image: 'debian', environment: {C: $SAMPLE_METADATA_C}}}")
    assert image_variables(str(path), {"c": "x"}) == {}
    assert planning.make(str(path), tmp_path, {"c": "x"}).services[0].env == {"C": "x"}


def test_a_modal_config_survives_the_log_and_is_not_taken_for_a_compose_document() -> None:
    config = ModalSandboxConfig.model_validate(
        {
            "image": "debian:13",
            "build_secrets": "one",
            "environment": {"A": "1", "B": "2"},
            "cpu": (0.5, 2),
            "memory": 512,
            "network": {"domains": ["example.com"]},
            "volumes": [{"name": "v", "path": "/v"}],
            "user": "agent",
        }
    )
    logged = config.model_dump(mode="json")
    with pytest.raises(ValueError):
        ComposeConfig.model_validate(logged)
    again = ModalSandboxEnvironment.config_deserialize(logged)
    assert again == config and hash(again) == hash(config)
    with pytest.raises(ValueError, match="give one image"):
        ModalSandboxConfig(image="a", image_id="im-1")


def test_a_wrong_configuration_is_an_error() -> None:
    for config in ("values.txt", 3):
        with pytest.raises(ConfigError):
            planning.make(config, Path("/"), {})
    with pytest.raises(ConfigError, match="cannot be read"):
        planning.make("Dockerfile", Path("/no/such"), {})


def test_a_configuration_of_tasks_in_several_directories_is_refused_if_it_is_ambiguous(tmp_path: Path) -> None:
    """This test runs outside of an evaluation, so Inspect's records do not say which task the sample belongs to."""
    run = Run()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text(f"FROM debian:13\nRUN echo {name}\n")
    built, plain = ModalSandboxConfig(dockerfile="Dockerfile"), ModalSandboxConfig(image="debian:13")
    services = {"default": {"build": "."}}
    for config in (built, plain, ComposeConfig.model_validate({"services": services})):
        run.directories[directories.directory_key(config)] = [tmp_path / "here", tmp_path / "there"]
    assert directories.directory_of(run, plain, {}) == tmp_path / "here", "the plan is the same in all directories"
    for config in (built, ComposeConfig.model_validate({"services": services})):
        with pytest.raises(PrerequisiteError, match=r"here and .*there have the same sandbox configuration"):
            directories.directory_of(run, config, {})


def test_the_log_says_which_volumes_are_shared() -> None:
    text = "volumes: {cache: {name: everyones}}\nservices: {default: {image: x, volumes: ['cache:/cache']}}"
    (warning,) = made(text).warnings
    assert "volumes.cache is the volume everyones at Modal: all samples share it" in warning


def test_the_name_of_a_volume_carries_run_and_sample() -> None:
    services = "{default: {image: x, volumes: ['both:/a']}, other: {image: x, volumes: ['both:/b']}}"
    text = f"volumes: {{both: }}\nservices: {services}"
    tags = [{"inspect-run": run, "inspect-task": "t", "inspect-sample": "4"} for run in ("Kq3-first", "Kq3-first", "Zx7-other")]
    first, again, other = [name_volumes(made(text), own) for own in tags]
    assert len({*first, *again, *other}) == 3
    assert "Kq3first" in first[0] and "Zx7other" in other[0] and "t-4" in first[0]
    assert [volumes_of(own) for own in tags] == [first, again, other]


def test_only_services_whose_network_is_open_reach_the_internet() -> None:
    result = made(
        """
        services:
          default: {image: x, networks: [inside]}
          proxy: {image: x, networks: [inside, outside]}
          store: {image: x, networks: [inside]}
        networks: {inside: {internal: true}, outside: {}}
        """
    )
    specification = sandbox_specification(result, ["im-1", "im-2", "im-3"], {})
    sidecars = {sidecar.name: sidecar.network for sidecar in specification.sidecars}
    assert sidecars["proxy"].outbound == "open"
    for network in (specification.network, sidecars["store"]):
        # A list without entries: the network of a container that is blocked has no address.
        assert network.outbound == "allowed" and not network.cidrs and not network.domains


def test_only_small_mounts_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    for name in ("one", "two"):
        (tmp_path / "data" / name).write_bytes(b"x" * 1000)
    text = "services: {default: {image: x, volumes: ['./data:/data:ro']}}"
    (tmp_path / "data" / "link").symlink_to("one")
    for limit, value in [("MAX_BYTES", 1999), ("MAX_FILES", 3)]:
        with monkeypatch.context() as patch:
            patch.setattr(binds, limit, value)
            with pytest.raises(ConfigError, match=r"services\.default\.volumes: .*data is too large"):
                made(text, tmp_path)
    monkeypatch.setattr(binds, "MAX_BYTES", 2000)
    monkeypatch.setattr(binds, "MAX_FILES", 4)
    context = Path(made(text, tmp_path).services[0].image["source"]["dockerfile"]["context"])
    assert (context / "0" / "one").read_bytes() == b"x" * 1000 and (context / "0" / "link").is_symlink()


def test_equal_names_of_mounts_in_different_directories_are_different_files(tmp_path: Path) -> None:
    contexts = []
    for where in ("here", "there"):
        (tmp_path / where).mkdir()
        (tmp_path / where / "settings").write_text(where)
        text = "services: {default: {image: x, volumes: ['./settings:/settings:ro']}}"
        contexts.append(Path(made(text, tmp_path / where).services[0].image["source"]["dockerfile"]["context"]))
    assert [(context / "0").read_text() for context in contexts] == ["here", "there"]


def test_the_readme_names_every_key_of_the_extensions() -> None:
    """Those who come from another plugin look for its keys in the table."""
    nodes = ast.walk(ast.parse(Path(extensions.__file__).read_text()))
    patterns = [ast.literal_eval(node.value) for node in nodes if isinstance(node, ast.MatchValue)]
    assert "experimental_options" in patterns
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    section = readme.partition("## Migrate from another plugin")[2].partition("\n## ")[0]
    assert [key for key in patterns if f"`{key}`" not in section and f": {key}`" not in section] == []


def test_the_secret_of_the_registry_is_that_of_every_service(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM example.com/private\n")
    services = "{default: {image: example.com/private}, built: {build: .}}"
    result = made(f"services: {services}\nx-modal: {{image_registry_secret: mine}}", tmp_path)
    found = [source["login_secret"] for service in result.services for source in service.image["source"].values()]
    assert found == ["mine", "mine"]
