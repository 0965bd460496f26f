"""A model in this process: transformers on the base's folder, with an adapter's folder on top.

Owns evaluation where no server runs. Slow (one question at a time) and with PEFT's numerics, not the
server's: its figures are not evidence about what is served, and the report says `offline`. Imports torch
when the first question is asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from train.dataset.forms.chat import read_messages
from train.dataset.records import ToolCall
from train.evaluation.formats.forms import SuiteMessage
from train.evaluation.formats.suites import Suite
from train.evaluation.grading.grades import ModelAnswer, Tools
from train.evaluation.models.listening import Listener
from train.process.silence import quiet
from train.rendering.examples import prompt_ids
from train.rendering.interface import Unrenderable


class OfflineModel:
    """The base model in `base`, with the PEFT adapter in `adapter` if given.

    Its calls of tools are read as a server of `root` would read them.
    """

    def __init__(self, base: Path, adapter: Path | None, name: str, root: Path | None = None) -> None:
        self.name = name
        self._base = base
        self._adapter = adapter
        self._listener = Listener(base, root=root)
        self._loaded: tuple[Any, Any] | None = None
        self._lock = threading.Lock()

    @classmethod
    def around(cls, tokenizer: Any, model: Any, name: str, root: Path | None = None) -> OfflineModel:
        """Return a model that is loaded already and belongs to the caller (one in training)."""
        made = cls(Path(str(getattr(tokenizer, "name_or_path", ""))), None, name, root)
        made._loaded = (tokenizer, model)
        return made

    def answer(self, messages: Sequence[SuiteMessage], suite: Suite, tools: Tools = ()) -> ModelAnswer:
        """Answer one question that may call `tools`.

        Raises: UsageError: there are tools, and nothing here reads calls.
        """
        started = time.monotonic()
        with self._lock, quiet():
            tokenizer, model = self._load()
            ids = self._prompt_ids(messages, suite, tools)
            said, text = _generate(tokenizer, model, ids, suite)
        finish = "length" if len(said) >= suite.sampling.max_tokens else "stop"
        calls: tuple[ToolCall, ...] = ()
        if tools:
            heard = self._listener.hear(said, tools)
            text, calls = heard.text, heard.calls
            finish = "tool_calls" if calls else finish
        seconds = time.monotonic() - started
        return ModelAnswer(text, finish, len(ids), len(said), seconds, calls=calls)

    def close(self) -> None:
        """End what reads its calls."""
        self._listener.close()

    def log_probability(
        self, messages: Sequence[SuiteMessage], expected: str, suite: Suite
    ) -> tuple[float, int]:
        """Return the summed log-probability of `expected` after `messages`, and its number of tokens."""
        import torch

        with self._lock, quiet(), torch.inference_mode():
            tokenizer, model = self._load()
            before = self._prompt_ids(messages, suite)
            answer = list(tokenizer(expected, add_special_tokens=False).input_ids)
            logits = model(torch.tensor([before + answer], device=model.device)).logits[0].float().cpu()
            picked = torch.log_softmax(logits, dim=-1)[len(before) - 1 : -1]
            values = picked.gather(1, torch.tensor(answer)[:, None])
            return float(values.sum()), len(answer)

    def _prompt_ids(self, messages: Sequence[SuiteMessage], suite: Suite, tools: Tools = ()) -> list[int]:
        tokenizer, _ = self._load()
        if suite.api == "completions":
            return list(tokenizer(messages[-1].content).input_ids)
        turns = read_messages([message.written for message in messages], learn=False)
        try:
            return prompt_ids(turns, tokenizer, tools)
        except Unrenderable as error:
            raise UsageError(f"suite {suite.name}", str(error), error.remedy) from error

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            self._loaded = _load(self._base, self._adapter)
        return self._loaded


def _load(base: Path, adapter: Path | None) -> tuple[Any, Any]:
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise UsageError(
            "--offline", f"needs transformers ({error})", "pip install 'wardrobe-llm[train]'"
        ) from error
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, dtype=torch.bfloat16)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter, is_trainable=False)
    return tokenizer, model.eval()


def _generate(tokenizer: Any, model: Any, ids: list[int], suite: Suite) -> tuple[list[int], str]:
    """Return the ids of the answer, and its text without special tokens."""
    import torch

    sampling = suite.sampling
    settings: dict[str, Any] = {"max_new_tokens": sampling.max_tokens, "do_sample": sampling.temperature > 0}
    if sampling.temperature > 0:
        torch.manual_seed(sampling.seed)
        settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.stop:
        settings |= {"stop_strings": list(sampling.stop), "tokenizer": tokenizer}
    inputs = torch.tensor([ids], device=model.device)
    with torch.inference_mode():
        whole = model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            pad_token_id=tokenizer.eos_token_id,
            **settings,
        )
    new = whole[0, len(ids) :].tolist()
    text = str(tokenizer.decode(new, skip_special_tokens=True))
    for stop in sampling.stop:
        text = text.partition(stop)[0]
    return new, text
