"""One arm of the training benchmark: a plain TRL script, as its documentation writes one.

    python -m loadtests.bench.training.arm BASE ROWS OUT --steps N [--defaults] [--length]
    python -m loadtests.bench.training.arm BASE ROWS ADAPTER --score

Prints one JSON line: seconds of `train()` and the tokens that went through. `--defaults` leaves everything as
TRL sets it; without it the settings are ours (bf16 base, no recomputation). `--score` prints the loss of a
finished adapter instead, on the same tokens for everybody's: TRL also learns the line break that the template
writes behind the end of a turn, so the losses that two programs log are not of the same tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

LEARNING_RATE, BATCH, MAX_LENGTH, RANK, SEED = 5e-4, 8, 256, 16, 0


def main() -> None:
    """Train and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--score", action="store_true")
    parser.add_argument("--defaults", action="store_true")
    parser.add_argument("--length", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.simplefilter("ignore")
    if options.score:
        print(json.dumps({"loss": score(options.base, options.rows, options.out)}))
        return
    trainer = build(options)
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    trainer.model.save_pretrained(options.out)
    tokens = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
    print(json.dumps({"seconds": seconds, "tokens": tokens[-1]}))


def score(base: Path, rows: Path, adapter: Path) -> float:
    """Return the mean loss of the answers' tokens (end of turn included) under the adapter, in fp32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from train.epoch.encoding import load_examples

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter).eval()
    total = count = 0.0
    with torch.inference_mode():
        for example in load_examples(rows, tokenizer, max_length=MAX_LENGTH).items:
            ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
            total += float(model(input_ids=ids, labels=labels).loss) * example.learnt
            count += example.learnt
    return total / count


def build(options: Any) -> Any:
    """Return the trainer: TRL prepares the rows itself, from prompt and completion."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    rows = [json.loads(line)["messages"] for line in options.rows.read_text().splitlines()]
    pairs = [{"prompt": row[:-1], "completion": row[-1:]} for row in rows]
    ours: dict[str, Any] = {
        "model_init_kwargs": {"dtype": torch.bfloat16},
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": MAX_LENGTH,
        "train_sampling_strategy": "group_by_length" if options.length else "random",
    }
    arguments = SFTConfig(
        output_dir=str(options.out),
        per_device_train_batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="linear",
        warmup_steps=0.05,
        max_steps=options.steps,
        logging_steps=1,
        seed=SEED,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **({} if options.defaults else ours),
    )
    return SFTTrainer(
        model=str(options.base),
        args=arguments,
        train_dataset=Dataset.from_list(pairs),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )


if __name__ == "__main__":
    main()
