"""A Promptfoo config into a suite: every prompt with every test, as Promptfoo runs them.

Owns prompts, variables, defaults and sampling. Invariants: what comes out is a suite that `eval run` takes; a
test that nothing judges any more is left out and told, so that it is never counted as passed.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from registry.settings.file import check, read_settings
from train.evaluation.formats.forms import SuiteFile
from train.evaluation.formats.suites import build_suite
from train.evaluation.promptfoo.assertions import SuiteGraders
from train.evaluation.promptfoo.draft import ConfigLosses, Untaken
from train.evaluation.promptfoo.files import is_path, read_named
from train.evaluation.promptfoo.templates import Unfilled, fill

_SEE = "train/evaluation/promptfoo/README.md"
_KNOWN = frozenset(
    {"description", "prompts", "providers", "targets", "tests", "defaultTest", "assertionTemplates", "tags"}
)
_NO_MEANING = frozenset(
    {"outputPath", "evaluateOptions", "sharing", "commandLineOptions", "$schema", "env", "metadata"}
)
"""Keys that say how Promptfoo runs, not what is asked."""
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "stop": "stop",
    "seed": "seed",
}
_EXPECTED = re.compile(r"__expected\d*$")
_CSV_TYPE = re.compile(r"^((?:not-)?[a-z][a-z-]*)(?:\(([0-9.]+)\))?:\s*(.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ImportedSuite:
    """A suite as it is written, its items apart, and what is not in it."""

    suite: dict[str, Any]
    items: list[dict[str, Any]]
    untaken: tuple[Untaken, ...]


def import_suite(path: Path, judge: str | None = None) -> ImportedSuite:
    """Translate the config at `path`; `judge` is the served model that judges by rubrics.

    Raises: UsageError: it is none, or nothing of it can be asked and judged.
    """
    config = read_settings(path, see=_SEE).value
    if not config.keys() & {"tests", "prompts"}:
        raise UsageError(str(path), "is no Promptfoo config: it has neither prompts nor tests", f"see {_SEE}")
    try:
        return _Conversion(path, config, judge).suite()
    except (TypeError, AttributeError, ValueError) as error:
        # A value of another kind than its key ever has (a number for a list) meets code that trusts the kind.
        fact = f"holds a value of a kind that its key does not have ({error})"
        raise UsageError(str(path), fact, "check it with `promptfoo validate`") from error


class _Conversion:
    def __init__(self, path: Path, config: Mapping[str, Any], judge: str | None) -> None:
        self._path, self._config, self._losses = path, config, ConfigLosses()
        self._folder = path.resolve().parent
        self._graders = SuiteGraders(judge, self._losses)

    def suite(self) -> ImportedSuite:
        """Return the suite, checked as `eval run` checks it."""
        for key in sorted(self._config.keys() - _KNOWN - _NO_MEANING):
            self._losses.add(key, "is not taken over", "write what it does into prompts and tests")
        prompts = list(self._prompts())
        items = [
            item
            for number, test in enumerate(self._tests(), start=1)
            for item in self._items(number, test, prompts)
        ]
        suite: dict[str, Any] = {"name": _slug(self._config.get("description") or self._path.stem)}
        if isinstance(self._config.get("description"), str):
            suite["description"] = self._config["description"]
        suite |= self._asked()
        suite["graders"] = list(self._graders.found.values())
        if not items:
            told = "; ".join(f"{one.place}: {one.what}" for one in self._losses.untaken[:3])
            raise UsageError(
                str(self._path), f"has no test that can be asked and judged here ({told})", f"see {_SEE}"
            )
        written = check({**suite, "items": items}, SuiteFile, str(self._path), see=_SEE)
        assert not isinstance(written.items, str)
        build_suite(str(self._path), written, written.items)
        return ImportedSuite(suite, items, tuple(self._losses.untaken))

    def _prompts(self) -> Iterator[tuple[str, Any]]:
        """Yield label and template of every prompt: a text, or a list of messages."""
        given = self._config.get("prompts", "{{prompt}}")
        for number, one in enumerate(given if isinstance(given, list) else [given], start=1):
            place = f"prompts {number}"
            label, raw = f"{number}", one
            if isinstance(one, Mapping):
                label, raw = (
                    str(one.get("label") or number),
                    one.get("raw") or one.get("content") or one.get("id"),
                )
            yield from self._prompt(label, raw, place)

    def _prompt(self, label: str, raw: Any, place: str) -> Iterator[tuple[str, Any]]:
        if isinstance(raw, str) and (is_path(raw) or _looks_like_file(raw, self._folder)):
            for found in read_named(raw, self._folder, place, self._losses):
                if isinstance(found, str):
                    for number, part in enumerate(re.split(r"^---\s*$", found, flags=re.MULTILINE), start=1):
                        yield (label if number == 1 else f"{label}-{number}"), _parsed(part.strip())
                else:
                    yield label, found
        elif isinstance(raw, str) and re.match(r"^(exec:|[a-z]+://)", raw):
            self._losses.add(
                place, f"{raw} is made by a program or service", "write the prompt into the config"
            )
        elif isinstance(raw, str | list):
            yield label, _parsed(raw) if isinstance(raw, str) else raw
        else:
            self._losses.add(place, "is no text and no list of messages", "correct it")

    def _tests(self) -> Iterator[Mapping[str, Any]]:
        given = self._config.get("tests", [])
        for number, one in enumerate(given if isinstance(given, list) else [given], start=1):
            place = f"tests {number}"
            named = (
                str(one["path"]) if isinstance(one, Mapping) and "path" in one and "vars" not in one else one
            )
            if isinstance(named, Mapping):
                yield named
            elif isinstance(named, str):
                for found in read_named(named, self._folder, place, self._losses):
                    for row in found if isinstance(found, list) else [found]:
                        yield _from_csv(row) if named.endswith(".csv") else row
            else:
                self._losses.add(place, "is no test", "correct it")

    def _items(self, number: int, test: object, prompts: list[tuple[str, Any]]) -> Iterator[dict[str, Any]]:
        place = f"tests {number}"
        if not isinstance(test, Mapping):
            self._losses.add(place, "is no test", "correct it")
            return
        whole = self._with_defaults(test)
        for key in whole["options"].keys() - {
            "prefix",
            "suffix",
            "disableVarExpansion",
            "provider",
            "runSerially",
        }:
            self._losses.add(place, f"options.{key} is not taken over", "write what it does into the test")
        for variant, values in enumerate(self._variants(whole, place), start=1):
            grading = self._graders.read(
                self._resolved(whole["assert"], place), values, place, whole["threshold"]
            )
            if not grading.graders:
                self._losses.add(
                    place, "has nothing left that judges it, so it is left out", "give it an assertion"
                )
                return
            for at, (label, template) in enumerate(prompts, start=1):
                name = str(number) + (f"-v{variant}" if variant > 1 else "") + (f"-p{at}" if at > 1 else "")
                item = self._item(template, values, whole["options"], place)
                if item is not None:
                    tags = {
                        key: str(one)
                        for key, one in whole["metadata"].items()
                        if isinstance(one, str | int | float)
                    }
                    tags |= {"prompt": label} if len(prompts) > 1 else {}
                    yield {
                        "id": name, **item, "graders": grading.graders, "tags": tags,
                        "data": {**_data(values), **grading.data},
                    }  # fmt: skip

    def _item(
        self, template: Any, values: Mapping[str, Any], options: Mapping[str, Any], place: str
    ) -> dict[str, Any] | None:
        try:
            filled = fill(template, values, place, self._losses)
            around = [
                fill(str(options.get(key) or ""), values, place, self._losses) for key in ("prefix", "suffix")
            ]
        except Unfilled as error:
            self._losses.add(place, f"its prompt cannot be filled in ({error})", "write it out")
            return None
        if isinstance(filled, str):
            parsed = _parsed(filled)
            if isinstance(parsed, str):
                return {"prompt": f"{around[0]}{filled}{around[1]}"}
            filled = parsed
        messages = filled.get("messages") if isinstance(filled, Mapping) else filled
        if not isinstance(messages, list) or not all(
            isinstance(one, Mapping) and "role" in one for one in messages
        ):
            self._losses.add(place, "its prompt is no list of messages with roles", "correct it")
            return None
        if messages and messages[-1].get("role") not in {"user", "tool"}:
            self._losses.add(place, "its prompt does not end with a user's message", "end it with one")
            return None
        return {"messages": [dict(one) for one in messages]}

    def _with_defaults(self, test: Mapping[str, Any]) -> dict[str, Any]:
        default = self._config.get("defaultTest")
        if is_path(default):
            read = read_named(str(default), self._folder, "defaultTest", self._losses)
            default = read[0] if read else None
        before = default if isinstance(default, Mapping) else {}

        def joined(key: str) -> dict[str, Any]:
            return {**(before.get(key) or {}), **(test.get(key) or {})}

        given = test.get("vars")
        if isinstance(given, str):
            read = read_named(given, self._folder, "vars", self._losses)
            test = {**test, "vars": read[0] if read and isinstance(read[0], Mapping) else {}}
        return {
            "vars": joined("vars"), "options": joined("options"), "metadata": joined("metadata"),
            "assert": [*(before.get("assert") or []), *(test.get("assert") or [])],
            "threshold": test.get("threshold", before.get("threshold")),
        }  # fmt: skip

    def _variants(self, whole: Mapping[str, Any], place: str) -> Iterator[dict[str, Any]]:
        """Yield the test's variables; a variable that is a list makes a test of each of its values."""
        values = {}
        for name, value in whole["vars"].items():
            values[name] = value
            if is_path(value):
                read = read_named(value, self._folder, f"{place} vars.{name}", self._losses)
                values[name] = read[0] if read else ""
        lists = (
            []
            if whole["options"].get("disableVarExpansion")
            else [k for k, v in values.items() if isinstance(v, list)]
        )
        for chosen in itertools.product(*(values[name] for name in lists)):
            yield {**values, **dict(zip(lists, chosen, strict=True))}

    def _resolved(self, asserts: list[Any], place: str) -> list[Any]:
        templates = self._config.get("assertionTemplates") or {}
        found = []
        for one in asserts:
            reference = one.get("$ref") if isinstance(one, Mapping) else None
            name = str(reference).rpartition("/")[2]
            if reference is None:
                found.append(one)
            elif name in templates:
                found.append(templates[name])
            else:
                self._losses.add(place, f"no assertion template is called {name}", "correct the $ref")
        return found

    def _asked(self) -> dict[str, Any]:
        """Return sampling and tools of the first provider that says any; the model is chosen later."""
        given = self._config.get("providers", self._config.get("targets"))
        for one in given if isinstance(given, list) else [given]:
            config = one.get("config") if isinstance(one, Mapping) else None
            if not isinstance(config, Mapping):
                continue
            sampling = {_SAMPLING[key]: value for key, value in config.items() if key in _SAMPLING}
            if isinstance(sampling.get("stop"), str):
                sampling["stop"] = [sampling["stop"]]
            found: dict[str, Any] = {"sampling": sampling} if sampling else {}
            if isinstance(config.get("tools"), list):
                found["tools"] = config["tools"]
            for key in sorted(
                config.keys() - set(_SAMPLING) - {"tools", "apiKey", "apiBaseUrl", "organization"}
            ):
                self._losses.add(
                    "providers", f"config.{key} is not taken over", "give it to the server, if it matters"
                )
            return found
        return {}


def _from_csv(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of CSV as a test: `__expected…` are assertions, the rest is settings and variables."""
    test: dict[str, Any] = {"vars": {}, "assert": [], "options": {}, "metadata": {}}
    for key, value in row.items():
        if key is None or value is None:
            continue
        name = key.strip()
        if not name.startswith("__"):
            test["vars"][name] = value
        elif _EXPECTED.match(name) and value.strip():
            test["assert"].append(_expected(value.strip()))
        elif name in {"__prefix", "__suffix"}:
            test["options"][name[2:]] = value
        elif name == "__threshold" and value.strip():
            test["threshold"] = float(value)
        elif name.startswith("__metadata:"):
            test["metadata"][name.partition(":")[2]] = value
    return test


def _expected(text: str) -> dict[str, Any]:
    match = _CSV_TYPE.match(text)
    if match is None:
        return {"type": "equals", "value": text}
    kind = {"grade": "llm-rubric", "fn": "javascript", "eval": "javascript"}.get(match[1], match[1])
    found: dict[str, Any] = {"type": kind, "value": match[3] or None}
    return {**found, "threshold": float(match[2])} if match[2] else found


def _parsed(text: str) -> Any:
    """Return the messages that a text is as JSON, else the text."""
    if text.lstrip().startswith(("[", "{")):
        try:
            found = json.loads(text)
        except ValueError:
            return text
        return found if isinstance(found, list | dict) else text
    return text


def _looks_like_file(text: str, folder: Path) -> bool:
    plain = (
        "\n" not in text
        and "{{" not in text
        and re.search(r"\.(txt|md|j2|json|ya?ml|js|py|csv|sh)(:\w+)?$", text)
    )
    return bool(plain) and (
        text.startswith(("./", "prompts/")) or (folder / text.partition(":")[0]).is_file()
    )


def _data(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables as JSON has them: YAML knows dates, which become texts."""
    kept = {key: one for key, one in values.items() if key not in {"assert", "threshold"}}
    found: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return found


def _slug(text: str) -> str:
    found = re.sub(r"[^a-z0-9._-]+", "-", str(text).lower()).strip("-._")[:60]
    return found or "imported"
