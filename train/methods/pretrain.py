"""Continual pre-training: plain documents, every token learnt, end to end in rows of `max_length`.

Owns documents as token ids. Each ends with the token that ends a text in the base's own pre-training, which
in a chat model is another one than the end of a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from registry.errors import UsageError
from train.config import TrainConfig
from train.dataset.containers.place import Where
from train.dataset.forms import read_sample
from train.dataset.forms.mapping import PLAIN, RowMapping, require_columns
from train.dataset.records import Malformed, RowKind
from train.dataset.sources import RawRow, read_lines
from train.epoch.duration import Epoch
from train.epoch.encoding import Example, Tokenizer
from train.epoch.items import ItemFile, TrainingItem
from train.epoch.rows import row_error
from train.methods.interface import Method, TrainerInputs
from train.methods.packing import pack_stream
from train.methods.supervised import make_packed_trainer

_ENDS_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>")
_REMEDY = 'write {"text": …} in each line, or plain text in a .txt or .md file, a document per paragraph'


class PretrainMethod(Method):
    """Plain documents."""

    def check(self, config: TrainConfig) -> None:
        """Refuse `data.overflow`: a long document goes on in the next row.

        Raises: UsageError.
        """
        if config.data.overflow != "truncate":
            fact = f"data.overflow is {config.data.overflow}; a long document goes on in the next row"
            raise UsageError(config.name, fact, "leave it out with method: pretrain", param="data.overflow")

    def read(
        self, path: Where, tokenizer: Tokenizer, config: TrainConfig, reading: RowMapping = PLAIN
    ) -> ItemFile[TrainingItem]:
        """Return every document with its last token, however long it is.

        Raises: UsageError: naming file and row.
        """
        del config
        require_columns(path, reading)
        end = end_of_text(tokenizer)
        found = [_document(path, line, tokenizer, end, reading) for line in read_lines(path)]
        if not found:
            raise UsageError(str(path), "holds no documents", _REMEDY)
        return ItemFile(tuple(found))

    def epoch(self, items: Sequence[TrainingItem], config: TrainConfig) -> Epoch:
        """Return the rows of `max_length` tokens that the documents fill end to end."""
        tokens = sum(item.length for item in items)
        return Epoch(-(-tokens // config.training.max_length), tokens)

    def build(self, inputs: TrainerInputs) -> Any:
        """Return a trainer over rows of exactly `max_length` tokens."""
        limit = inputs.run.config.training.max_length
        held_out = pack_stream(inputs.run.held_out, limit)
        return make_packed_trainer(inputs, pack_stream(inputs.run.items, limit), held_out)


def end_of_text(tokenizer: Tokenizer) -> int:
    """Return the id that ends a document: the usual token where the tokenizer has it, else its own end.

    Raises: UsageError: it has neither.
    """
    for token in _ENDS_OF_TEXT:
        if token in tokenizer.all_special_tokens:
            found: Sequence[int] = tokenizer(token, add_special_tokens=False).input_ids
            if len(found) == 1:
                return int(found[0])
    if tokenizer.eos_token_id is None:
        raise UsageError("base model", "has no token that ends a text", "use another base")
    return tokenizer.eos_token_id


def _document(path: Where, line: RawRow, tokenizer: Tokenizer, end: int, reading: RowMapping) -> Example:
    try:
        sample = read_sample(line.parse(), reading)
    except Malformed as error:
        raise row_error(path, line.number, error, _REMEDY) from error
    if sample.form.kind is not RowKind.TEXT:
        fact = f"is {sample.form.kind.value}, not plain text"
        raise row_error(path, line.number, fact, f"{_REMEDY}; or use method: supervised")
    for token in tokenizer.all_special_tokens:
        if token in sample.text:
            remedy = "take it out: the document's end is added by itself"
            raise row_error(path, line.number, f"text holds the special token {token}", remedy)
    # With the special tokens that the base was pre-trained with: some begin each document with one.
    ids = list(tokenizer(sample.text, add_special_tokens=True).input_ids)
    whole = tuple(ids if ids[-1] == end else [*ids, end])
    return Example(line.number, whole, whole, truncated=False)
