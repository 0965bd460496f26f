"""A child process that judges for the API's server, which does not import the training: one task in, one
answer out.

On standard input a JSON object: `ask` (`questions` or `reward`), `grader`, `model_sample`, `item` and, for a
reward, `replies` by name. On standard output another: `questions`, or `reward` with what it is made of, or
`refused`. Its limits on memory and CPU time are set before it reads; the time on the clock is the server's.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict
from typing import Any

from registry.errors import WardrobeError
from registry.tuning.graders import parse_grader
from train.evaluation.grading.openai.rewards import JudgeReply, check, questions, reward
from train.evaluation.grading.openai.templates import GradedSample

MEMORY_BYTES = 2 * 1024**3
CPU_SECONDS = 60


def answer(task: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a task."""
    try:
        grader = parse_grader(task["grader"])
        check(grader)
        sample = GradedSample(task["model_sample"], task["item"])
        if task["ask"] == "questions":
            return {"questions": {name: asdict(one) for name, one in questions(grader, sample).items()}}
        replies = {name: JudgeReply(**found) for name, found in task["replies"].items()}
        return {"reward": asdict(reward(grader, sample, replies))}
    except WardrobeError as error:
        return {"refused": {"message": str(error), "param": error.param}}


def main() -> None:
    """Answer the task on standard input."""
    for kind, value in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_SECONDS)):
        hard = resource.getrlimit(kind)[1]
        held = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (held, held))
    sys.stdout.write(json.dumps(answer(json.load(sys.stdin))))


if __name__ == "__main__":
    main()
