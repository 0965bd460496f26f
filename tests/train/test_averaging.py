"""`wardrobe train average`: what adapters change is averaged, whatever their shapes; who may take part."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.cli.main import run as command
from registry.errors import UsageError
from registry.store import Registry
from tests.fakes.adapters import Adapter
from tests.fakes.base import TINY
from tests.fakes.llama import load_llama, make_llama
from train.averaging.shares import parse_weights, shares_of
from train.averaging.sources import rows_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`"),
]

Changes = dict[str, torch.Tensor]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def registry(base: Path, tmp_path: Path) -> Registry:
    return Registry.init(tmp_path / "root", base, name="tiny")


@pytest.fixture
def run(registry: Registry, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = command(["--root", str(registry.root), "train", "average", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@dataclass
class Client:
    """One adapter as a client trained it: its folder and what it changes, weight by weight."""

    folder: Path
    changes: Changes = field(default_factory=dict)


def client(base: Path, folder: Path, seed: int, **options: Any) -> Client:
    """Make a LoRA with random weights, save it, and take its changes from PEFT itself."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    model = get_peft_model(load_llama(base), LoraConfig(**(given | options)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return Client(folder, changes_of(model))


def changes_of(model: Any) -> Changes:
    from peft.tuners.lora import LoraLayer

    inner = model.get_base_model()
    layers = {name: one for name, one in inner.named_modules() if isinstance(one, LoraLayer)}
    return {name: layer.get_delta_weight("default").detach() for name, layer in layers.items()}


def changes_in(base: Path, folder: Path) -> Changes:
    from peft import PeftModel

    return changes_of(PeftModel.from_pretrained(load_llama(base), folder))


def mean(clients: Sequence[Client], shares: Sequence[float]) -> Changes:
    names = {name for one in clients for name in one.changes}
    return {
        name: torch.stack(
            [
                share * one.changes[name]
                for one, share in zip(clients, shares, strict=True)
                if name in one.changes
            ]
        ).sum(0)
        for name in names
    }


def distance(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> float:
    """Return the Frobenius norm of the difference, relative to what was wanted."""
    assert set(found) == set(wanted)
    lost = sum(float((found[name] - wanted[name]).square().sum()) for name in wanted)
    return math.sqrt(lost / sum(float(one.square().sum()) for one in wanted.values()))


SHAPES: dict[str, dict[str, Any]] = {
    "rank and alpha": {"r": 6, "lora_alpha": 3},
    "rslora": {"use_rslora": True, "r": 9},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 32}},
    "modules": {"target_modules": ["v_proj", "q_proj"]},
    "one layer": {"layers_to_transform": [1]},
    "an expression": {"target_modules": r".*layers\.0.*(up|down)_proj"},
    "embeddings": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
    "an even init": {"init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_average_changes_each_weight_by_the_weighted_mean_of_what_the_sources_change(
    base: Path, run: Run, tmp_path: Path, shape: str
) -> None:
    one = client(base, tmp_path / "one", 1)
    two = client(base, tmp_path / "two", 2, **SHAPES[shape])
    code, printed, told = run(one.folder, two.folder, "--weights", "3,1", "--out", tmp_path / "out", "--json")
    assert code == 0, told
    report = json.loads(printed)
    assert report["residual"] < 1e-6
    assert [source["weight"] for source in report["sources"]] == [0.75, 0.25]
    assert distance(changes_in(base, tmp_path / "out"), mean([one, two], [0.75, 0.25])) < 1e-5


def test_the_mean_of_a_and_of_b_would_be_another_adapter(base: Path, run: Run, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    one, two = client(base, tmp_path / "one", 1), client(base, tmp_path / "two", 2)
    files = [load_file(one_.folder / "adapter_model.safetensors") for one_ in (one, two)]
    naive = client(base, tmp_path / "naive", 3).folder
    apart = {name: (files[0][name] + files[1][name]) / 2 for name in files[0]}
    save_file(apart, naive / "adapter_model.safetensors", metadata={"format": "pt"})
    assert run(one.folder, two.folder, "--weights", "equal", "--out", tmp_path / "out")[0] == 0
    wanted = mean([one, two], [0.5, 0.5])
    assert distance(changes_in(base, tmp_path / "out"), wanted) < 1e-5
    assert distance(changes_in(base, naive), wanted) > 0.5


def test_one_round_with_itself_is_the_adapter_itself_at_its_own_rank(
    base: Path, run: Run, registry: Registry, tmp_path: Path
) -> None:
    one = client(base, tmp_path / "one", 1)
    registry.publish("support", one.folder, who="tester")
    code, printed, told = run(one.folder, "support@1", "--out", tmp_path / "out", "--json")
    assert code == 0, told
    report = json.loads(printed)
    assert (report["rank"], report["exact_rank"]) == (4, 4)
    assert report["agreement"] == pytest.approx(1.0)
    assert report["sources"][0]["digest"] == report["sources"][1]["digest"]
    assert distance(changes_in(base, tmp_path / "out"), one.changes) < 1e-5


def test_versions_of_two_roots_and_a_folder_become_a_version_whose_lineage_names_them(
    base: Path, run: Run, registry: Registry, tmp_path: Path
) -> None:
    other = Registry.init(tmp_path / "other", base, name="their-name-for-it")
    clients = [client(base, tmp_path / name, seed) for seed, name in enumerate(("one", "two", "three"))]
    here = registry.publish("support", clients[0].folder, who="tester").version
    there = other.publish("clinic", clients[1].folder, who="tester").version
    code, printed, told = run(
        *("support@stable", f"{other.root}:clinic@1", clients[2].folder),
        *("--weights", "1,2,5", "--name", "shared", "--alias", "round-1", "--note", "round 1", "--json"),
    )
    assert code == 0, told
    report = json.loads(printed)
    assert (report["adapter"], report["version"], report["rank"]) == ("shared", 1, 12)
    version = registry.version("shared", 1)
    assert distance(changes_in(base, version.path), mean(clients, [1 / 8, 2 / 8, 5 / 8])) < 1e-5
    assert registry.aliases("shared") == {"round-1": 1, "stable": 1}
    (lineage,) = registry.attestations("shared", 1, "lineage")
    sources: Any = lineage.body["sources"]
    assert [source["name"] for source in sources] == [
        "support@1", f"{other.root}:clinic@1", str(clients[2].folder)
    ]  # fmt: skip
    assert [source["digest"] for source in sources][:2] == [here.digest, there.digest]
    assert [source["weight"] for source in sources] == [0.125, 0.25, 0.625]
    again = json.loads(run(*(source["name"] for source in sources), "--weights", "1,2,5", "--name", "shared",
                           "--json")[1])  # fmt: skip
    assert (again["version"], again["created"]) == (1, False)


def test_a_rank_that_is_too_low_is_refused_with_what_it_loses_and_taken_where_that_is_accepted(
    base: Path, run: Run, registry: Registry, tmp_path: Path
) -> None:
    folders = [client(base, tmp_path / str(seed), seed, r=12, lora_alpha=12).folder for seed in range(3)]
    code, _, told = run(*folders, "--name", "shared")
    assert code == 1
    assert "LoRA of rank 32: leaves out 0.085 of the average" in told
    assert "raise max_lora_rank in wardrobe.toml (rank 36 leaves nothing out)" in told
    assert registry.adapters() == []
    code, _, told = run(*folders, "--rank", "8", "--name", "shared")
    assert (code, "give --rank up to 32" in told) == (1, True)
    code, printed, told = run(
        *folders, "--rank", "8", "--accept-residual", "0.9", "--name", "shared", "--json"
    )
    assert code == 0, told
    report = json.loads(printed)
    wanted = mean([Client(folder, changes_in(base, folder)) for folder in folders], [1 / 3] * 3)
    found = distance(changes_in(base, registry.version("shared", 1).path), wanted)
    assert found == pytest.approx(report["residual"], rel=1e-3)
    assert (report["rank"], 0.3 < found < 0.9) == (8, True)


def test_rows_weigh_the_sources_where_every_lineage_tells_them(
    base: Path, run: Run, registry: Registry, tmp_path: Path
) -> None:
    for seed, (name, rows) in enumerate({"north": 30, "south": 10}.items()):
        facts: Any = {
            "mixture": {"train": {"limited": rows}, "replay": {"limited": 99}},
            "data": {"train": {"sha256": name}},
            "goal_sha256": "g",
        }
        folder = client(base, tmp_path / name, seed).folder
        registry.publish(name, folder, who="tester", lineage=facts)
    report = json.loads(run("north@1", "south@1", "--name", "shared", "--json")[1])
    assert report["weighed_by"] == "rows"
    assert [source["weight"] for source in report["sources"]] == [0.75, 0.25]
    body = registry.attestations("shared", 1, "lineage")[0].body
    assert (body["rows"], body["goal_sha256"]) == (40, "g")
    assert body["data"] == {"north@1 train": {"sha256": "north"}, "south@1 train": {"sha256": "south"}}
    assert rows_of(body) == 40  # so an average takes part in the next one
    folder = client(base, tmp_path / "west", 7).folder
    report = json.loads(run("north@1", folder, "--out", tmp_path / "out", "--json")[1])
    assert report["weighed_by"] == "equal"
    code, _, told = run("north@1", folder, "--weights", "rows", "--out", tmp_path / "out-2")
    assert (code, "no lineage tells the rows of" in told) == (2, True)


@pytest.mark.parametrize("text", ["0", "-1,1", "nan,1", "inf,1", "1,", "1;2", "١,1", "1e999,1", "x"])
def test_a_weight_that_is_no_number_above_0_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--weights"):
        parse_weights(text)


def test_weights_are_shares_of_1_whatever_their_size(base: Path, registry: Registry, tmp_path: Path) -> None:
    from train.averaging.sources import find_source

    source = find_source(str(client(base, tmp_path / "one", 1).folder), registry)
    assert shares_of([source, source], (1e308, 1e308)) == ("given", [0.5, 0.5])
    assert shares_of([source, source], (3.0, 1.0)) == ("given", [0.75, 0.25])
    with pytest.raises(UsageError, match="nothing beside"):
        shares_of([source, source], (1e308, 1e-308))
    with pytest.raises(UsageError, match="3 weights for 2 sources"):
        shares_of([source, source], (1.0, 1.0, 1.0))


def test_who_may_not_take_part_is_named_and_nothing_is_registered(
    base: Path, run: Run, registry: Registry, tmp_path: Path
) -> None:
    good = client(base, tmp_path / "good", 1).folder
    for seed, name in enumerate(("kept", "bad", "gone", "touched"), start=2):
        registry.publish(name, client(base, tmp_path / name, seed).folder, who="tester")
    registry.publish("gone", client(base, tmp_path / "newer", 9).folder, who="tester")
    registry.promote("gone", 2, who="tester")
    registry.delete("gone", 1, who="tester")
    registry.quarantine("bad", 1, "rude answers", who="tester")
    weights = registry.version("touched", 1).path / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    wide = make_llama(tmp_path / "wide", replace(TINY, hidden=32))
    strange = Registry.init(tmp_path / "strange", wide, name="tiny")
    strange.publish("theirs", client(wide, tmp_path / "theirs", 1).folder, who="tester")
    poisoned = Adapter(poison=math.nan, dtype="F32").write(tmp_path / "poisoned")
    dora = client(base, tmp_path / "dora", 1, use_dora=True).folder
    opposed = client(base, tmp_path / "opposed", 1, lora_alpha=8).folder
    _negate(opposed)
    refused: dict[str, Sequence[object]] = {
        "bad@1 is quarantined (rude answers)": ["kept@1", "bad@1"],
        "there is no gone@1": ["kept@1", "gone@1"],
        "touched@1": ["kept@1", "touched@1"],
        "kept@7": ["kept@1", "kept@7"],
        "was made for another base": ["kept@1", f"{strange.root}:theirs@1"],
        "the base tiny's maps 128 to 64": ["kept@1", tmp_path / "theirs"],
        "tensors hold NaN or infinity": ["kept@1", poisoned],
        "uses DoRA": ["kept@1", dora],
        "is named twice": ["kept@1", "kept@stable"],
        "1 given; an average needs two": ["kept@1"],
        "is not a folder, nor a version": ["kept@1", "nowhere"],
        "is not a Wardrobe root": ["kept@1", f"{tmp_path}/nowhere:kept@1"],
        "the sources cancel out": [good, opposed],
        "names the base model": ["kept@1", good, "--name", "tiny"],
        "--rank: 64 is not within 1 to 32": ["kept@1", good, "--rank", "64"],
    }
    before = sorted(registry.adapters())
    missed: dict[str, str] = {}
    for words, arguments in refused.items():
        named = [] if "--name" in arguments else ["--name", "shared"]
        code, printed, told = run(*arguments, *named)
        assert code in {1, 2}, (words, printed)
        if words not in told:
            missed[words] = told
    assert missed == {}
    assert sorted(registry.adapters()) == before
    assert registry.quarantined("touched", 1) is not None


def test_the_target_is_a_name_or_a_new_folder(base: Path, run: Run, tmp_path: Path) -> None:
    one, two = (client(base, tmp_path / str(seed), seed).folder for seed in range(2))
    assert "are both missing" in run(one, two)[2]
    assert "exclude each other" in run(one, two, "--name", "a", "--out", tmp_path / "out")[2]
    assert "registers none" in run(one, two, "--alias", "a", "--out", tmp_path / "out")[2]
    assert "exists already" in run(one, two, "--out", tmp_path / "0")[2]
    code, printed, told = run(one, two, "--out", tmp_path / "out")
    assert (code, printed.splitlines()[0]) == (0, str(tmp_path / "out"))
    assert "weighed by equal; rank 8 on 4 modules leaves out 0.0000 of the average" in told


def test_a_chat_template_goes_along_where_all_have_it_and_is_refused_where_they_differ(
    base: Path, run: Run, registry: Registry, tmp_path: Path
) -> None:
    one, two = (client(base, tmp_path / str(seed), seed).folder for seed in range(2))
    (one / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    code, _, told = run(one, two, "--name", "shared")
    assert (code, "was trained on another chat template" in told) == (2, True)
    (two / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    assert run(one, two, "--name", "shared")[0] == 0
    assert (registry.version("shared", 1).path / "chat_template.jinja").exists()


def _negate(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    tensors = {name: -one if "lora_B" in name else one for name, one in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
