"""The steps of a recipe, each kept: a second run goes on where the first one stopped.

Owns the order (rows, supervised runs, questions, pairs, preference run, guards) and the results file of
each step. Invariant: a step's result is written when the step is over, under a name that says what it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.demo.data import DemoRow
from deploy.demo.product import DemoServer, Product
from deploy.recipes.materials import SHARES, SHOTS, Materials, write_config, write_lines

GUARDS = ("mmlu-dev", "bbh", "refusals")
REPLAY_SHARE = 0.1
BASE = "base"


@dataclass(frozen=True, slots=True)
class RecipeRun:
    """One recipe on one root; `folder` holds its files and results."""

    materials: Materials
    product: Product
    folder: Path
    tell: Callable[[str], None]

    @property
    def adapter(self) -> str:
        """Return the adapter's name."""
        return self.materials.task.name

    def train_parts(self) -> dict[str, str]:
        """Train on a quarter, half and all of the rows; return `NAME@N` by the run's name."""
        names = {f"sft-{round(share * 100)}": share for share in SHARES}
        return {
            name: self._train(self.materials.write_config(self.folder, name, share))
            for name, share in names.items()
        }

    def train_with_replay(self) -> str:
        """Train on all rows with general ones mixed in; return `NAME@N`."""
        # A general answer may be longer than the task's rows; such rows are left out.
        data = {"replay": {"path": "replay.jsonl", "share": REPLAY_SHARE}, "overflow": "drop"}
        return self._train(self.materials.write_config(self.folder, "sft-replay", 1.0, data=data))

    def train_preferences(self, start: str) -> str:
        """Train on right against wrong answers, from version `start`; return `NAME@N`."""
        document = {
            "name": self.adapter,
            "from": start,
            "method": {"type": "dpo", "beta": 0.1, "supervised_weight": 0.2},
            "data": {"train": "pairs.jsonl"},
            "training": {"learning_rate": 2e-5, "epochs": 1, "batch_size": 4, "max_length": 256},
        }
        return self._train(write_config(self.folder, "dpo", document))

    def write_replay(self, server: DemoServer) -> None:
        """Write general rows: the base's own answers to general questions, so that it stays what it was."""
        from train.evaluation.formats.library import find_suite

        prompts = [str(item.prompt) for item in find_suite("mt-bench").items if not item.expected]
        items = [{"id": str(number), "prompt": prompt} for number, prompt in enumerate(prompts)]
        suite = {
            "name": "general",
            "items": "general.jsonl",
            "sampling": {"temperature": 0, "max_tokens": 160},
            "graders": [{"type": "stops"}],
        }
        write_lines(self.folder / "general.jsonl", items)
        (self.folder / "general.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
        said = self._texts(server, "general", BASE)
        rows = [
            {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}
            for prompt, answer in zip(prompts, said, strict=True)
            if answer.strip()
        ]
        write_lines(self.folder / "replay.jsonl", rows)

    def write_pairs(self, server: DemoServer, model: str) -> int:
        """Ask `model` the spare rows; each wrong answer becomes a pair with the right one; return how many.

        The pairs are verifiable: the right answer is the data's, the rejected one was really given.
        """
        rows = self.materials.spare
        said = self._ask(server, "spare", model, rows)
        pairs = [
            {
                "prompt": [dict(message) for message in self.materials.task.messages(row)],
                "chosen": [{"role": "assistant", "content": row.label}],
                "rejected": [{"role": "assistant", "content": answer}],
            }
            for row, answer in zip(rows, said, strict=True)
            if answer.strip() and answer.strip() != row.label
        ]
        write_lines(self.folder / "pairs.jsonl", pairs)
        return len(pairs)

    def evaluate(
        self, server: DemoServer, suite: str, model: str, *, shots: int | None = None
    ) -> dict[str, Any]:
        """Ask `model` (and the base with examples, if `shots`) a suite; return the kept document."""
        out = self.folder / "results" / f"{Path(suite).stem}-{model.replace('@', '-')}"
        if not (out / "run.json").exists():
            options = ["--shots", str(shots)] if shots else []
            self.tell(f"{suite}: asking {model}")
            self.product.run(
                "eval",
                "run",
                suite,
                "--model",
                model,
                "--url",
                server.url,
                "--out",
                out,
                "--no-attest",
                *options,
            )
        found: dict[str, Any] = json.loads((out / "run.json").read_text())
        return found

    def _ask(self, server: DemoServer, name: str, model: str, rows: Sequence[DemoRow]) -> list[str]:
        task = self.materials.task
        items = [
            {"id": str(number), "prompt": row.text, "expected": row.label} for number, row in enumerate(rows)
        ]
        write_lines(self.folder / f"{name}.items.jsonl", items)
        suite = {
            "name": name,
            "items": f"{name}.items.jsonl",
            "system": task.instruction,
            "sampling": {"temperature": 0, "max_tokens": 12},
            "graders": [{"type": "exact"}],
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(suite, sort_keys=False))
        return self._texts(server, name, model)

    def _texts(self, server: DemoServer, suite: str, model: str) -> list[str]:
        self.evaluate(server, str(self.folder / f"{suite}.yaml"), model)
        out = self.folder / "results" / f"{suite}-{model.replace('@', '-')}" / "items.jsonl"
        return [_answer(json.loads(line), model) for line in out.read_text().splitlines()]

    def _train(self, config: Path) -> str:
        note = yaml.safe_load(config.read_text())["note"]
        known = self.product.versions(self.adapter)
        if note not in known:
            self.tell(f"training {config.stem}")
            self.product.run("train", "run", config)
            known = self.product.versions(self.adapter)
        return f"{self.adapter}@{known[note]}"


def shots_of(materials: Materials) -> int:
    """Return how many examples the base gets: one or two of each label."""
    return max(SHOTS, len(materials.task.labels))


def _answer(line: Mapping[str, Any], model: str) -> str:
    return str(line["arms"][model]["text"])
