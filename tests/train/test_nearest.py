"""`from: nearest`: the start with the lowest loss on the new rows, whoever registered it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from registry.cli.main import run as command
from registry.errors import UsageError
from registry.records import Limits, Version
from registry.store import Registry
from tests.train.tiny import Watcher, make_tiny_base, tiny_config, train, write_rows
from train.epoch.encoding import Example
from train.loop.attempt import Stopped
from train.methods.paired.kto import RatedAnswer
from train.methods.paired.pairs import Pair
from train.model.start_choice import Candidate, choose, ordered
from train.nearest.losses import Scales, measurable
from train.nearest.search import check_nearest
from train.process import launching
from train.runs.run import prepare
from train.sweep.settings import SweepSettings
from train.sweep.trials import open_sweep

pytestmark = [
    pytest.mark.training,
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny", tokenizer)


@pytest.fixture(scope="module")
def knowing(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an adapter that has learnt the rows a little."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("knowing")
    write_rows(folder)
    registry = Registry.init(folder / "root", base, name="tiny-base")
    items: Any = prepare(tiny_config(folder), registry).items
    torch.manual_seed(1)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype="float32", local_files_only=True)
    shape = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(plain, shape)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    for item in items[:8]:
        ids, labels = (torch.tensor([list(one)]) for one in (item.input_ids, item.labels))
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder / "adapter")
    return folder / "adapter"


@pytest.fixture
def registry(base: Path, tmp_path: Path) -> Registry:
    write_rows(tmp_path)
    return Registry.init(tmp_path / "root", base, name="tiny-base")


def noise(base: Path, folder: Path, seed: int = 1, scale: float = 0.5, **options: Any) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    plain = AutoModelForCausalLM.from_pretrained(base, dtype="float32", local_files_only=True)
    model = get_peft_model(plain, LoraConfig(**(given | options)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * scale)
    model.save_pretrained(folder)
    return folder


def opposed(adapter: Path, folder: Path) -> Path:
    """Return an adapter that does the opposite, so that it knows the rows less than the base does."""
    shutil.copytree(adapter, folder)
    path = folder / "adapter_model.safetensors"
    path.chmod(0o644)
    tensors = {name: -one if "lora_B" in name else one for name, one in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def nearest(folder: Path, **changes: Any) -> Any:
    return tiny_config(folder, **({"from": "nearest", "lora": {}} | changes))


def without_shape(folder: Path, **changes: Any) -> Any:
    """Return a config that says nothing of the adapter's shape, so any version can be the start."""
    config = nearest(folder, **changes)
    return config.model_copy(update={"lora": type(config.lora)(dropout=0.1)})


def test_a_run_starts_from_the_version_that_knows_the_rows_best_and_its_lineage_says_so(
    knowing: Path, registry: Registry, tmp_path: Path
) -> None:
    registry.publish("noise", opposed(knowing, tmp_path / "noise"), who="tester")
    parent = registry.publish("knowing", knowing, who="tester").version
    done = train(registry, without_shape(tmp_path, training={"steps": 2}))
    assert done.published is not None
    body: Any = registry.attestations("tiny", 1, "lineage")[0].body
    assert body["parent"] == {"version": "knowing@1", "digest": parent.digest}
    assert (body["config"]["from"], body["nearest"]["version"]) == ("nearest", "knowing@1")
    losses = {one["name"]: one["loss"] for one in body["nearest"]["candidates"]}
    assert set(losses) == {"tiny-base", "noise@1", "knowing@1"}
    assert losses["knowing@1"] < losses["tiny-base"] < losses["noise@1"]
    assert (body["nearest"]["measured_on"], body["nearest"]["rows"]) == ("held-out", 6)


def test_a_sweep_measures_once_and_all_its_trials_start_from_what_it_found(
    knowing: Path, registry: Registry, tmp_path: Path
) -> None:
    registry.publish("knowing", knowing, who="tester")
    (tmp_path / "tiny.yaml").write_text(
        json.dumps(
            {"name": "tiny", "from": "nearest", "data": {"train": "rows.jsonl", "eval": "held-out.jsonl"}}
        )
    )
    space: Any = {"training.learning_rate": [1e-4, 1e-3]}
    wanted = SweepSettings(config=tmp_path / "tiny.yaml", space=space, steps=4, budget_steps=40)
    sweep = open_sweep(wanted, tmp_path / "sweep", registry)
    assert {trial.config.start for trial in sweep.trials} == {"knowing@1"}
    registry.publish("knowing", opposed(knowing, tmp_path / "other"), who="tester")
    again = open_sweep(wanted, tmp_path / "sweep", registry)
    assert [trial.config for trial in again.trials] == [trial.config for trial in sweep.trials]


def test_a_measured_loss_is_that_of_the_model_and_the_base_is_itself_again_behind_each_adapter(
    base: Path, knowing: Path, registry: Registry, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = without_shape(tmp_path)
    item: Any = prepare(config, registry).held_out[0]
    rows = [measurable(item, 48)]
    assert rows[0] is not None
    scales = Scales(config, base, [rows[0]])
    before, under, after = scales.base(), scales.under(knowing), scales.base()
    again = scales.under(noise(base, tmp_path / "wide", r=8, target_modules=["v_proj"]))
    assert (before == after, under < before, again != under) == (True, True, True)
    assert scales.under(knowing) == under
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, local_files_only=True)
    model = PeftModel.from_pretrained(plain, knowing).eval()
    ids, labels = (torch.tensor([list(one)]) for one in rows[0])
    assert float(model(input_ids=ids, labels=labels).loss) == pytest.approx(under, rel=1e-3)


def test_the_base_wins_where_no_version_is_nearer(knowing: Path, registry: Registry, tmp_path: Path) -> None:
    alone = prepare(nearest(tmp_path), registry)
    assert alone.choice is not None
    assert (alone.parent, alone.choice.version, len(alone.choice.candidates)) == (None, None, 1)
    registry.publish("noise", opposed(knowing, tmp_path / "noise"), who="tester")
    found = prepare(without_shape(tmp_path, data={"train": "rows.jsonl"}), registry)
    assert found.choice is not None
    assert (found.parent, found.start, found.choice.version) == (None, None, None)
    assert "starts from the base" in found.choice.sentence
    assert (found.choice.measured_on, found.choice.candidates[1].name) == ("held-out", "noise@1")


def test_without_held_out_rows_the_same_few_training_rows_are_measured(
    registry: Registry, tmp_path: Path
) -> None:
    changes: Any = {"data": {"train": "rows.jsonl", "eval": None}, "nearest": {"rows": 5}}
    first, second = (prepare(nearest(tmp_path, **changes), registry).choice for _ in range(2))
    assert first is not None
    assert first == second
    assert (first.measured_on, first.rows) == ("training", 5)


def test_who_cannot_be_a_start_is_left_out_by_name(
    base: Path, knowing: Path, registry: Registry, tmp_path: Path
) -> None:
    for seed, name in enumerate(("bad", "touched", "wide")):
        registry.publish(name, noise(base, tmp_path / name, seed, r=8 if name == "wide" else 4), who="t")
    registry.quarantine("bad", 1, "rude", who="tester")
    weights = registry.version("touched", 1).path / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    own = noise(base, tmp_path / "own", 5)
    (own / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    registry.publish("own", own, who="tester", no_stable=True)
    registry.publish("knowing", knowing, who="tester")
    choice = prepare(nearest(tmp_path, lora={"rank": 4}), registry).choice
    assert choice is not None
    told = {one.name: one.left_out for one in choice.candidates if one.left_out is not None}
    assert set(told) == {"bad@1", "touched@1", "wide@1", "own@1"}
    assert told["bad@1"] == "quarantined: rude"
    assert "lora.rank is 4" in str(told["wide@1"])
    assert told["own@1"] == "has a chat template of its own"
    assert choice.version == "knowing@1"
    lowered = Registry.init(registry.root, base, name="tiny-base", limits=Limits(max_lora_rank=1))
    found = prepare(without_shape(tmp_path).model_copy(update={"lora": _rank_1()}), lowered).choice
    assert found is not None
    assert "rank 4 exceeds max_lora_rank 1" in {one.left_out for one in found.candidates}


def test_few_are_measured_those_with_an_alias_and_the_newest(
    base: Path, registry: Registry, tmp_path: Path
) -> None:
    for seed in range(3):
        registry.publish("noise", noise(base, tmp_path / str(seed), seed), who="tester")
    choice = prepare(without_shape(tmp_path, nearest={"candidates": 2}), registry).choice
    assert choice is not None
    assert [one.name for one in choice.candidates] == ["tiny-base", "noise@1", "noise@3"]
    assert choice.passed_over == 1


def test_a_run_that_goes_on_keeps_its_start_whatever_was_registered_meanwhile(
    base: Path, knowing: Path, registry: Registry, tmp_path: Path
) -> None:
    registry.publish("little", noise(base, tmp_path / "little", scale=1e-3), who="tester")
    config = without_shape(tmp_path, training={"steps": 4}, checkpoints={"every": 1})
    started = prepare(config, registry).choice
    assert started is not None
    stop: list[int] = []
    with pytest.raises(Stopped):
        train(registry, config, Watcher(on_step=stop.append), stopping=lambda: len(stop) >= 2)
    registry.publish("knowing", knowing, who="tester")
    fresh, kept = (prepare(config, registry, resume=resume) for resume in (False, True))
    assert fresh.choice is not None
    assert (fresh.choice.version, kept.choice) == ("knowing@1", started)


def test_ties_go_to_the_base_then_to_the_alias_then_to_the_newest() -> None:
    def candidate(name: str, loss: float | None) -> Candidate:
        return Candidate(name=name, digest=None if name == "base" else f"sha256:{name}", loss=loss)

    tied = [candidate("base", 1.0), candidate("a@1", 1.0), candidate("b@1", 1.0)]
    assert choose(tied, "training", 3, 0).version is None
    below = [candidate("base", 1.0), candidate("a@1", None), candidate("b@1", 0.5), candidate("c@1", 0.5)]
    assert choose(below, "training", 3, 0).version == "b@1"
    versions = [_version("a", 1, 10.0), _version("a", 2, 20.0), _version("b", 1, 30.0)]
    assert [one.name for one in ordered(versions, {"a@1"})] == ["a@1", "b@1", "a@2"]


def test_the_good_answer_of_a_row_is_measured_and_of_a_bad_one_nothing() -> None:
    assert measurable(Example(1, (1, 2, 3), (-100, 2, 3), truncated=False), 2) == ((1, 2), (-100, 2))
    assert measurable(Example(1, (1, 2, 3), (-100, -100, 3), truncated=False), 2) is None
    pair = Pair(1, (1, 2), (3, 4), (5, 6), truncated=False)
    assert measurable(pair, 9) == ((1, 2, 3, 4), (-100, -100, 3, 4))
    assert measurable(RatedAnswer(1, (1,), (2,), liked=True, truncated=False), 9) == ((1, 2), (-100, 2))
    assert measurable(RatedAnswer(1, (1,), (2,), liked=False, truncated=False), 9) is None


def test_where_nothing_can_be_measured_a_version_must_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path)
    method = {"type": "grpo", "reward": {"graders": [{"type": "regex", "pattern": "^I"}]}}
    with pytest.raises(UsageError, match="rows of grpo have none"):
        check_nearest(nearest(tmp_path, method=method))
    with pytest.raises(UsageError, match=r"lora\.kind dora cannot go on"):
        check_nearest(nearest(tmp_path, lora={"kind": "dora"}))
    with pytest.raises(UsageError, match="nearest is for `from: nearest`"):
        tiny_config(tmp_path, nearest={"rows": 3})
    monkeypatch.setenv(launching.MEETING, str(tmp_path / "job.json"))
    with pytest.raises(UsageError, match="wardrobe train check"):
        check_nearest(nearest(tmp_path))


def test_check_prints_the_candidates_with_their_losses(
    knowing: Path, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.publish("noise", opposed(knowing, tmp_path / "noise"), who="tester")
    document = {"name": "new", "from": "nearest", "data": {"train": "rows.jsonl"}}
    (tmp_path / "new.json").write_text(json.dumps(document))
    arguments = ["--root", str(registry.root), "train", "check", str(tmp_path / "new.json")]
    assert command(arguments) == 0
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines() if "@" in line or "tiny-base" in line][
        -1
    ] == "noise@1"
    assert "from: nearest starts from the base" in told.err
    assert command([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nearest"]["candidates"][1]["name"] == "noise@1"


def test_a_preset_does_not_contradict_the_shape_of_the_version_that_a_run_goes_on_from(
    base: Path, registry: Registry, tmp_path: Path
) -> None:
    registry.publish("noise", noise(base, tmp_path / "noise"), who="tester")
    config = tiny_config(tmp_path, **{"from": "noise@1", "preset": "few-shot", "lora": {"dropout": 0.0}})
    shaped = config.model_copy(update={"lora": type(config.lora)(dropout=0.0)})
    assert prepare(shaped, registry).config.lora.rank == 4


def _rank_1() -> Any:
    from train.settings.adapter import LoraSettings

    return LoraSettings.model_construct(_fields_set=set(), **dict(LoraSettings(rank=1)))


def _version(adapter: str, number: int, created: float) -> Version:
    return Version(adapter, number, "d", created, "", "", 4, ("q_proj",), 1, (), Path(), None)
