"""Nothing cites what is not here: comments, docstrings and Markdown name files and modules that exist."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.checkout import PACKAGES, REPOSITORY, tracked_files

FILES = [path.relative_to(REPOSITORY).as_posix() for path in tracked_files()]
FOLDERS = {parent.as_posix() for name in FILES for parent in Path(name).parents}
# By every tail of its path: `decision/machine.py` names a file wherever it lies.
TAILS = {name.split("/", skip)[-1] for name in FILES for skip in range(name.count("/") + 1)}

# History, and records of what was measured once.
PAST = ("CHANGELOG.md", "bench-results/")
# What lies in no checkout: files of users, of other programs, and of what we write.
THEIRS = {
    "convert_hf_to_gguf.py",  # llama.cpp
    "convert_lora_to_gguf.py",
    "report.md",  # what a load test writes
    "serve.ingress",  # Ray Serve
    "serve.multiplexed",
    "serve.py",
    "train.py",
    "utils.py",
}
OTHERS = ("llamafactory/", "vllm/")
# Where the last part is one of these a dotted name is a file of somebody's, not a module.
SUFFIXES = {"html", "json", "jsonl", "log", "md", "py", "service", "toml", "yaml"}
# A word that stands for what a reader has: NAME, BENCHMARK.
_STANDS_FOR = re.compile(r"[A-Z]{3,}")
_TOPS = "|".join(sorted({name.split("/", 1)[0] for name in FILES if "/" in name and name[0] != "."}))
_FILE = re.compile(r"(?<![\w./:@*<{$~-])((?:[\w.-]+/)*[A-Za-z_][\w-]*\.(?:py|md))\b(?![/\w])")
_PATH = re.compile(rf"(?<![\w./:@*<{{$~-])((?:{_TOPS})/[\w./-]*\w)")
_MODULE = re.compile(rf"(?<![\w./-])((?:{'|'.join(PACKAGES)})(?:\.[a-z_]\w*)+)")
# Documents that lie outside of every checkout.
_OUTSIDE = re.compile(r"\(design\b|\bdesign:|\bserving-lessons\b|\bhouse-style\b|\bshared/")


def prose(name: str) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line that a person wrote for people."""
    text = (REPOSITORY / name).read_text(errors="replace")
    if name.endswith(".md"):
        yield from enumerate(re.sub(r"\w+://\S+", "", text).splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], re.sub(r"\w+://\S+", "", token.string)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            for number, line in enumerate(str(node.value.value).splitlines(), node.lineno):
                yield number, re.sub(r"\w+://\S+", "", line)


def is_module(dotted: str) -> bool:
    """Return True when the name leads to a package, a module, or a name in one."""
    here, parts = REPOSITORY, dotted.split(".")
    while parts and (here / parts[0]).is_dir():
        here /= parts.pop(0)
    if not parts:
        return True
    module = here / f"{parts.pop(0)}.py"
    if module.is_file():
        return not parts or re.search(rf"\b{parts[0]}\b", module.read_text()) is not None
    # A name of the package itself, or what a registry does: people call the object `registry`.
    homes = [here / "__init__.py", REPOSITORY / "registry" / "store.py"]
    return any(re.search(rf"\b{module.stem}\b", home.read_text()) for home in homes)


def missing(name: str, line: str) -> Iterator[str]:
    """Yield what `line` of the file `name` cites and is not here."""
    around = [Path(name).parent, *Path(name).parent.parents]
    for cited in _FILE.findall(line):
        found = cited in TAILS or any((REPOSITORY / folder / cited).exists() for folder in around)
        if not found and cited not in THEIRS and not cited.startswith(OTHERS):
            yield cited
    for cited in _PATH.findall(line):
        plain = cited.rstrip("/.")
        if plain not in TAILS and plain not in FOLDERS and not any(n.startswith(plain) for n in FILES):
            yield cited
    for cited in _MODULE.findall(line):
        if cited not in THEIRS and cited.rpartition(".")[2] not in SUFFIXES and not is_module(cited):
            yield cited
    yield from _OUTSIDE.findall(line)


def test_what_is_cited_is_here() -> None:
    found = []
    for name in FILES:
        if not name.endswith((".py", ".md")) or name.startswith(PAST) or name == "tests/test_citations.py":
            continue
        found += [
            f"{name}:{number} {cited}"
            for number, line in prose(name)
            for cited in missing(name, line)
            if not _STANDS_FOR.search(cited)
        ]
    assert found == []


def test_a_citation_of_what_is_not_here_is_found() -> None:
    gone = "See `gone.py`, serve/gone/, [it](docs/gone.md), `serve.gone.thing`, shared/notes.md (design: x)"
    here = "See `machine.py`, serve/rollout/, [guide](docs/how-to/canary.md), `serve.rollout.plan`, a.yaml"
    assert len(list(missing("README.md", gone))) >= 6
    assert list(missing("README.md", here)) == []
