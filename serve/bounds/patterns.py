"""Regular expressions and grammars, as far as their text tells what they cost (pure, and no parser).

What makes them expensive for the engine is not their length but their loops: each repetition, and each
rule that refers to another, is one more way to read every token of the vocabulary. Measured with
xgrammar 0.2.8 and a vocabulary of 49,152: with 32 loops 0.5 s to compile and 10 ms a step in the worst
patterns that were found, with 64 a second and 30 ms, with 600 (4 kB) 39 s and more than a second a step.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

REFERENCES_PER_LOOP = 8
"""So many references of a grammar cost what a loop does."""

_ESCAPE = re.compile(r"\\.", re.DOTALL)
_CLASS = re.compile(r"\[[^\]]*\]")
_GROUP_KIND = re.compile(r"\(\?(?:P?<[^>]*>|[:=!]|<[=!])?")
_LOOP = re.compile(r"(?:[*+?]|\{[0-9]*,?[0-9]*\})[?+]?")
_LITERAL = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|/(?:[^/\\\n]|\\.)+/', re.DOTALL)
_COMMENT = re.compile(r"(?m)(?:#|//)[^\n]*$")
_RULE = re.compile(r"(?m)^[ \t]*[?!]*([A-Za-z_][\w.-]*)[ \t]*(?:::=|:=|:(?!:))")
_NAME = re.compile(r"[A-Za-z_][\w-]*")


def count_loops(pattern: str) -> int:
    """Return how many repetitions a regular expression has."""
    plain = _CLASS.sub("c", _ESCAPE.sub("e", pattern))
    return len(_LOOP.findall(_GROUP_KIND.sub("(", plain)))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: the names that each of its alternatives needs; none where the text does not tell."""

    name: str
    alternatives: tuple[frozenset[str], ...]


def count_grammar_loops(grammar: str) -> int:
    """Return how many loops a grammar has, in EBNF or Lark; references count for `REFERENCES_PER_LOOP`th."""
    bare = _bare(grammar)
    return len(_LOOP.findall(bare)) + len(_NAME.findall(_RULE.sub("", bare))) // REFERENCES_PER_LOOP


def is_endless(grammar: str) -> bool:
    """Return True for a grammar whose `root` can only ever refer on, so that no answer satisfies it."""
    rules = {rule.name: rule.alternatives for rule in _rules(_bare(grammar))}
    ending: set[str] = {name for found in rules.values() for one in found for name in one} - set(rules)
    grown = True
    while grown:
        more = {name for name, found in rules.items() if any(one <= ending for one in found)} - ending
        ending |= more
        grown = bool(more)
    start = "root" if "root" in rules else "start"
    return start in rules and start not in ending


def _bare(grammar: str) -> str:
    """Return the grammar with a digit for each literal and class: digits name no rule."""
    return _COMMENT.sub("", _CLASS.sub("0", _LITERAL.sub("0", grammar)))


def _rules(bare: str) -> list[Rule]:
    starts = list(_RULE.finditer(bare))
    ends = [start.start() for start in starts[1:]]
    return [
        Rule(start[1], _alternatives(bare[start.end() : end]))
        for start, end in zip(starts, [*ends, len(bare)], strict=False)
    ]


def _alternatives(body: str) -> tuple[frozenset[str], ...]:
    if re.search(r"[(*?{]", body):
        return (frozenset(),)  # a part of it may be left out: it is taken to end
    return tuple(frozenset(_NAME.findall(one)) for one in body.split("|"))
