"""A real Llama so small that a training of it takes a second, with the commonest words of the real tokenizer.

It is for what needs many runs. Its answers are noise; that a real base learns is the business of the tests
marked `training`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.store import Registry
from tests.train.bases import shortened
from train.config import TrainConfig, parse_config
from train.loop.watching import OptimiserStep, TrainingEvaluation
from train.runs.run import Finished, prepare, train_and_publish
from train.runs.session import RunOptions

ROWS = 22


def make_tiny_base(folder: Path, tokenizer: Any) -> Path:
    """Write the model with random but fixed weights, and the shortened tokenizer, to `folder`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = shortened(tokenizer)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass
class Watcher:
    """Whoever watches; `on_step` may ask the run to stop, or end the process."""

    on_step: Callable[[int], None] = lambda _step: None
    steps: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def step(self, step: OptimiserStep) -> None:
        self.steps.append(step.number)
        self.on_step(step.number)

    def evaluation(self, evaluation: TrainingEvaluation) -> None:
        self.said.append(evaluation.text())

    def close(self, state: str) -> None:
        pass

    def publishing(self) -> None:
        self.said.append("publishing")


def write_rows(folder: Path) -> None:
    """Write rows of unlike lengths, and held-out ones."""
    rows = [{"prompt": f"Colour {n}?", "completion": "emerald green " * (1 + n % 4)} for n in range(ROWS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "held-out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:6]))


def tiny_config(folder: Path, **changes: Any) -> TrainConfig:
    """Return a config over the rows of `write_rows`; a section given is merged into the default one."""
    document: dict[str, Any] = {
        "name": "tiny",
        "data": {"train": "rows.jsonl", "eval": "held-out.jsonl"},
        "lora": {"rank": 4, "dropout": 0.1},
        "training": {"steps": 12, "batch_size": 4, "max_length": 48, "learning_rate": 1e-2},
        "checkpoints": {"every": 4},
        "seed": 3,
    }
    for key, value in changes.items():
        both = isinstance(document.get(key), dict) and isinstance(value, dict)
        document[key] = {**document[key], **value} if both else value
    return parse_config(document, "tiny", folder)


def train(registry: Registry, config: TrainConfig, watcher: Watcher | None = None, **wish: Any) -> Finished:
    """Run `config` as the command would."""
    options = RunOptions("tester", watcher or Watcher(), **wish)
    return train_and_publish(prepare(config, registry), registry, options)
