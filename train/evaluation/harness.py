"""lm-evaluation-harness against our server: the command line that is right for it, run if it is installed.

Owns the arguments; its tasks, downloads and figures are its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Sequence

from registry.errors import NotFound
from registry.foreign import python


def command(
    model: str,
    url: str,
    tokenizer: str,
    tasks: str,
    *,
    chat: bool,
    concurrency: int,
    extra: Sequence[str] = (),
) -> list[str]:
    """Return the command; `tokenizer` is the base's folder, which counts tokens for completions.

    Tasks that compare log-likelihoods need completions (`chat` False): they use echo and logprobs.
    """
    root = url.rstrip("/").removesuffix("/v1")
    kind = "local-chat-completions" if chat else "local-completions"
    path = "/v1/chat/completions" if chat else "/v1/completions"
    arguments = [f"model={model}", f"base_url={root}{path}", f"num_concurrent={concurrency}", "max_retries=5"]
    if not chat:
        arguments += ["tokenizer_backend=huggingface", f"tokenizer={tokenizer}"]
    template = ["--apply_chat_template"] if chat else []
    options = ["--model", kind, "--model_args", ",".join(arguments), "--tasks", tasks]
    return python("-m", "lm_eval", *options, *template, *extra)


def run(arguments: Sequence[str], key: str | None) -> int:
    """Run the command and return its exit code.

    Raises: NotFound: lm-eval is not installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise NotFound("lm-eval", "is not installed", "pip install 'wardrobe-llm[guards]'")
    environment = {**os.environ, **({} if key is None else {"OPENAI_API_KEY": key})}
    return subprocess.run(arguments, env=environment, check=False).returncode
