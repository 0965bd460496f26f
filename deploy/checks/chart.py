"""The chart, linted and rendered by the real Helm library; no cluster and no `helm` is needed.

`ChartObject` is one rendered object. Invariant: what the chart's schema or Helm's linter refuses is an error
here, warnings included; only notes are let through.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from pydantic import JsonValue

from registry.errors import UsageError

CHART = Path(__file__).resolve().parent.parent / "helm" / "wardrobe"

_INFO = 1
_NOTES = "NOTES.txt"


@dataclass(frozen=True, slots=True)
class ChartObject:
    """One Kubernetes object and the template that it came from."""

    source: str
    body: Mapping[str, JsonValue]

    @property
    def kind(self) -> str:
        """Return its kind, `` when it has none."""
        return str(self.body.get("kind") or "")

    @property
    def name(self) -> str:
        """Return `Kind/name`."""
        return f"{self.kind or 'object without kind'}/{self.at('metadata', 'name') or '?'}"

    def at(self, *path: str) -> JsonValue:
        """Return the value at `path` in the object, None where there is none."""
        return at(self.body, *path)


def at(value: object, *path: str) -> JsonValue:
    """Return what lies at `path` below `value`, None where there is nothing."""
    found = value
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found  # type: ignore[return-value]


def mappings(value: JsonValue) -> list[Mapping[str, JsonValue]]:
    """Return the maps in a list; nothing for anything else."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def render(
    values: Mapping[str, JsonValue],
    *,
    chart: Path = CHART,
    name: str = "wardrobe",
    namespace: str = "llm",
) -> list[ChartObject]:
    """Lint the chart with `values`, check them against its schema, and render every object.

    Raises: UsageError: when the values, a template or Helm's linter object.
    """
    import helm_python as helm

    given = dict(values)
    try:
        with _resolved(chart) as folder:
            report = helm.lint(folder, given, strict=True)
            with helm.Chart.load(folder) as loaded:
                loaded.validate_schema(given)
                texts = loaded.render(given, name=name, namespace=namespace)
        bad = [f"{one['path']}: {one['error']}" for one in report["messages"] if one["severity"] > _INFO]
        if bad or report["errors"]:
            raise UsageError(f"chart {chart.name}", "; ".join(bad or report["errors"]), "correct it")
    except helm.HelmError as error:
        raise UsageError(
            f"chart {chart.name}", _in_a_line(str(error), chart.name), "see values.yaml"
        ) from error
    return [manifest for source, text in sorted(texts.items()) for manifest in parse(source, text)]


def _in_a_line(text: str, chart: str) -> str:
    """Return Helm's list of faults as one line: `values: additional properties 'foo' not allowed`."""
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    facts = [re.sub(r"^at '([^']*)': ", _place, line) for line in lines if line not in {"", f"{chart}:"}]
    return "; ".join(facts)


def _place(found: re.Match[str]) -> str:
    where = found[1].strip("/").replace("/", ".")
    return f"{where}: " if where else "values: "


def parse(source: str, text: str) -> Iterator[ChartObject]:
    """Yield the objects of one YAML text; `source` names it in findings. Helm's notes hold none.

    Raises: UsageError: for broken YAML, a key given twice, or a document that is not a map.
    """
    if source.endswith(_NOTES):
        return
    try:
        documents = list(yaml.load_all(text, _StrictLoader))
    except yaml.YAMLError as error:
        raise UsageError(source, f"is not YAML: {error}", "correct the template") from error
    for document in documents:
        if document is None:
            continue
        if not isinstance(document, dict):
            raise UsageError(source, "holds a document that is not an object", "correct the template")
        yield ChartObject(source, document)


@contextmanager
def _resolved(chart: Path) -> Iterator[Path]:
    """Give a copy in which links are what they lead to: Helm writes a line on stderr for each link."""
    if not chart.is_dir():
        raise UsageError(f"chart {chart}", "is not a folder", "check --chart")
    with TemporaryDirectory() as folder:
        yield Path(shutil.copytree(chart, Path(folder) / chart.name))


class _StrictLoader(yaml.SafeLoader):
    """YAML as Kubernetes means it: a key that comes twice is an error, not the last one's."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice} twice", node.start_mark)
        return super().construct_mapping(node, deep)
