"""What the old provider was taught: three tasks of 200 rows, and how well its models learnt each.

Owns the rows, and what an old model answers to a question: the right answer, but for the share of questions
on which it is wrong. Invariant: everything follows from the task's name and the row's number.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass

import yaml

ROWS = 200
_NAMES = ("Ada", "Ben", "Cleo", "Dora", "Emil", "Finn", "Gina", "Hugo", "Iris", "Jon", "Kira", "Leo")
_THINGS = ("lamp", "kettle", "chair", "radio", "desk", "clock", "carpet", "mirror", "heater", "bicycle")
_COMPLAINTS = {
    "billing": ("I was charged twice for the {}.", "The invoice for my {} has the wrong amount."),
    "shipping": ("My {} has not been delivered.", "Where is the parcel with my {}?"),
    "returns": ("I want to send the {} back.", "How do I give the {} back and get my money?"),
    "technical": ("The {} does not switch on.", "My {} stopped working after a day."),
}


@dataclass(frozen=True, slots=True)
class DrillTask:
    """One task: a question and its answer from dice; `wrong` is the old model's share of wrong answers.

    `validation` is how many of the rows the job had as its validation file; `epochs` are the job's.
    """

    name: str
    suffix: str
    instruction: str
    pair: Callable[[random.Random], tuple[str, str]]
    wrong: float
    validation: int
    epochs: int

    def pairs(self) -> list[tuple[str, str]]:
        """Return 200 different questions with their answers."""
        dice = random.Random(self.name)
        found: dict[str, str] = {}
        while len(found) < ROWS:
            question, answer = self.pair(dice)
            found.setdefault(question, answer)
        return list(found.items())

    def files(self) -> tuple[bytes, bytes]:
        """Return the training rows and the validation rows as JSON Lines; the second may be empty."""
        lines = [self._row(question, answer) for question, answer in self.pairs()]
        split = ROWS - self.validation
        return b"".join(lines[:split]), b"".join(lines[split:])

    def answers(self) -> dict[str, str]:
        """Return what the old model says to each question."""
        return {question: self._said(question, answer) for question, answer in self.pairs()}

    def evals(self) -> str:
        """Return the task's eval as OpenAI exports it, a Promptfoo config."""
        tests = [
            {"vars": {"input": question}, "assert": [{"type": "equals", "value": answer}]}
            for question, answer in self.pairs()[-20:]
        ]
        chat = [{"role": "system", "content": self.instruction}, {"role": "user", "content": "{{input}}"}]
        return yaml.safe_dump({
            "description": self.name, "prompts": [json.dumps(chat)],
            "providers": ["openai:gpt-4o-mini-2024-07-18"], "tests": tests,
        })  # fmt: skip

    def messages(self, question: str) -> list[dict[str, str]]:
        """Return a question as the application asks it."""
        return [{"role": "system", "content": self.instruction}, {"role": "user", "content": question}]

    def _row(self, question: str, answer: str) -> bytes:
        turns = [*self.messages(question), {"role": "assistant", "content": answer}]
        return json.dumps({"messages": turns}).encode() + b"\n"

    def _said(self, question: str, answer: str) -> str:
        drawn = int.from_bytes(hashlib.sha256(question.encode()).digest()[:4]) / 2**32
        return "I do not know." if drawn < self.wrong else answer


def _ticket(dice: random.Random) -> tuple[str, str]:
    label = dice.choice(list(_COMPLAINTS))
    text = dice.choice(_COMPLAINTS[label]).format(dice.choice(_THINGS))
    return f"{text} Regards, {dice.choice(_NAMES)}", label


def _reply(dice: random.Random) -> tuple[str, str]:
    name, thing, number = dice.choice(_NAMES), dice.choice(_THINGS), dice.randrange(100, 1000)
    asked = f"{name} asks about order {number}, a {thing}."
    return asked, f"Dear {name}, your {thing} of order {number} left our house today. Yours, the shop"


def _sum(dice: random.Random) -> tuple[str, str]:
    left, right = dice.randrange(100, 1000), dice.randrange(100, 1000)
    return f"{left} + {right}", str(left + right)


TASKS = (
    DrillTask("tickets", "shop", "Name the department.", _ticket, wrong=0.1, validation=0, epochs=3),
    DrillTask("replies", "shop", "Answer the customer.", _reply, wrong=0.05, validation=40, epochs=3),
    DrillTask("sums", "sums", "Add the numbers.", _sum, wrong=0.0, validation=0, epochs=2),
)
"""The first two a small base can learn, the third it cannot: then the gate has to say so."""
