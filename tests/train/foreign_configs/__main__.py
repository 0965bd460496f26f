"""The measurement: import every YAML of a folder, put rows in, check on a base that has its modules."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click

from registry.errors import WardrobeError
from registry.store import Registry
from tests.train.foreign_configs.bases import LAYERS, architecture_of, make_bases
from tests.train.foreign_configs.rows import put_rows
from train.config import parse_config
from train.importing.reading import read_settings
from train.importing.run import import_config
from train.runs.run import prepare

_RANK = 512


def main(folders: list[str]) -> None:
    """Print the figures of each folder, and the reason of everything that was refused or did not pass."""
    with tempfile.TemporaryDirectory() as work:
        for folder in folders:
            _measure(Path(folder), Path(work))


def _measure(folder: Path, work: Path) -> None:
    files = sorted(path for path in folder.rglob("*.y*ml") if ".github" not in path.parts)
    counts: Counter[str] = Counter(files=len(files))
    for path in files:
        try:
            found = import_config(path, layers=lambda: LAYERS)
        except WardrobeError as error:
            counts["refused"] += 1
            click.echo(f"refused  {path.relative_to(folder)}: {str(error).removeprefix(f'{path}: ')}")
            continue
        counts["imported"] += 1
        counts[f"imported as {found.form}"] += 1
        failure = _failure(path, found.config, work)
        if failure is not None and "fp16 needs a GPU" in failure:
            counts["of these in fp16, so on a GPU only"] += 1
            training = {**found.config["training"], "precision": "bf16"}
            found.config["training"] = training
            failure = _failure(path, found.config, work)
        if failure is not None and "lora.target_modules" in failure:
            counts["of these on another architecture's base, for theirs lacks modules that they name"] += 1
            failure = _failure(path, found.config, work, "llama") and _failure(
                path, found.config, work, "gemma-3"
            )
        counts["pass train check" if failure is None else "do not pass"] += 1
        if failure is not None:
            click.echo(f"no pass  {path.relative_to(folder)} ({architecture_of(_model(path))}): {failure}")
    click.echo(f"{folder}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))


def _failure(path: Path, given: dict[str, Any], work: Path, model: str | None = None) -> str | None:
    """Return why no base with the modules of the config's model passes, None where one does."""
    failure = "no base could be made"
    for base in make_bases(work, model or _model(path)):
        root = base.with_name(f"{base.name}-root")
        if not root.exists():
            Registry.init(root, base)
            settings = root / "wardrobe.toml"
            settings.write_text(
                settings.read_text().replace("max_lora_rank = 32", f"max_lora_rank = {_RANK}")
            )
        try:
            with tempfile.TemporaryDirectory() as rows:
                config = put_rows(Path(rows), given)
                prepare(parse_config(config, str(path), Path(rows)), Registry.open(root))
        except WardrobeError as error:
            failure = str(error)
        else:
            return None
    return failure


def _model(path: Path) -> str:
    source: dict[str, Any] = read_settings(path)
    given = next((source[key] for key in ("base_model", "model_name_or_path", "model") if key in source), "")
    return str(given.get("_component_", given)) if isinstance(given, dict) else str(given)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main(sys.argv[1:])
