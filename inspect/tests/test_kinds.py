"""What differs between the sandbox types: configurations, plans and names. Nothing is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sandbox_host
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv
from inspect_modal_sandbox import DockerEngineSandboxConfig, ModalSandboxConfig, compose, planning, provider
from inspect_modal_sandbox import plan as plans
from inspect_modal_sandbox.kinds import DOCKER_ENGINE, MODAL, Kind
from inspect_modal_sandbox.plan import ConfigError
from sandbox_host.compose.keys import REFUSED, WARNED
from sandbox_host.compose.plan import Plan

HERE = Path("/")


def planned(service: dict[str, Any], kind: Kind = DOCKER_ENGINE, modal: dict[str, Any] | None = None) -> Plan:
    document = {"services": {"default": {"image": "i", **service}}, "x-modal": modal}
    return compose.plan(document, "f", HERE, {}, kind)


@pytest.mark.parametrize("kind", [MODAL, DOCKER_ENGINE], ids=lambda kind: kind.name)
def test_each_type_is_registered_with_its_own_configuration(kind: Kind) -> None:
    environment: Any = registry_find_sandboxenv(kind.name)
    assert environment.kind is kind
    config = environment.config_deserialize({"image": "i", "tags": {"a": "b"}})
    assert type(config).__name__ == kind.config
    assert planning.make(config, HERE, {}, kind).tags == {"a": "b"}
    assert (Path(sandbox_host.__file__).parent / f"{provider.component(kind)}-provider.wasm").is_file()


def test_the_configuration_of_another_type_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'docker-engine'.*DockerEngineSandboxConfig"):
        planning.make(ModalSandboxConfig(image="i"), HERE, {}, DOCKER_ENGINE)
    with pytest.raises(ConfigError, match=r"'modal'.*ModalSandboxConfig"):
        planning.make(DockerEngineSandboxConfig(image="i"), HERE, {}, MODAL)


def test_a_configuration_for_an_engine() -> None:
    config = DockerEngineSandboxConfig.model_validate(
        {
            "image": "i",
            "gpus": 2,
            "memory": 512,
            "network": "open",
            "ports": [80],
            "volumes": [{"name": "data", "path": "/data", "create": True}],
            "options": {"cap_add": '["SYS_PTRACE"]'},
        }
    )
    made = planning.make(config, HERE, {}, DOCKER_ENGINE)
    assert made.outbound == "open" and made.sandbox["ports"] == [[80, "tcp"]]
    assert made.sandbox["gpu"] == ("ANY", 2) and made.sandbox["memory_request_mib"] == 512
    assert made.sandbox["options"] == [("cap_add", ["SYS_PTRACE"])]
    (service,) = made.services
    assert service.volumes == [{"volume": "data", "path": "/data", "read_only": False, "create": True}]
    assert "regions" not in made.sandbox and made.app is None
    with pytest.raises(ValueError, match="app_name"):
        DockerEngineSandboxConfig.model_validate({"image": "i", "app_name": "a"})


def test_several_services_are_refused_where_a_sandbox_has_one_container() -> None:
    document = {"services": {"default": {"image": "i"}, "db": {"image": "i"}, "debug": {"image": "i", "profiles": ["debug"]}}}
    assert len(compose.plan(document, "f", HERE, {}).services) == 2
    with pytest.raises(ConfigError, match=r"f: services.*docker-engine has one container.*default, db"):
        compose.plan(document, "f", HERE, {}, DOCKER_ENGINE)
    del document["services"]["db"]
    assert len(compose.plan(document, "f", HERE, {}, DOCKER_ENGINE).services) == 1


OPTIONS: dict[str, tuple[Any, str, Any]] = {
    "cap_add": (["SYS_PTRACE"], "cap_add", ["SYS_PTRACE"]),
    "cap_drop": (["ALL"], "cap_drop", ["ALL"]),
    "security_opt": (["no-new-privileges"], "security_opt", ["no-new-privileges"]),
    "dns": ("10.0.0.1", "dns", ["10.0.0.1"]),
    "hostname": ("box", "hostname", "box"),
    "runtime": ("runsc", "runtime", "runsc"),
    "privileged": (True, "privileged", True),
    "read_only": (True, "read_only", True),
    "pids_limit": (50, "pids_limit", 50),
    "shm_size": ("128m", "shm_size_mib", 128),
}


@pytest.mark.parametrize("key", OPTIONS)
def test_a_key_sets_an_option_of_the_engine_only(key: str) -> None:
    value, option, wanted = OPTIONS[key]
    made = planned({key: value})
    assert made.sandbox["options"] == [(option, wanted)] and made.warnings == []
    if key in REFUSED:
        with pytest.raises(ConfigError, match=key):
            planned({key: value}, MODAL)
    else:
        other = planned({key: value}, MODAL)
        assert "options" not in other.sandbox and key in other.warnings[0]


def test_every_option_is_tested() -> None:
    assert set(OPTIONS) == set(DOCKER_ENGINE.options)


@pytest.mark.parametrize("key", sorted({*WARNED, *REFUSED} - set(DOCKER_ENGINE.options)))
def test_no_message_for_an_engine_is_about_modal(key: str) -> None:
    try:
        said = planned({key: ["x"]}).warnings
    except ConfigError as error:
        said = [str(error)]
    assert len(said) == 1 and key in said[0] and "odal" not in said[0]


def test_extensions_for_modal_on_an_engine() -> None:
    """What an engine can do takes effect. What would open the sandbox if it were left out is an error."""
    made = planned({}, modal={"block_network": True, "timeout": 60, "tags": {"a": "b"}, "gpu": "H100"})
    assert made.outbound == "blocked" and made.sandbox["lifetime_secs"] == 60 and made.tags == {"a": "b"}
    assert "gpu" not in made.sandbox
    assert made.warnings == ["f: x-modal.gpu has no effect with the sandbox type docker-engine."]
    with pytest.raises(ConfigError, match=r"x-modal\.cidr_allowlist is not supported"):
        planned({}, modal={"cidr_allowlist": ["10.0.0.0/8"]})


def test_each_type_has_its_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NETWORK", "OWNER", "COMPONENT"):
        monkeypatch.delenv(MODAL.variable(name), raising=False)
    monkeypatch.setenv("INSPECT_DOCKER_ENGINE_NETWORK", "open")
    monkeypatch.setenv("INSPECT_DOCKER_ENGINE_OWNER", "me")
    assert (plans.default_outbound(DOCKER_ENGINE), plans.default_outbound(MODAL)) == ("open", "blocked")
    assert provider.owner(DOCKER_ENGINE) == "me" and provider.owner(MODAL) != "me"
    assert provider.program(DOCKER_ENGINE)[1:] == ["--plugin", "docker"] and len(provider.program(MODAL)) == 1
    monkeypatch.setenv("INSPECT_DOCKER_ENGINE_COMPONENT", "/other.wasm")
    assert provider.program(DOCKER_ENGINE)[1:] == ["--plugin", "/other.wasm", "--grant"]
    monkeypatch.setenv("INSPECT_DOCKER_ENGINE_COMPONENT", "other")
    assert provider.component(DOCKER_ENGINE) == str(Path.cwd() / "other"), "a file, and not a bundled component"
    assert plans.wants_cost(MODAL) and not plans.wants_cost(DOCKER_ENGINE)
