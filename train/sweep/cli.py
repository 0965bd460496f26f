"""`wardrobe train sweep`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli import output
from registry.cli.session import Session, UserPath, local_options, pass_session
from train.process import environment
from train.process.interruption import Interruption

if TYPE_CHECKING:
    from train.sweep.trials import Sweep, SweepTrial

_FILE = UserPath()


@click.command()
@click.argument("sweep_file", metavar="SWEEP", type=_FILE)
@click.option("--out", type=_FILE, metavar="DIR", help="The sweep's folder (default: beside SWEEP).")
@local_options
@pass_session
def sweep(session: Session, sweep_file: Path, out: Path | None) -> None:
    """Try many settings of a config briefly, the better ones longer.

    SWEEP is YAML: the config, the settings that vary, the trials, the steps of the longest one and of all
    together. Registers nothing: it writes the best trial's config as best.yaml, for `train run`. Stopped and
    started again with the same file, it goes on.
    """
    from registry.store import Registry
    from train.sweep.settings import load_sweep
    from train.sweep.trials import default_folder, open_sweep, run_sweep

    root = session.require_local("train sweep")
    settings = load_sweep(sweep_file)
    if "train" in sys.argv[1:] and Path(sys.argv[0]).name in {"wardrobe", "main.py", "__main__.py"}:
        environment.replace_process()
    registry = Registry.open(root)
    found = open_sweep(settings, out or default_folder(sweep_file, settings), registry)
    _print_plan(found)
    with Interruption() as interruption, output.progress("sweep", _steps(found)) as advance:
        interruption.defer(lambda: None)
        try:
            best = run_sweep(found, registry, lambda *_: advance(1), lambda: interruption.requested)
        except KeyboardInterrupt:
            output.print_notice(f"stopped; the same command goes on (results: {found.folder})")
            raise
    _print(session, found, best)


def _steps(sweep: Sweep) -> int:
    from train.sweep.plan import total_steps

    return total_steps(sweep.rungs)


def _print_plan(sweep: Sweep) -> None:
    wanted, begun = sweep.settings.trials, len(sweep.trials)
    rungs = ", ".join(f"{rung.trials} to step {rung.until}" for rung in sweep.rungs)
    fewer = f" (of {wanted} asked for: more do not fit, or are not different)" if begun < wanted else ""
    output.print_notice(f"{begun} trials{fewer}: {rungs}; at most {_steps(sweep)} steps in all")


def _print(session: Session, sweep: Sweep, best: SweepTrial) -> None:
    config = sweep.folder / "best.yaml"
    scores = [
        [_number(rung.get(trial.number)) for rung in sweep.scores if trial.number in rung]
        for trial in sweep.trials
    ]
    if session.as_json:
        from train.sweep.documents import SweepReport

        output.print_json(
            SweepReport(
                folder=str(sweep.folder),
                metric=sweep.settings.metric,
                steps=_steps(sweep),
                budget_steps=sweep.settings.budget_steps,
                trials=[dict(trial.values) for trial in sweep.trials],
                scores=scores,
                best=best.number,
                best_config=str(config),
            )
        )
        return
    rows = []
    order = sorted(sweep.trials, key=lambda trial: (-len(scores[trial.number]), trial.number != best.number))
    for trial in order:
        told = "  ".join("diverged" if value is None else f"{value:.4f}" for value in scores[trial.number])
        values = ", ".join(f"{key} {value}" for key, value in trial.values.items())
        rows.append((str(trial.number), values, told, "best" if trial.number == best.number else ""))
    output.print_table(("trial#", "settings", f"{sweep.settings.metric} by rung", ""), rows)
    output.print_notice(f"wardrobe train run {config}")


def _number(value: float | None) -> float | None:
    return None if value is None or value != value else value  # noqa: PLR0124  NaN
