"""Grammars in EBNF or Lark, as far as their text tells what they cost and whether they end (pure, linear)."""

from __future__ import annotations

import re

from serve.bounds.ending import Needs
from serve.bounds.patterns import REFERENCE, Cost, cost_of_pattern

REFERENCES_PER_LOOP = 8
"""So many references of a grammar cost what a loop does."""

_PART = re.compile(
    r"""(?P<literal>"(?:[^"\\\n]|\\.)*+"?|\'(?:[^\'\\\n]|\\.)*+\'?)
    |(?P<pattern>/(?:[^/\\\n]|\\.)++/?)
    |(?P<set>\[(?:[^\]\\]|\\.)*+\]?)
    |(?P<comment>(?:\#|//)[^\n]*+)""",
    re.DOTALL | re.VERBOSE,
)
_RULE = re.compile(r"(?m)^[ \t]*+[?!]*+([A-Za-z_][\w.-]*+)[ \t]*+(?:::=|:=|:(?!:))")
_NAME = re.compile(r"[A-Za-z_][\w-]*+")
_COUNT = re.compile(r"~\s*+([0-9]++)(?:\.\.([0-9]++))?")
_FIRST_MARK = 0xE000
"""Signs of Unicode's private use stand for the classes and patterns of a grammar while it is taken apart."""


def cost_of_grammar(grammar: str) -> Cost:
    """Return what a grammar costs; references count for `REFERENCES_PER_LOOP`th of a loop."""
    bare, marks = _bare(grammar)
    whole = Cost()
    for _, body in _rules(bare):
        whole.instead(cost_of_pattern(_as_pattern(body, marks)))
    whole.loops += len(_NAME.findall(_RULE.sub("", bare))) // REFERENCES_PER_LOOP
    return whole


def is_endless(grammar: str) -> bool:
    """Return True for a grammar whose `root` can only ever refer on, so that no answer satisfies it."""
    rules = dict(_rules(_bare(grammar)[0]))
    rules.pop("", None)
    needs = Needs()
    for name, body in rules.items():
        if re.search(r"[(*?{]", body):
            needs.add(name)  # a part of it may be left out: it is taken to end
            continue
        branches = [(name, place) for place, _ in enumerate(body.split("|"))]
        needs.need(name, branches)
        for branch, text in zip(branches, body.split("|"), strict=True):
            for needed in _NAME.findall(text):
                needs.need(branch, [needed])
    start = "root" if "root" in rules else "start"
    return start in rules and start not in needs.ending()


def _bare(grammar: str) -> tuple[str, dict[str, str]]:
    """Return the grammar without comments, with 0 for each literal and a mark for each class or pattern."""
    marks: dict[str, str] = {}

    def stand_in(part: re.Match[str]) -> str:
        if part["comment"] is not None:
            return ""
        if part["literal"] is not None:
            return "0"
        text = part["set"] or f"({part['pattern'].strip('/')})"
        mark = chr(_FIRST_MARK + len(marks) % 6_000)
        marks[mark] = marks.get(mark, "") + text
        return mark

    return _PART.sub(stand_in, grammar), marks


def _rules(bare: str) -> list[tuple[str, str]]:
    """Return each rule's name and body; what stands before the first has no name."""
    parts = _RULE.split(bare)
    return [("", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]


def _as_pattern(body: str, marks: dict[str, str]) -> str:
    """Return a rule's body as a regular expression, in which `REFERENCE` is any rule."""
    counted = _COUNT.sub(lambda found: f"{{{found[1]},{found[2] or found[1]}}}", body)
    signs = "".join(_NAME.sub(REFERENCE, counted).split())
    return "".join(marks.get(sign, sign) for sign in signs)
