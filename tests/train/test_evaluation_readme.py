"""What the README shows is read by the code it describes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import yaml

from registry.settings.file import check
from train import evaluation
from train.evaluation.formats.forms import SuiteFile, SuiteItem
from train.evaluation.formats.specs import Spec
from train.evaluation.formats.suites import build_suite
from train.evaluation.gating.goal import Goal

README = (Path(evaluation.__file__).parent / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_suite_its_item_and_the_goal_are_right() -> None:
    suite, goal = (yaml.safe_load(body) for language, body in BLOCKS if language == "yaml")
    (item,) = (json.loads(body) for language, body in BLOCKS if language == "json")
    written = check(suite, SuiteFile, "README", see="README")
    built = build_suite("README", written, [check(item, SuiteItem, "README", see="README")])
    assert built.questions[0][1].content == "Which chapter is fracture of forearm?"
    assert len(check(goal["goal"], Goal, "README", see="README").guards) == 3


def test_every_grader_is_in_the_table() -> None:
    kinds = {get_args(kind.model_fields["type"].annotation)[0] for kind in get_args(get_args(Spec)[0])}
    rows = re.findall(r"^\| (`[a-z_0-9`, ]+) \|", README, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z_0-9]+)`", row)}
    assert len(kinds) == 19
    assert kinds <= named


def test_every_module_is_in_the_structure() -> None:
    modules = {path.name for path in Path(evaluation.__file__).parent.glob("*.py")} - {"__init__.py"}
    assert {name for name in modules if f"`{name}`" not in README} == set()
