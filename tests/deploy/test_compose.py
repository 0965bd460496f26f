"""The compose files: they fit the specification, their parts fit each other, and every check bites."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

COMPOSE = Path(__file__).resolve().parents[2] / "deploy" / "compose"
FILES = ("compose.yaml", "compose.gpu.yaml")
CHECK = Path(sys.executable).with_name("check-jsonschema")


def validate(*files: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [CHECK, "--builtin-schema", "vendor.compose-spec", *files]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def project() -> Any:
    return yaml.safe_load((COMPOSE / "compose.yaml").read_text())


def services(project: Any) -> list[tuple[str, Any]]:
    return list(project["services"].items())


def test_the_files_fit_the_compose_specification() -> None:
    done = validate(*(COMPOSE / name for name in FILES))
    assert done.returncode == 0, done.stdout


FAULTS = [
    ("restart: unless-stopped", "restarts: unless-stopped"),
    ("read_only: true", "read_only: [true]"),
    ("networks: [front, back]", "networks: 3"),
    ("stop_grace_period: 75s", "stop_grace_period: [75]"),
    ("condition: service_healthy", "condition: healthy"),
]


@pytest.mark.parametrize(("right", "wrong"), FAULTS, ids=lambda text: text[:20])
def test_a_planted_fault_does_not_fit(tmp_path: Path, right: str, wrong: str) -> None:
    text = (COMPOSE / "compose.yaml").read_text()
    assert right in text
    file = tmp_path / "compose.yaml"
    file.write_text(text.replace(right, wrong))
    assert validate(file).returncode == 1


def test_what_a_service_names_is_declared(project: Any) -> None:
    for name, service in services(project):
        for secret in service.get("secrets", []):
            source = secret if isinstance(secret, str) else secret["source"]
            assert source in project["secrets"], name
        for network in service.get("networks", []):
            assert network in project["networks"], name
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source.startswith((".", "$")) or source in project["volumes"], (name, source)


def test_what_is_mounted_from_the_repository_is_there(project: Any) -> None:
    mounts = [
        mount.split(":")
        for _, service in services(project)
        for mount in service.get("volumes", [])
        if mount.startswith(".")
    ]
    assert len(mounts) == 7
    for source, target, mode in mounts:
        assert (COMPOSE / source).exists(), source
        assert mode == "ro", target


def test_prometheus_finds_what_its_configuration_names(project: Any) -> None:
    service = project["services"]["prometheus"]
    mounted = {mount.split(":")[1] for mount in service["volumes"]} | {
        secret["target"] for secret in service["secrets"]
    }
    config = yaml.safe_load((COMPOSE / "../observability/prometheus.yml").read_text())
    named = [*config["rule_files"]]
    for job in config["scrape_configs"]:
        named += [path for one in job.get("file_sd_configs", []) for path in one["files"]]
        named += [job["authorization"]["credentials_file"]] if "authorization" in job else []
    assert len(named) >= 3
    for path in named:
        whole = f"/etc/prometheus/{path}"
        assert {whole, str(Path(whole).parent)} & mounted, path
    targets = yaml.safe_load((COMPOSE / "../observability/targets/wardrobe.yml").read_text())
    hosts = [target.split(":")[0] for group in targets for target in group["targets"]]
    managers = [
        target.split(":")[0]
        for one in config["alerting"]["alertmanagers"]
        for group in one["static_configs"]
        for target in group["targets"]
    ]
    assert {*hosts, *managers} <= project["services"].keys()


def test_alertmanager_tells_the_server_with_a_key_that_is_mounted(project: Any) -> None:
    text = (COMPOSE / "../observability/alertmanager.yml").read_text()
    for path in re.findall(r"credentials_file: (\S+)", text):
        targets = [secret["target"] for secret in project["services"]["alertmanager"]["secrets"]]
        assert f"/etc/alertmanager/{path}" in targets
    assert "http://wardrobe:8000/" in text


def test_every_service_is_closed(project: Any) -> None:
    for name, service in services(project):
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["user"].split(":")[0] != "0", name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert ":latest" not in service["image"], name
        assert ":" in service["image"], name


def test_a_stop_gives_the_server_the_time_that_it_drains(project: Any) -> None:
    server = project["services"]["wardrobe"]
    drain = float(server["environment"]["WARDROBE_DRAIN_SECONDS"])
    assert float(server["stop_grace_period"].removesuffix("s")) >= drain + 15


def test_the_worker_and_the_command_line_start_only_when_asked_for(project: Any) -> None:
    assert {name for name, service in services(project) if "profiles" in service} == {"cli", "worker"}


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """Make a copy of the script, a model's folder, and a `docker` that records what it was asked for."""
    (tmp_path / "compose").mkdir()
    (tmp_path / "compose/setup.sh").write_text((COMPOSE / "setup.sh").read_text())
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\ncase "$*" in *keys*) echo token ;; esac\n')
    docker.chmod(0o755)
    return tmp_path


def set_up(bench: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(bench / "compose/setup.sh"), *arguments]
    environment = {**os.environ, "DOCKER": str(bench / "docker")}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_set_up_makes_the_root_and_the_keys_once(bench: Path) -> None:
    for _ in range(2):
        done = set_up(bench, str(bench / "model"))
        assert done.returncode == 0, done.stderr
    asked = (bench / "asked").read_text()
    assert asked.count("init --base /models/base") == 2  # which changes nothing the second time
    assert asked.count("keys create --scope admin") == 2
    assert asked.count("keys create --scope infer") == 1
    secrets = bench / "compose/secrets"
    assert (secrets / "wardrobe-key").read_text() == "token\n"
    assert len((secrets / "grafana-password").read_text()) == 36
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert (bench / "compose/.env").read_text() == f"BASE_MODEL={bench / 'model'}\n"


def test_set_up_refuses_a_folder_without_a_model(bench: Path) -> None:
    done = set_up(bench, str(bench))
    assert done.returncode == 1
    assert "holds no config.json" in done.stderr
    assert not (bench / "compose/.env").exists()
