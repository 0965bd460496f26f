"""A broken version fails alone: it is refused or closed with its reason, and the others go on."""

from __future__ import annotations

import time
from pathlib import Path

import openai
import pytest

from loadtests.live import Live, wardrobe, wardrobe_json
from tests.e2e.asking import ALPHA, ask
from tests.fakes.adapters import make_adapter
from tests.fakes.base import SMOLLM2


def test_a_version_damaged_on_disk_is_quarantined_and_the_others_go_on(
    live: Live, markers: dict[str, Path]
) -> None:
    wardrobe(live.root, "register", "damaged", markers["alpha"], "--no-stable")
    weights = live.root / "adapters/damaged/versions/1/adapter_model.safetensors"
    weights.chmod(0o600)
    with weights.open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"\x7f\x7f\x7f")
    time.sleep(1)
    with pytest.raises(openai.APIStatusError, match=r"sha256|changed|digest") as caught:
        ask(live.client(), "damaged@1")
    assert caught.value.status_code in {409, 503}
    assert ask(live.client(), "support").marker == ALPHA
    assert wardrobe(live.root, "verify", "damaged@1", check=False).returncode == 1


def test_an_adapter_over_the_rank_limit_is_refused_before_it_is_a_version(live: Live, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "big", shape=SMOLLM2, rank=128)
    direct = wardrobe(live.root, "register", "big", folder, check=False)
    assert direct.returncode == 1
    assert "128" in direct.stderr
    assert "max_lora_rank" in direct.stderr
    over_http = wardrobe(live.root, "--url", live.url, "register", "big", folder, check=False)
    assert over_http.returncode == 1
    assert "max_lora_rank" in over_http.stderr
    assert "big" not in {entry["adapter"] for entry in wardrobe_json(live.root, "list")}


def test_an_adapter_that_changes_nothing_gets_no_proof_and_no_traffic(live: Live, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "idle", shape=SMOLLM2, zero_b=True)
    registered = wardrobe(live.root, "register", "idle", folder)
    assert "changes nothing" in registered.stderr
    time.sleep(1)
    with pytest.raises(openai.APIStatusError, match="differ from the base") as caught:
        ask(live.client(), "idle")
    assert caught.value.status_code == 503
    assert ask(live.client(), "support").marker == ALPHA


def test_an_adapter_built_for_other_dimensions_is_refused(live: Live, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "foreign")
    refused = wardrobe(live.root, "register", "foreign", folder, check=False)
    assert refused.returncode == 1
    assert "576" in refused.stderr
