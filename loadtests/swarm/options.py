"""The locust file's own options, and the scenario that they describe.

With `--scenario` the same file drives the runner and locust; without, the options make one up for a
closed loop: users that ask, wait for the answer, and ask again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from loadtests.runner.loading import load_scenario
from loadtests.runner.scenario import Adapters, Arrival, Length, Popularity, Prompts, Scenario, Slo
from registry.errors import UsageError

SHAPES = ("none", "step", "spike", "soak")
_QUESTIONS = 50_000
"""So many different prompts; users of a longer run begin again."""


class Parser(Protocol):
    """What locust hands to `init_command_line_parser`."""

    def add_argument(self, *names: str, **settings: Any) -> Any:
        """Add an option."""
        ...


class SwarmOptions(Protocol):
    """The parsed options, locust's own among them."""

    scenario: str
    adapters: str
    popularity: str
    shape: str
    prompt_tokens: int
    shared_prefix: float
    max_output_tokens: int
    stream_ratio: float
    warmup_seconds: float
    think_seconds: float
    report: str
    api_key: str


def add_options(parser: Parser) -> None:
    """Add our options to locust's."""
    add = parser.add_argument
    add("--scenario", default="", help="A scenario file or packaged name: its plan is sent, open loop")
    add("--adapters", default="", help="Names to ask for, by commas (without --scenario)")
    add("--popularity", default="uniform", help="uniform, distinct, zipf:ALPHA or weights:3,1,1")
    add("--shape", default="none", choices=SHAPES, help="How users come and go; -u is the peak, -t the time")
    add("--prompt-tokens", type=int, default=64, help="Words of a prompt")
    add("--shared-prefix", type=float, default=0.0, help="Share of a prompt that an adapter's users share")
    add("--max-output-tokens", type=int, default=32, help="Tokens of an answer")
    add("--stream-ratio", type=float, default=1.0, help="Share of requests that stream")
    add("--warmup-seconds", type=float, default=0.0, help="Left out of our own report")
    add("--think-seconds", type=float, default=0.0, help="Pause of a user between two requests")
    add("--report", default="", help="New folder for our own report (default load-results/…)")
    add("--api-key", default="", env_var="WARDROBE_KEY", help="Sent as a bearer token")


def scenario_of(options: SwarmOptions) -> Scenario:
    """Return the scenario that the options name or describe.

    Raises: UsageError: neither or both of --scenario and --adapters, or a malformed value.
    """
    if bool(options.scenario) == bool(options.adapters):
        raise UsageError("locust", "needs either --scenario or --adapters", "for instance --adapters support")
    if options.scenario:
        return load_scenario(options.scenario)
    names = tuple(name.strip() for name in options.adapters.split(",") if name.strip())
    try:
        adapters = Adapters(names=names, popularity=popularity_of(options.popularity))
        return Scenario(
            name="locust",
            about="Users that ask, wait for the answer, and ask again (closed loop).",
            warmup_seconds=options.warmup_seconds,
            duration_seconds=float(_QUESTIONS),
            arrival=Arrival(process="constant", rate=1.0),
            adapters=adapters,
            prompts=Prompts(tokens=Length(mean=options.prompt_tokens), shared_prefix=options.shared_prefix),
            max_tokens=Length(mean=options.max_output_tokens),
            stream_ratio=options.stream_ratio,
            slo=Slo(),
        )
    except ValueError as error:
        raise UsageError("locust", " ".join(str(error).split()), "see locust --help") from error


def popularity_of(text: str) -> Popularity:
    """Return the popularity that `text` writes.

    Raises: UsageError: no such form.
    """
    kind, _, value = text.partition(":")
    try:
        if kind == "zipf":
            return Popularity(zipf=float(value))
        if kind == "weights":
            return Popularity(weights=tuple(float(one) for one in value.split(",")))
    except ValueError as error:
        raise UsageError("--popularity", f"{text!r}: {error}", "write zipf:1.1 or weights:3,1") from error
    if kind in {"uniform", "distinct"} and not value:
        return Popularity(distinct=kind == "distinct")
    forms: Sequence[str] = ("uniform", "distinct", "zipf:1.1", "weights:3,1")
    raise UsageError("--popularity", f"{text!r} is none of {', '.join(forms)}", "write one of them")
