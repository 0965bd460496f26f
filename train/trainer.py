"""One training run: rows and a base model in, a PEFT adapter folder out.

The only file that knows torch, transformers, TRL and PEFT. Owns the numerics: base weights in bf16,
adapter weights in fp32, logits only where a label is (TRL's fused head), batches of like length.
Invariant: the same config, data, base and machine give the same bytes.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any, Protocol

from registry.errors import WardrobeError
from train.config import OptimiserSettings, TrainConfig
from train.data import Example
from train.environment import device_has_gpu


class Progress(Protocol):
    """Whoever watches a run."""

    def step(self, done: int, total: int, loss: float, tokens: int) -> None:
        """Take note: `done` of `total` steps, the step's loss, all tokens so far."""

    def publishing(self) -> None:
        """Take note: the training is over, and from here on the result is kept."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run measured: losses per step, the final loss on the held-out file, seconds, tokens."""

    steps: int
    seconds: float
    tokens: int
    losses: tuple[float, ...]
    eval_loss: float | None
    device: str

    @property
    def tokens_per_second(self) -> float:
        """Return the training speed; prompt tokens count, padding does not."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def first_loss(self) -> float:
        """Return the mean loss over the first tenth of the steps."""
        return _mean(self.losses[: max(1, len(self.losses) // 10)])

    @property
    def last_loss(self) -> float:
        """Return the mean loss over the last tenth of the steps."""
        return _mean(self.losses[-max(1, len(self.losses) // 10) :])


@dataclass(slots=True)
class _Watch:
    """Collects what the trainer logs, and passes it on."""

    progress: Progress
    losses: list[float] = field(default_factory=list)
    tokens: int = 0

    def note(self, logs: dict[str, float], done: int, total: int) -> None:
        if "loss" not in logs:
            return
        self.losses.append(float(logs["loss"]))
        self.tokens = int(logs.get("num_tokens", self.tokens))
        self.progress.step(done, total, self.losses[-1], self.tokens)


def load_tokenizer(base: Path) -> Any:
    """Return the base's tokenizer, from its folder only."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base, local_files_only=True)


def train_adapter(
    config: TrainConfig,
    base: Path,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    out: Path,
    progress: Progress,
) -> TrainingResult:
    """Train one LoRA adapter on `examples` and write it to the folder `out`.

    Raises: WardrobeError: when the loss stops being a number.
    """
    watch = _Watch(progress)
    with _quiet():
        trainer = _build_trainer(config, base, examples, held_out, out, watch)
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
        _check_losses(config.name, watch.losses)
        eval_loss = float(trainer.evaluate()["eval_loss"]) if held_out else None
        trainer.model.save_pretrained(out)
        # PEFT's model card is an empty form that names the base's path on this machine.
        (out / "README.md").unlink(missing_ok=True)
    losses = tuple(watch.losses)
    return TrainingResult(len(losses), seconds, watch.tokens, losses, eval_loss, _device(trainer))


def _build_trainer(
    config: TrainConfig,
    base: Path,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    out: Path,
    watch: _Watch,
) -> Any:
    from transformers import PrinterCallback, set_seed
    from trl import SFTTrainer

    set_seed(config.seed)  # before the adapter is made: its first weights are random
    trainer = SFTTrainer(
        model=_load_base(base),
        args=_arguments(config, out),
        train_dataset=_dataset(examples),
        eval_dataset=_dataset(held_out) if held_out else None,
        processing_class=load_tokenizer(base),
        peft_config=_lora(config),
        callbacks=[_callback(watch)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _load_base(base: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.bfloat16, local_files_only=True, attn_implementation="sdpa"
    )


def _lora(config: TrainConfig) -> Any:
    from peft import LoraConfig

    lora = config.lora
    modules = lora.target_modules
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.scale_alpha,
        lora_dropout=lora.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
    )


def _arguments(config: TrainConfig, out: Path) -> Any:
    from trl import SFTConfig

    gpu = device_has_gpu()
    settings = config.training
    return SFTConfig(
        output_dir=str(out),
        seed=config.seed,
        max_length=settings.max_length,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        **_length(settings),
        # The rows come tokenised and labelled: TRL must not touch them.
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="group_by_length",
        # Recomputing activations halves the speed on a CPU, which has the memory; a GPU may not.
        gradient_checkpointing=gpu,
        bf16=gpu,
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _length(settings: OptimiserSettings) -> dict[str, float]:
    # transformers reads a warm-up below 1 as a share of all steps.
    length: dict[str, float] = {"warmup_steps": settings.warmup}
    if settings.steps is not None:
        return {**length, "max_steps": settings.steps}
    return {**length, "num_train_epochs": settings.epochs}


def _dataset(examples: Sequence[Example]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [list(example.input_ids) for example in examples],
            "labels": [list(example.labels) for example in examples],
        }
    )


def _callback(watch: _Watch) -> Any:
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        """Hands every log to the watch."""

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            watch.note(kwargs.get("logs") or {}, state.global_step, state.max_steps)

    return Watcher()


def _device(trainer: Any) -> str:
    import torch

    kind = str(trainer.args.device.type)
    return f"{kind}, {torch.get_num_threads()} threads" if kind == "cpu" else kind


def _check_losses(name: str, losses: Sequence[float]) -> None:
    for step, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            fact = f"the loss became {loss} at step {step} of {len(losses)}"
            raise WardrobeError(name, fact, "lower learning_rate; nothing was registered")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    # bitsandbytes reports a 4-bit kernel that it cannot fetch; nothing here is 4-bit.
    getLogger("bitsandbytes").setLevel(ERROR)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # NOTE: transformers and torch warn about their own deprecations in nearly every call.
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
