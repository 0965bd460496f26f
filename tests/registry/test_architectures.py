"""The table of embeddings that take a LoRA says what vLLM's own classes say."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from registry.validation import architectures
from registry.validation.architectures import embeddings_with_lora

NAMED = sorted(architectures._INPUT_AND_OUTPUT | architectures._INPUT_ONLY)
# (module, class) -> the keys of its own `embedding_modules`, and its base classes' names.
Models = dict[tuple[str, str], tuple[frozenset[str] | None, list[str]]]


@cache
def models_folder() -> Path:
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed")
    return Path(spec.origin).parent / "model_executor" / "models"


@cache
def classes() -> Models:
    """Return every class of vLLM's models by its module and name."""
    return {
        (path.stem, node.name): (own_embeddings(node), [ast.unparse(base) for base in node.bases])
        for path in models_folder().rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }


def own_embeddings(node: ast.ClassDef) -> frozenset[str] | None:
    for statement in node.body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id == "embedding_modules":
            assert isinstance(statement, ast.Assign)
            if isinstance(statement.value, ast.Dict):
                return frozenset(ast.literal_eval(statement.value))
    return None


def inherited(name: str, module: str | None = None) -> frozenset[str] | None:
    named = {where: value for (where, what), value in classes().items() if what == name}
    found = [named[module]] if module in named else list(named.values())
    if not found:
        return None
    own, bases = found[0]
    if own is not None:
        return own
    return next((keys for keys in map(inherited, bases) if keys is not None), None)


def registered() -> Iterator[tuple[str, str, str]]:
    """Yield (architecture, module, class) of vLLM's registry."""
    for node in ast.walk(ast.parse((models_folder() / "registry.py").read_text())):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Tuple) and len(value.elts) == 2:
                    module, name = (ast.literal_eval(element) for element in value.elts)
                    yield str(key.value), str(module).rpartition(".")[2], str(name)


def test_every_architecture_that_is_named_says_what_vllm_says() -> None:
    known = {architecture: (module, name) for architecture, module, name in registered()}
    assert len(known) > 300
    wrong = {}
    for architecture in NAMED:
        module, name = known[architecture]
        if (inherited(name, module) or frozenset()) != embeddings_with_lora(architecture):
            wrong[architecture] = inherited(name, module)
    assert wrong == {}


@pytest.mark.parametrize("architecture", ["Qwen2ForCausalLM", "MistralForCausalLM", "Gemma3ForCausalLM"])
def test_popular_architectures_without_are_not_named(architecture: str) -> None:
    module, name = next((m, n) for a, m, n in registered() if a == architecture)
    assert not inherited(name, module)
    assert embeddings_with_lora(architecture) == frozenset()
