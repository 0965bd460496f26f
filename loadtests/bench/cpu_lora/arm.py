"""One vLLM for the CPU LoRA benchmark: it runs the batches that its parent asks for, and times them.

`python -m loadtests.bench.cpu_lora.arm OPTIONS-AS-JSON` reads one batch as JSON per line and answers with
one line that begins with `MARK`; everything else that it prints is vLLM's log.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MARK = "measured "
PROMPT_TOKENS = 4


def _requests(adapters: Sequence[str | None], known: dict[str, int]) -> list[Any]:
    from vllm.lora.request import LoRARequest

    return [
        None if path is None else LoRARequest(Path(path).name, known.setdefault(path, len(known) + 1), path)
        for path in adapters
    ]


def _prompts(count: int, tokens: int) -> list[Any]:
    return [
        {"prompt_token_ids": [1000 + (131 * place + 17 * row) % 40_000 for place in range(tokens)]}
        for row in range(count)
    ]


def main() -> None:
    """Start the engine, say how long it took, and serve the parent until it hangs up."""
    started = time.monotonic()
    from vllm import LLM, SamplingParams

    engine = LLM(**json.loads(sys.argv[1]))
    print(f"{MARK}{time.monotonic() - started}", flush=True)
    known: dict[str, int] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        adapters = asked["adapters"]
        sampling = SamplingParams(max_tokens=asked["tokens"], temperature=0, ignore_eos=True)
        prompts = _prompts(len(adapters), asked.get("prompt", PROMPT_TOKENS))
        requests = _requests(adapters, known)
        began = time.monotonic()
        engine.generate(prompts, sampling, lora_request=requests, use_tqdm=False)
        print(f"{MARK}{time.monotonic() - began}", flush=True)


if __name__ == "__main__":
    main()
