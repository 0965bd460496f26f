"""A reward model: the base with an adapter and a head that gives one number; how it is made, kept, loaded.

Owns the artefact's folder: `adapter_model.safetensors` (LoRA and head), `adapter_config.json` and
`reward.json`, which names the base. The base itself is not in it. Invariant: a score is read at the last
token of a row, which is its end-of-turn token: the padding that a batch needs is another token.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from registry.errors import Conflict, UsageError
from registry.validation.base import read_base
from train.jobs.store import REWARD, Jobs

RECORD = "reward.json"
_FORMAT = "wardrobe-reward-model/1"
_ADAPTER = "adapter_config.json"


class SpecialTokens(Protocol):
    """What is needed of a tokenizer to choose a padding token."""

    eos_token_id: int | None
    pad_token_id: int | None
    all_special_ids: list[int]


def scoring_pad(tokenizer: SpecialTokens) -> int:
    """Return a token to pad with that is not the end of turn.

    transformers reads the score before the first padding token at the end of a row. Where padding is the
    end of turn, as in SmolLM2, that is one token too early: an answer that stops would look like one that
    does not.
    """
    choices = [tokenizer.pad_token_id, *tokenizer.all_special_ids]
    found = [token for token in choices if token is not None and token != tokenizer.eos_token_id]
    return found[0] if found else int(tokenizer.eos_token_id == 0)


def with_score_head(causal: Any, pad: int) -> Any:
    """Return a sequence classifier on the trunk of `causal`, with a new random head in fp32."""
    import torch
    from transformers import AutoModelForSequenceClassification

    config = causal.config
    config.num_labels = 1
    config.get_text_config().pad_token_id = pad
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    setattr(model, model.base_model_prefix, getattr(causal, causal.base_model_prefix))
    model.score = _head(config.get_text_config())
    for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit", "hf_quantizer", "quantization_method"):
        if hasattr(causal, flag):
            setattr(model, flag, getattr(causal, flag))
    return model


def reward_folder(root: Path, path: Path) -> Path:
    """Return the reward model that a config means: the folder at `path`, or the job that its name is.

    Raises: NotFound: it is neither; Conflict: the job made no reward model.
    """
    if path.is_dir():
        return path
    job = Jobs(root).find(path.name)
    if not (job.folder / REWARD).is_dir():
        fact = f"made no reward model (method {job.description.method}, {job.status().state.value})"
        raise Conflict(f"job {job.id}", fact, "name a job with method: reward that succeeded")
    return job.folder / REWARD


def check_reward_folder(folder: Path, base: Path | None = None) -> None:
    """Check that `folder` is a reward model; with `base`, that it was trained on that base.

    Raises: UsageError: it is none. Conflict: it was trained on another base.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {}
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        fact = f"is not a reward model: no {RECORD} of the format {_FORMAT}"
        remedy = "name the folder that a run with method: reward left"
        raise UsageError(str(folder), fact, remedy, param="method.reward.model")
    if base is not None and (found := _fingerprint(base)) != record["base"]:
        fact = f"was trained on another base ({record['base']}) than this root's ({found})"
        raise Conflict(str(folder), fact, "train a reward model on this base", param="method.reward.model")


def save_reward_model(model: Any, base: Path, folder: Path) -> None:
    """Write the artefact to the new folder `folder`."""
    model.save_pretrained(folder, selected_adapters=["default"])
    for entry in folder.iterdir():
        if entry.name not in {_ADAPTER, "adapter_model.safetensors"}:
            entry.unlink()
    fingerprint = _fingerprint(base)
    shape = json.loads((folder / _ADAPTER).read_text(encoding="utf-8"))
    shape["base_model_name_or_path"] = fingerprint  # PEFT writes the folder's path on this machine
    (folder / _ADAPTER).write_text(json.dumps(shape, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    record = {"format": _FORMAT, "base": fingerprint}
    (folder / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")


class RewardModel:
    """A trained reward model, ready to score rows of token ids."""

    def __init__(self, folder: Path, base: Path, tokenizer: SpecialTokens, *, dtype: Any) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        check_reward_folder(folder, base)
        self._pad = scoring_pad(tokenizer)
        causal = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, local_files_only=True)
        self._model = PeftModel.from_pretrained(with_score_head(causal, self._pad), str(folder)).eval()

    def to(self, device: Any) -> RewardModel:
        """Move to `device` and return the same model."""
        self._model.to(device)
        return self

    def scores(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """Return the reward of each row of token ids (prompt and answer)."""
        import torch

        width = max(len(row) for row in rows)
        ids = torch.tensor([[*row, *[self._pad] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        device = next(self._model.parameters()).device
        with torch.inference_mode():
            logits = self._model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
        return [float(value) for value in logits[:, 0]]


def _fingerprint(base: Path) -> str:
    return read_base(base, base.name).fingerprint


def _head(config: Any) -> Any:
    import torch

    class Head(torch.nn.Linear):
        """Takes hidden states of any precision."""

        def forward(self, hidden: Any) -> Any:
            return super().forward(hidden.to(self.weight.dtype))

    head = Head(config.hidden_size, 1, bias=False)
    torch.nn.init.normal_(head.weight, std=getattr(config, "initializer_range", 0.02))
    return head
