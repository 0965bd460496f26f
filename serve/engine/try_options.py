"""Lets vLLM parse its options and read the model's configuration, and starts nothing.

`python -m serve.engine.try_options --owned JSON -- VLLM-OPTIONS` ends with 0, or with 2 and the reason as
the last line of its standard error. Importing vLLM takes about ten seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from registry.errors import UsageError, WardrobeError
from registry.foreign import python
from registry.wording import fact_of
from serve.engine.args import EngineArguments

SECONDS = 120.0
"""A disk that hangs keeps nobody longer."""


def try_options(arguments: EngineArguments, environment: Mapping[str, str]) -> None:
    """Have a process of its own try the options of an engine.

    Raises: UsageError: vLLM refuses them, with its words, or says nothing within `SECONDS`.
    """
    command = python("-m", __name__, "--owned", json.dumps(dict(arguments.owned)), "--", *arguments.argv)
    try:
        done = subprocess.run(
            command, env=dict(environment), capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError("vllm options", f"vLLM did not answer within {SECONDS:g} s", "try again") from error
    if done.returncode:
        words = (done.stderr.strip() or "it said nothing").splitlines()[-1].removeprefix("vllm option: ")
        first = words.removeprefix("error: ").partition(". ")[0].rstrip(".")
        raise UsageError("vllm options", first, "correct [vllm] or the command line")


def main(argv: Sequence[str] | None = None) -> int:
    """Try them in this process, and return the exit code."""
    from serve.engine.child import BAD_ARGUMENTS, vllm_arguments

    parser = argparse.ArgumentParser(prog="python -m serve.engine.try_options", allow_abbrev=False)
    parser.add_argument("--owned", default="{}", help="JSON of options that must come out unchanged")
    parser.add_argument("options", nargs="*", help="vLLM's options, after `--`")
    own = parser.parse_args(argv)
    try:
        args = vllm_arguments(own.options, json.loads(own.owned))
        _read_model(args)
    except (WardrobeError, ValueError, TypeError, KeyError) as error:
        sys.stderr.write(f"error: {' '.join(_reason(error).split())}\n")
        return BAD_ARGUMENTS
    return 0


def _read_model(args: argparse.Namespace) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    AsyncEngineArgs.from_cli_args(args).create_model_config()


def _reason(error: Exception) -> str:
    """Return what is wrong in words; pydantic's error is a list of faults."""
    if isinstance(error, ValidationError):
        return "; ".join(map(fact_of, error.errors()))
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
