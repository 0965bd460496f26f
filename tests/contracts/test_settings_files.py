"""Whatever value stands in a file that people write: a setting, or our own error that names it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from loadtests.runner.loading import load_scenario
from registry.errors import UsageError, WardrobeError
from registry.settings.yaml_text import parse_yaml
from registry.storage import anchor
from registry.store import Registry
from serve.rollout.presets import load_policy
from serve.settings import load_settings
from tests.fakes.store import make_registry, put
from tests.fakes.terminal import Terminal
from train.config import load_config
from train.evaluation.formats.suites import load_suite
from train.evaluation.gating.goal import load_goal
from train.sweep.settings import load_sweep

TOML_VALUES = (
    "2026-01-01", "2026-01-01T00:00:00Z", "12:00:00", "nan", "-inf", "1e400", "[2026-01-01]",
    "{a = 2026-01-01}", "true", "[]", "{}", '""', "99999999999999999999",
)  # fmt: skip
YAML_VALUES = (
    "2026-01-01", "2026-13-45", "2026-01-01 25:61:00", ".nan", "-.inf", "{2026-01-01: 1}", "[2026-01-01]",
    "!!timestamp x", "!!int x", "!!float x", "!!binary x", "{[a]: b}", "[" * 3_000, "*unknown", "=",
)  # fmt: skip
BASE = '[base]\nname = "tiny"\npath = "/models/tiny"\n'
ROOT_FILES = (
    '[base]\nname = @\npath = "/x"\n', '[base]\nname = "x"\npath = @\n',
    f"{BASE}[limits]\nmax_lora_rank = @\n",
    f"{BASE}[retention]\nfeedback_days = @\n", f"{BASE}[publishing]\nrequire = @\n",
    f"publishing = @\n{BASE}", "base = @\n", f"limits = @\n{BASE}", f"unknown = @\n{BASE}",
)  # fmt: skip
SERVE_FILES = ("port = @", "limits = @", "[limits]\nbody_seconds = @", "cors_origins = @", "unknown = @")
POLICY = (files("serve.rollout") / "presets" / "fast.yaml").read_text("utf-8")
LOADERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "policy": (load_policy, POLICY),
    "training": (load_config, "name: support\nbase: /x\nlora:\n  rank: 8\n"),
    "sweep": (load_sweep, "name: support\nbase: /x\nsweep:\n  trials: 4\n"),
    "goal": (load_goal, "suite: refusals\nmetric: exact\n"),
    "suite": (load_suite, "items: rows.jsonl\ngraders: [{type: exact}]\n"),
    "scenario": (lambda path: load_scenario(str(path)), "arrival:\n  rate: 1\n"),
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    registry = make_registry(tmp_path_factory.mktemp("written"))
    put(registry)
    return registry


@pytest.mark.parametrize("value", TOML_VALUES)
def test_every_verb_answers_whatever_stands_in_wardrobe_toml(value: str, registry: Registry) -> None:
    for text in ROOT_FILES:
        (registry.root / "wardrobe.toml").write_text(text.replace("@", value))
        for line in ("list", "status", "promote support@1", "keys list"):
            anchor.drop(registry.root)
            done = Terminal(("--root", str(registry.root)))(*line.split())
            assert done.code == 0 or done.err.startswith("error: "), text


def test_a_date_in_wardrobe_toml_is_named_with_its_field(registry: Registry) -> None:
    (registry.root / "wardrobe.toml").write_text(f"{BASE}[retention]\nfeedback_days = 2026-01-01\n")
    with pytest.raises(WardrobeError, match=r"retention\.feedback_days: must be a whole number"):
        Registry.open(registry.root)


@pytest.mark.parametrize("value", TOML_VALUES)
def test_whatever_stands_in_serve_toml_is_a_setting_or_a_usage_error(value: str, tmp_path: Path) -> None:
    for text in SERVE_FILES:
        (tmp_path / "serve.toml").write_text(text.replace("@", value))
        with contextlib.suppress(UsageError):
            load_settings({}, tmp_path / "serve.toml")


def test_a_serve_toml_that_is_no_utf_8_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_bytes(b'host = "\xff"')
    with pytest.raises(UsageError, match=r"serve\.toml:1: is not UTF-8 text"):
        load_settings({}, tmp_path / "serve.toml")


@pytest.mark.parametrize("kind", LOADERS)
def test_whatever_value_stands_in_yaml_is_a_setting_or_our_own_error(kind: str, tmp_path: Path) -> None:
    load, text = LOADERS[kind]
    path = tmp_path / "file.yaml"
    keys = [line for line in text.splitlines() if ":" in line and not line.lstrip().startswith(("#", "-"))]
    for value in YAML_VALUES:
        for line in keys[:4]:
            path.write_text(text.replace(line, f"{line.partition(':')[0]}: {value}"))
            with contextlib.suppress(WardrobeError):
                load(path)
        path.write_text(f"{value}: 1\n{text}")
        with contextlib.suppress(WardrobeError):
            load(path)


def test_a_date_that_is_none_is_an_error_of_yaml() -> None:
    with pytest.raises(yaml.YAMLError, match="month must be in"):
        parse_yaml("began: 2026-13-45")
