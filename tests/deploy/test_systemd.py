"""The systemd units, as systemd's own tools see them; nothing is started."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
UNITS = ("wardrobe.service", "wardrobe-gc.service", "wardrobe-gc.timer")
HIGHEST_EXPOSURE = 2.5
LAUNCHER_GRACE = 10


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Copy the units, with a program that exists in place of ours: `verify` looks for it."""
    for name in UNITS:
        text = (SYSTEMD / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/wardrobe/bin/wardrobe", "/bin/true"))
    return tmp_path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert shutil.which("systemd-analyze"), "apt-get install systemd"
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)


def verify(unit: Path) -> str:
    """Return what `verify` says: it exits with 0 also for keys that it does not know."""
    done = analyze("verify", unit)
    return done.stdout + done.stderr


def exposure(unit: Path) -> float:
    done = analyze("security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


def settings(name: str) -> RawConfigParser:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(SYSTEMD / name)
    return parser


@pytest.mark.parametrize("name", UNITS)
def test_systemd_has_nothing_to_say_about_a_unit(units: Path, name: str) -> None:
    assert verify(units / name) == ""


FAULTS = [
    ("KillMode=mixed", "KillModes=mixed", "Unknown key.* 'KillModes'"),
    ("Type=notify", "Type=eager", "Failed to parse"),
    ("/bin/true serve", "bin/true serve", "not absolute|Neither a valid"),
    ("SystemCallFilter=@system-service", "SystemCallFilter=@sytem-service", "sytem-service"),
    ("RestartSec=10", "RestartSec=soon", "Failed to parse"),
]


@pytest.mark.parametrize(("right", "wrong", "told"), FAULTS, ids=lambda text: text[:20])
def test_a_planted_fault_is_told(units: Path, right: str, wrong: str, told: str) -> None:
    unit = units / "wardrobe.service"
    assert right in unit.read_text()
    unit.write_text(unit.read_text().replace(right, wrong))
    assert re.search(told, verify(unit))


@pytest.mark.parametrize("name", ["wardrobe.service", "wardrobe-gc.service"])
def test_a_service_is_hardly_exposed(units: Path, name: str) -> None:
    assert exposure(units / name) <= HIGHEST_EXPOSURE


def test_a_service_without_its_walls_would_be_exposed(units: Path) -> None:
    unit = units / "wardrobe.service"
    unit.write_text(
        re.sub(r"^(Protect|Private|Capab|System|Restrict|No).*\n", "", unit.read_text(), flags=re.MULTILINE)
    )
    assert exposure(unit) > HIGHEST_EXPOSURE


def test_a_stop_reaches_the_launcher_alone_and_leaves_it_time_to_drain() -> None:
    service = settings("wardrobe.service")["Service"]
    assert service["KillMode"] == "mixed"
    from serve.settings import ServeSettings

    assert float(service["TimeoutStopSec"]) >= ServeSettings().drain_seconds + LAUNCHER_GRACE


def test_a_wrong_configuration_is_not_started_again() -> None:
    service = settings("wardrobe.service")["Service"]
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")


def test_the_user_of_the_units_is_made_by_sysusers() -> None:
    made = (SYSTEMD / "wardrobe.sysusers").read_text().splitlines()[-1].split()
    assert made[:2] == ["u", settings("wardrobe.service")["Service"]["User"]]
    assert settings("wardrobe-gc.service")["Service"]["User"] == made[1]


def test_the_drop_in_for_gpus_opens_their_devices_only(units: Path) -> None:
    folder = units / "wardrobe.service.d"
    folder.mkdir()
    shutil.copy(SYSTEMD / "gpu.conf", folder)
    assert verify(units / "wardrobe.service") == ""
    allowed = re.findall(r"DeviceAllow=(\S+)", (SYSTEMD / "gpu.conf").read_text())
    assert len(allowed) == 4
    assert all(device.startswith("char-nvidia") for device in allowed)
