"""The picture of a rollout: steps, both arms side by side, verdicts, what is missing, the last decisions.

Pure: a status becomes something that rich draws, on a terminal that follows or once. Invariant: text from
outside (notes, names, sentences) is shown as it is, never as markup or control characters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from registry.cli.output import moment, shown
from serve.rollout.display.explain import share, told
from serve.rollout.documents import (
    ArmDocument,
    CheckDocument,
    DecisionDocument,
    RateDocument,
    ReporterDocument,
    RolloutStatus,
    StepDocument,
)

BAR_CELLS = 20
_COLOURS = {
    "ramping": "cyan", "shadow": "cyan", "preloading": "cyan", "hold": "yellow", "paused": "yellow",
    "promoted": "green", "closed": "green", "rolled_back": "red",
}  # fmt: skip
_VERDICTS = {"pass": "green", "suspicious": "yellow", "fail": "red", "insufficient": "dim"}
_MARKS = {"done": ("✓", "green"), "now": ("●", "bold cyan"), "ahead": ("○", "dim")}
_MAX_E = 1e6
_SHOWN_SOURCES = 6
_NOTHING = "-"


def draw(status: RolloutStatus, *, compact: bool = False) -> RenderableType:
    """Return the whole picture; `compact` has one line per fact, for a terminal that follows."""
    parts: list[RenderableType] = [_headline(status), _sentence(status), _steps(status), *_progress(status)]
    parts += [_space(), _arms(status)]
    if len(status.sources) > 1:
        parts += [_space(), _sources(status)]
    if status.checks:
        parts += [_space(), _checks(status, compact=compact)]
    if status.missing:
        parts += [_space(), _list("what is missing", status.missing, compact=compact)]
    parts += [_space(), _replicas(status, compact=compact)]
    lines = [decision_line(one) for one in status.decisions]
    return Group(*parts, _space(), _list("decisions", lines, compact=compact))


def bar(progress: float, cells: int = BAR_CELLS, style: str = "cyan") -> Text:
    """Return a bar of `cells` cells that is full at 1."""
    full = round(min(1.0, max(0.0, progress)) * cells)
    return Text.assemble(("█" * full, style), ("─" * (cells - full), "dim"))


def rate_text(rate: RateDocument) -> str:
    """Return a rate with its interval: `1.2% (0.4-3.5%)  3 of 250`."""
    if rate.value is None:
        return _NOTHING
    return (
        f"{_percent(rate.value)} ({_percent(rate.low)[:-1]}-{_percent(rate.high)})  {rate.count} of {rate.of}"
    )


def e_text(check: CheckDocument) -> str:
    """Return an e-value beside the limit at which the alarm goes off."""
    value = math.exp(min(check.log_e, math.log(_MAX_E)))
    more = ">" if check.log_e > math.log(_MAX_E) else ""
    return f"e {more}{value:.3g} of {1 / check.alpha:.0f}"


def _headline(status: RolloutStatus) -> Text:
    weight = "" if status.state == "closed" else f" at {share(status.weight)}"
    held = status.held_weight and status.held_weight != status.weight
    ages = f"{_age(status.now - status.state_since)} in this state, {_age(status.now - status.began)} in all"
    return Text.assemble(
        _text(status.canary, "bold"),
        "  ",
        _text(status.state, f"bold {_colour(status)}"),
        weight,
        _text(f" (held: {share(status.held_weight)})" if held else "", "yellow"),
        f", {share(status.shadow)} mirrored" if status.shadow else "",
        f", base {share(status.base_weight)}" if status.base_weight else "",
        _text(f"  against {status.stable}  policy {status.policy}  {ages}", "dim"),
    )


def _sentence(status: RolloutStatus) -> Text:
    return _text(f"{status.reason}: {status.sentence}" if status.sentence else status.reason, _colour(status))


def _steps(status: RolloutStatus) -> Text:
    text = Text()
    for step in status.steps:
        mark, style = _MARKS[step.state]
        text.append_text(_text(f"{mark} {share(step.weight)}", style)).append(" ── ", "dim")
    mark, style = _MARKS["done" if status.state in {"promoted", "closed"} else "ahead"]
    return text.append_text(_text(f"{mark} 100%", style))


def _progress(status: RolloutStatus) -> Iterator[RenderableType]:
    step = next((one for one in status.steps if one.state == "now"), None)
    if step is None or status.state not in {"ramping", "hold", "paused"}:
        return
    table = _grid()
    for name, value, limit, unit in _conditions(status, step):
        table.add_row(
            _text(name), bar(value / limit if limit else 1.0), _text(f"{value:.0f} of {limit:g}{unit}")
        )
    yield table


def _conditions(status: RolloutStatus, step: StepDocument) -> Iterator[tuple[str, float, float, str]]:
    yield "units", status.step_units, step.min_units, ""
    yield "time", min(step.min_seconds, max(0.0, status.now - status.step_since)), step.min_seconds, " s"


def _arms(status: RolloutStatus) -> RenderableType:
    table = _table("", *(f"{name} {arm.version}" for name, arm in status.arms.items()))
    for title, cell in _ROWS:
        cells = [cell(arm) for arm in status.arms.values()]
        if set(cells) != {_NOTHING}:
            table.add_row(_text(title, "dim"), *(_text(one) for one in cells))
    return table


def _sources(status: RolloutStatus) -> RenderableType:
    table = _table("evidence of", "units", "left out", "ratings", "left out")
    for one in status.sources[:_SHOWN_SOURCES]:
        table.add_row(
            _text(f"{one.group}/{one.key}"),
            _text(f"{one.units:,}  {one.units_share:.0%}"),
            _text(f"{one.units_left_out:,}"),
            _text(f"{one.ratings:,}  {one.ratings_share:.0%}"),
            _text(f"{one.ratings_left_out:,}"),
        )
    return table


def _checks(status: RolloutStatus, *, compact: bool) -> RenderableType:
    table = _table("test", "verdict", "towards the alarm", "", "")
    for column in table.columns[:4]:
        column.no_wrap = True
    for check in (*status.checks, *([status.imbalance] if status.imbalance else [])):
        style = _VERDICTS.get(check.verdict, "")
        table.add_row(
            _text(check.metric),
            _text(check.verdict, style),
            bar(check.progress, style=style or "cyan"),
            _text(e_text(check)),
            _line(check.sentence, "dim", compact=compact),
        )
    if status.certificate is not None:
        verdict, style = ("reached", "green") if status.certificate.reached else ("not yet", "dim")
        how, sentence = (
            _text(status.certificate.how),
            _line(status.certificate.sentence, "dim", compact=compact),
        )
        table.add_row(_text("promotion"), _text(verdict, style), _text(""), how, sentence)
    return table


def _replicas(status: RolloutStatus, *, compact: bool) -> RenderableType:
    if not status.replicas:
        return _text("no replica has reported", "dim")
    return _list("replicas", [_replica(one) for one in status.replicas], compact=compact)


def _replica(one: ReporterDocument) -> str:
    age = "no evidence" if one.evidence_age is None else f"evidence {one.evidence_age:.1f} s old"
    held = [name for name, has in (("stable", one.holds_stable), ("canary", one.holds_canary)) if has]
    facts = ["live" if one.live else "gone", age, f"holds {' and '.join(held) or 'neither'}"]
    return f"{one.replica}: {', '.join([*facts, *(['braking'] if one.braking else [])])}"


def decision_line(decision: DecisionDocument) -> str:
    """Return a decision in one line: when, who, what, why."""
    return f"{moment(decision.at)[11:]}  {decision.who}  {told(decision)}"


def _list(title: str, lines: list[str], *, compact: bool) -> RenderableType:
    rows = (Padding.indent(_line(line, compact=compact), 2) for line in lines)
    return Group(_text(title, "bold"), *rows)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(_text(name), overflow="fold")
    return table


def _grid() -> Table:
    return Table.grid(padding=(0, 2, 0, 0))


def _space() -> Text:
    return Text("")


def _text(text: str, style: str = "") -> Text:
    return Text(shown(text), style=style)


def _line(text: str, style: str = "", *, compact: bool) -> Text:
    """Return a text that goes on in the next line or, `compact`, is cut at the terminal's edge."""
    return Text(shown(text), style=style, no_wrap=compact, overflow="ellipsis" if compact else "fold")


def _colour(status: RolloutStatus) -> str:
    return _COLOURS.get(status.state, "")


def _percent(value: float) -> str:
    return f"{value:.2%}" if value < 0.1 else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def _feedback(arm: ArmDocument) -> str:
    return _NOTHING if arm.feedback_mean is None else f"{arm.feedback_mean:.3f}  of {arm.ratings} ratings"


def _counts(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return "  ".join(f"{name} {count:,}" for name, count in ordered if count) or _NOTHING


def _age(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


_ROWS: tuple[tuple[str, Callable[[ArmDocument], str]], ...] = (
    ("units", lambda arm: f"{arm.units:,}"),
    ("requests", lambda arm: f"{arm.requests:,}"),
    ("failed (first of a unit)", lambda arm: rate_text(arm.errors)),
    ("broken form", lambda arm: rate_text(arm.malformed)),
    ("first token, median", lambda arm: _seconds(arm.first_token_median)),
    ("per token, median", lambda arm: _seconds(arm.per_token_median)),
    (
        "tokens an answer",
        lambda arm: _NOTHING if arm.output_tokens_mean is None else f"{arm.output_tokens_mean:.1f}",
    ),
    ("feedback, mean", _feedback),
    ("finished by", lambda arm: _counts(arm.finish)),
    ("outcomes", lambda arm: _counts(arm.outcomes)),
    ("rescued by the other arm", lambda arm: f"{arm.rescued:,}" if arm.rescued else _NOTHING),
)
