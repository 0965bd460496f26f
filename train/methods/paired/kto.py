"""KTO: learning from single answers with a thumb up or down (arXiv 2402.01306).

Owns the rows, and which answers estimate the distance to the start (the paper's z): each prompt of a batch
with the answer of another row of that same batch. Invariant: no row estimates it with its own answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from registry.errors import UsageError
from train.config import TrainConfig
from train.dataset.containers.place import Where
from train.dataset.forms.mapping import PLAIN, RowMapping
from train.dataset.records import CanonicalRow, RowKind, RowMessage
from train.epoch.duration import Epoch
from train.epoch.encoding import Tokenizer, kept, refuse_overflow, require_template
from train.epoch.items import ItemFile, TrainingItem
from train.methods.answers import cut_answer, read_samples, render_answer
from train.methods.finishing import finish
from train.methods.interface import Method, TrainerInputs
from train.settings.methods import Kto

_REMEDY = 'write {"prompt": …, "completion": …, "label": true|false}, or pairs with chosen and rejected'


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """One answer and whether it is liked."""

    row: int
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    liked: bool
    truncated: bool

    @property
    def length(self) -> int:
        """Return the tokens of prompt and answer."""
        return len(self.prompt_ids) + len(self.answer_ids)

    @property
    def learnt(self) -> int:
        """Return the tokens of the answer."""
        return len(self.answer_ids)


class KtoMethod(Method):
    """Answers with a thumb up or down; a preference pair counts as one of each."""

    def check(self, config: TrainConfig) -> None:
        """Check that a batch has two rows: the distance to the start is estimated across rows.

        Raises: UsageError.
        """
        if config.training.batch_size < 2:
            fact = "training.batch_size is 1, and kto compares the rows of a batch"
            raise UsageError(config.name, fact, "set it to 2 or more", param="training.batch_size")

    def read(
        self, path: Where, tokenizer: Tokenizer, config: TrainConfig, reading: RowMapping = PLAIN
    ) -> ItemFile[TrainingItem]:
        """Return every rated answer, rendered with the base's template.

        Raises: UsageError: naming file and row; a file with a single answer.
        """
        require_template(tokenizer)
        found: list[TrainingItem] = []
        dropped = []
        for number, sample in read_samples(path, (RowKind.KTO, RowKind.PREFERENCE), _REMEDY, reading):
            items = _rated(path, number, sample, tokenizer, config)
            found.extend(items) if items else dropped.append(number)
        if len(found) == 1:
            raise UsageError(str(path), "holds a single answer, and kto compares answers", "add rows")
        return kept(path, found, dropped, config.training.max_length)

    def epoch(self, items: Sequence[TrainingItem], config: TrainConfig) -> Epoch:
        """Return the answers; those that estimate the distance to the start are not counted."""
        del config
        return Epoch(len(items), sum(item.length for item in items))

    def build(self, inputs: TrainerInputs) -> Any:
        """Return TRL's KTO trainer with our rows and batches."""
        from trl import KTOConfig

        settings = inputs.run.config.method
        assert isinstance(settings, Kto)
        arguments = KTOConfig(
            # TRL demands file order: it pairs answers before shuffling. Ours are paired in the batch.
            **{**inputs.arguments, "train_sampling_strategy": "sequential"},
            remove_unused_columns=False,
            max_length=inputs.run.config.training.max_length,
            beta=settings.beta,
            desirable_weight=settings.desirable_weight,
            undesirable_weight=settings.undesirable_weight,
            disable_dropout=inputs.run.config.lora.dropout == 0,
        )
        trainer = _trainer_class()(
            model=inputs.model,
            args=arguments,
            data_collator=_collator(inputs),
            train_dataset=_rows(inputs.run.items),
            eval_dataset=_rows(inputs.run.held_out) if inputs.run.held_out else None,
            processing_class=inputs.tokenizer,
            peft_config=inputs.peft_config,
            callbacks=list(inputs.callbacks),
        )
        trainer.args.train_sampling_strategy = inputs.arguments["train_sampling_strategy"]
        return finish(trainer)


def with_other_answers(examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a batch, each with the answer of the row before it as `KL_completion_ids`.

    A batch of one row, the last of an epoch, keeps the answer of another row that it carries as `other_ids`.
    """
    others = [example["completion_ids"] for example in (examples[-1], *examples[:-1])]
    if len(examples) == 1:
        others = [examples[0]["other_ids"]]
    return [{**example, "KL_completion_ids": other} for example, other in zip(examples, others, strict=True)]


def _rated(
    path: Where, number: int, sample: CanonicalRow, tokenizer: Tokenizer, config: TrainConfig
) -> list[RatedAnswer]:
    limit, overflow = config.training.max_length, config.data.overflow
    answers: list[tuple[tuple[RowMessage, ...], bool]] = [(sample.answer, sample.liked is not False)]
    if sample.rejected:
        answers.append((sample.rejected, False))
    items = []
    for answer, liked in answers:
        whole = render_answer(path, number, sample.prompt, answer, tokenizer, sample.tools)
        if whole.whole > limit and overflow != "truncate":
            refuse_overflow(path, number, whole.whole, limit, overflow)
            return []
        cut = cut_answer(path, number, whole, limit)
        items.append(RatedAnswer(number, cut.prompt_ids, cut.answer_ids, liked, cut.whole > limit))
    return items


def _rows(items: Sequence[Any]) -> Any:
    from datasets import Dataset

    answers = [list(item.answer_ids) for item in items]
    return Dataset.from_dict(
        {
            "prompt_ids": [list(item.prompt_ids) for item in items],
            "completion_ids": answers,
            "other_ids": [answers[-1], *answers[:-1]],
            "label": [item.liked for item in items],
            "length": [item.length for item in items],
        }
    )


def _collator(inputs: TrainerInputs) -> Any:
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

    tokenizer = inputs.tokenizer
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    collate = DataCollatorForUnpairedPreference(
        pad_token_id=pad, max_length=inputs.run.config.training.max_length
    )
    return lambda examples: collate(with_other_answers(examples))


def _trainer_class() -> type[Any]:
    from trl import KTOTrainer

    class RatedTrainer(KTOTrainer):
        """Takes the rows as they are."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return RatedTrainer
