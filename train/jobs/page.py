"""A job as one HTML page: how it went, curves, evaluations, answers, data, verdicts, config.

Owns what the page shows, in which order; the look is `registry.report`, the curves are `drawing`'s.
Invariants: the page of a job in any state is whole; what is left out of a long run is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import yaml
from markupsafe import Markup
from pydantic import JsonValue

from registry.cli.output import amount, moment
from registry.report.parts import (
    banner,
    block,
    facts,
    folded,
    heading,
    html,
    joined,
    mark,
    note,
    page_of,
    section,
    table,
)
from train.evaluation.tables import WORDS
from train.jobs.drawing import curves, number, spread
from train.jobs.records import JobDetail, RunState
from train.jobs.verdicts import Aftermath

_MOST_EVALUATIONS = 40
_MOST_PROMPTS = 40
_MOST_ANSWERS = 12
_KINDS = {
    RunState.RUNNING: "info",
    RunState.INTERRUPTED: "warning",
    RunState.SUCCEEDED: "pass",
    RunState.FAILED: "fail",
}

Lines = Sequence[Mapping[str, JsonValue]]


def page(job: JobDetail, steps: Lines, after: Aftermath) -> str:
    """Return the page; `steps` are the job's lines of `metrics.jsonl` that are not evaluations."""
    name = job.adapter if job.status.version is None else f"{job.adapter}@{job.status.version}"
    parts = (
        heading(f"{name}: {job.method} on {job.base}"),
        note(f"job {job.id}, begun {moment(job.created_at)} by {job.who}"),
        _state(job),
        facts(dict(_cards(job, steps))),
        *_warnings(job),
        section("Curves", curves(job, steps)),
        section("Evaluations", _evaluations(job)),
        section("Answers to the sample prompts", _samples(job)),
        section("Data", _data(job, after)),
        section("Verdicts on the version", _verdicts(job, after)),
        section("Config", _config(job)),
    )
    return page_of(f"{name}: training", parts)


def _state(job: JobDetail) -> Markup:
    status = job.status
    step = f"step {status.step:,}" + (f" of {status.steps:,}" if status.steps else "")
    told = [status.error] if status.error else []
    if status.state is RunState.SUCCEEDED and status.summary.get("why"):
        told.append(f"taken: step {status.summary.get('taken')}, {status.summary['why']}")
    if status.state is RunState.RUNNING:
        told.append(f"seen {moment(status.updated_at)}; the page does not follow the run")
    if status.state is RunState.INTERRUPTED and job.checkpoints:
        told.append(f"wardrobe train run CONFIG --resume goes on from step {job.checkpoints[-1]}")
    if status.artefact:
        told.append(f"result: {status.artefact}")
    return banner(_KINDS[status.state], f"{status.state.value} at {step}", "; ".join(told))


def _cards(job: JobDetail, steps: Lines) -> Iterator[tuple[str, str]]:
    status, summary = job.status, job.status.summary
    yield "steps", f"{status.step:,} of {status.steps:,}" if status.steps else f"{status.step:,}"
    yield "tokens", f"{status.tokens:,}"
    if steps and "loss" in steps[-1]:
        yield "loss, last step", _shown(steps[-1].get("loss"))
    held_out = [one.get("eval_loss") for one in job.evaluations if one.get("eval_loss") is not None]
    if held_out:
        taken = summary.get("eval_loss")
        yield (
            ("held-out loss, step taken", _shown(taken))
            if taken is not None
            else (
                "held-out loss, last",
                _shown(held_out[-1]),
            )
        )
    if isinstance(seconds := summary.get("seconds"), int | float):
        yield "seconds of steps", f"{seconds:,.0f}"
        yield "tokens/s", _shown(summary.get("tokens_per_second"))
    if isinstance(memory := summary.get("peak_memory_bytes"), int | float) and memory:
        yield "peak memory", amount(memory)
    if isinstance(summary.get("device"), str):
        yield "device", str(summary["device"])


def _warnings(job: JobDetail) -> Iterator[Markup]:
    told = job.status.summary.get("warnings")
    for text in told if isinstance(told, list) else ():
        yield banner("warning", "warning", str(text))
    if job.status.resumed:
        steps = ", ".join(f"{step:,}" for step in job.status.resumed)
        yield note(f"Interrupted and gone on from step {steps}.")


def _evaluations(job: JobDetail) -> Iterator[Markup]:
    found = job.evaluations
    if not found:
        return
    names = list(dict.fromkeys(name for one in found for name in _scores(one)))
    taken = job.status.summary.get("taken")
    shown = spread(found, _MOST_EVALUATIONS)
    if taken is not None:  # never thinned away
        shown = [one for one in found if one in shown or one.get("step") == taken]
    rows = (
        (
            _shown(one.get("step")),
            _shown(one.get("eval_loss")),
            *(_shown(_scores(one).get(name)) for name in names),
            mark("pass", "taken") if one.get("step") == taken else "",
        )
        for one in shown
    )
    yield table(("step#", "held-out loss#", *(f"{name}#" for name in names), ""), rows)
    if len(shown) < len(found):
        yield note(f"{len(shown)} of {len(found):,} evaluations; all are in metrics.jsonl.")
    if names:
        yield note("Figures of the model in training, not of the served version.")


def _samples(job: JobDetail) -> Iterator[Markup]:
    answers: dict[str, list[tuple[str, str]]] = {}
    for one in job.samples:
        told = answers.setdefault(str(one.get("prompt")), [])
        told.append((str(one.get("step")), str(one.get("answer"))))
    for prompt, told in list(answers.items())[:_MOST_PROMPTS]:
        step, last = told[-1]
        asked = '<div class="item"><p>asked</p>{}<p>answered at step {}</p>{}{}</div>'
        yield html(asked, block(prompt), step, block(last), _earlier(told[:-1]))
    if len(answers) > _MOST_PROMPTS:
        yield note(f"{len(answers) - _MOST_PROMPTS:,} more prompts are in samples.jsonl.")


def _earlier(told: Sequence[tuple[str, str]]) -> Markup:
    if not told:
        return Markup()
    kept = spread(told, _MOST_ANSWERS)
    body = joined(html("<p>step {}</p>{}", at, block(text, 1_000)) for at, text in kept)
    left = "" if len(kept) == len(told) else f" of {len(told):,}; all are in samples.jsonl"
    return folded(f"{len(kept)} earlier answers{left}", body)


def _data(job: JobDetail, after: Aftermath) -> Iterator[Markup]:
    paths = _paths(job.config.get("data"))
    sources, mixture = (_mapping(after.lineage.get(key)) for key in ("data", "mixture"))
    hashes = {label: str(_mapping(found).get("sha256", "-")) for label, found in sources.items()}
    rows = []
    for label in dict.fromkeys([*hashes, *paths]):
        counts, share = _mapping(sources.get(label)), _mapping(mixture.get(label))
        path = str(counts.get("path") or paths.get(label, "-"))
        cells = (counts.get("rows"), counts.get("tokens"), counts.get("learnt_tokens"), share.get("rows"))
        rows.append((label, path, *map(_shown, cells), hashes.get(label, "-")[:12]))
    columns = ("source", "file", "rows#", "tokens#", "trained on#", "drawn per epoch#", "sha256")
    yield table(columns, rows)
    if not sources:
        yield note("Rows and tokens are counted in the lineage of a version; this job has none.")


def _verdicts(job: JobDetail, after: Aftermath) -> Iterator[Markup]:
    yield from (banner("warning", "the version", text) for text in after.problems)
    rows = [
        (one.kind, _verdict(one.verdict), one.sentence, f"{moment(one.at)} by {one.who}")
        for one in after.found
    ]
    if rows:
        yield table(("what", "verdict", "finding", "when"), rows)
    elif job.status.version is not None and not after.problems:
        yield note("None yet: wardrobe eval gate, wardrobe train prove and wardrobe eval run leave theirs.")
    outcome = _mapping(after.lineage.get("outcome"))
    if outcome:
        yield folded("Trained and served: loss and residual", block(_yaml(outcome)))


def _config(job: JobDetail) -> Iterator[Markup]:
    yield folded("Every setting, defaults written out", block(_yaml(job.config), 20_000))
    yield note(f"plan {job.plan_sha256[:12]}, folder {job.folder}")


def _verdict(verdict: str | None) -> str:
    return "-" if verdict is None else mark(verdict, WORDS.get(verdict, verdict))


def _paths(data: JsonValue | None) -> dict[str, str]:
    """Return the files that a config names, by their labels; a source may be a text or a mapping."""
    found: dict[str, str] = {}
    settings = _mapping(data)
    train = settings.get("train")
    for place, source in enumerate(train if isinstance(train, list) else [train]):
        found[str(_mapping(source).get("name") or f"train {place + 1}")] = _path(source)
    for label in ("eval", "replay"):
        if settings.get(label) is not None:
            found[label] = _path(settings[label])
    return found


def _path(source: object) -> str:
    named = _mapping(source)
    if (share := number(named.get("share"))) is not None and not named.get("path"):
        return f"{share:.3g} of the rows of train, held out"
    return str(named.get("path") or (_yaml(named).strip() if named else source))


def _scores(evaluation: Mapping[str, JsonValue]) -> Mapping[str, object]:
    return _mapping(evaluation.get("scores"))


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _shown(value: object) -> str:
    found = number(value)
    if found is None:
        return "-"
    if not math.isfinite(found):
        return "not finite"
    return f"{found:,.0f}" if isinstance(value, int) or abs(found) >= 1_000 else f"{found:.4g}"


def _yaml(value: Mapping[str, object]) -> str:
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=100)
