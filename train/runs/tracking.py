"""Where figures go beside the job's own files: TensorBoard, Weights & Biases, MLflow, Prometheus.

Owns the translation of a step into each tracker's words. Nothing leaves the machine: W&B runs offline, MLflow
writes to the job's folder unless its own variables say otherwise. Invariant: a tracker that is asked for and
not installed stops the run before the first step.
"""

from __future__ import annotations

import importlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from registry.errors import UsageError
from registry.storage import files
from train.loop.watching import Observer, OptimiserStep, TrainingEvaluation
from train.process.device import peak_memory

if TYPE_CHECKING:
    from train.config import TrainConfig
    from train.jobs.store import Job

METRICS = "metrics"
"""The folder under `jobs/` that node_exporter's textfile collector reads."""
_WRITE_SECONDS = 3.0
_STATES = ("queued", "running", "interrupted", "succeeded", "failed", "cancelled")


def make_trackers(config: TrainConfig, job: Job) -> tuple[Observer, ...]:
    """Return the trackers that `config` asks for.

    Raises: UsageError: one of them is not installed.
    """
    makers: dict[str, Callable[[TrainConfig, Job], Observer]] = {
        "tensorboard": TensorBoard,
        "wandb": Wandb,
        "mlflow": Mlflow,
        "prometheus": Prometheus,
    }
    return tuple(makers[name](config, job) for name in config.tracking.to)


def figures(step: OptimiserStep) -> dict[str, float]:
    """Return the finite figures of a step, by the trackers' names."""
    told = {f"train/{key}": value for key, value in step.logs.items() if key not in {"loss", "epoch"}}
    told |= {"train/loss": step.loss, "train/tokens": float(step.tokens)}
    told["train/tokens_per_second"] = step.tokens_per_second
    return {key: value for key, value in told.items() if math.isfinite(value)}


def evaluation_figures(evaluation: TrainingEvaluation) -> dict[str, float]:
    """Return the figures of an evaluation, by the trackers' names."""
    told = {f"eval/{evaluation.suite}/{key}": value for key, value in evaluation.scores.items()}
    return told if evaluation.loss is None else {"eval/loss": evaluation.loss, **told}


class TensorBoard:
    """Event files in `jobs/<id>/tensorboard`."""

    def __init__(self, _config: TrainConfig, job: Job) -> None:
        _require("tensorboard", "wardrobe-llm[track]")
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(job.folder / "tensorboard"))

    def step(self, step: OptimiserStep) -> None:
        """Write a step's scalars."""
        for name, value in figures(step).items():
            self._writer.add_scalar(name, value, step.number)

    def evaluation(self, evaluation: TrainingEvaluation) -> None:
        """Write an evaluation's scalars and answers."""
        for name, value in evaluation_figures(evaluation).items():
            self._writer.add_scalar(name, value, evaluation.step)
        for index, (prompt, answer) in enumerate(evaluation.samples, start=1):
            self._writer.add_text(f"samples/{index}", f"{prompt}\n\n{answer}", evaluation.step)

    def close(self, state: str) -> None:
        """Write the rest."""
        self._writer.add_text("state", state)
        self._writer.close()


class Wandb:
    """An offline run of Weights & Biases in `jobs/<id>/wandb`; `wandb sync` uploads it where wanted."""

    def __init__(self, config: TrainConfig, job: Job) -> None:
        wandb = _require("wandb", "wandb")
        self._run: Any = wandb.init(
            project=config.tracking.project or "wardrobe",
            name=f"{config.name} {job.id}",
            id=job.id,
            dir=str(job.folder),
            config=job.description.config,
            mode="offline",
            settings=wandb.Settings(silent=True),
        )

    def step(self, step: OptimiserStep) -> None:
        """Log a step."""
        self._run.log(figures(step), step=step.number)

    def evaluation(self, evaluation: TrainingEvaluation) -> None:
        """Log an evaluation."""
        self._run.log(evaluation_figures(evaluation), step=evaluation.step)

    def close(self, state: str) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if state == "succeeded" else 1)


class Mlflow:
    """A run of MLflow, in `jobs/<id>/mlflow.db` unless MLFLOW_TRACKING_URI says where."""

    def __init__(self, config: TrainConfig, job: Job) -> None:
        self._mlflow: Any = _require("mlflow", "mlflow")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            self._mlflow.set_tracking_uri(f"sqlite:///{job.folder / 'mlflow.db'}")
        self._mlflow.set_experiment(config.tracking.project or "wardrobe")
        self._mlflow.start_run(run_name=f"{config.name} {job.id}")
        self._mlflow.log_params({"adapter": config.name, "method": config.method.type, "job": job.id})

    def step(self, step: OptimiserStep) -> None:
        """Log a step."""
        self._mlflow.log_metrics(figures(step), step=step.number)

    def evaluation(self, evaluation: TrainingEvaluation) -> None:
        """Log an evaluation."""
        self._mlflow.log_metrics(evaluation_figures(evaluation), step=evaluation.step)

    def close(self, state: str) -> None:
        """End the run."""
        self._mlflow.end_run("FINISHED" if state == "succeeded" else "FAILED")


class Prometheus:
    """A text file for node_exporter: `jobs/metrics/<job>.prom`, replaced every few seconds."""

    def __init__(self, config: TrainConfig, job: Job) -> None:
        self._path = job.folder.parent / METRICS / f"{job.id}.prom"
        self._labels = {"job_id": job.id, "adapter": config.name}
        self._info = {**self._labels, "method": config.method.type, "base": job.description.base}
        self._values: dict[str, float] = {}
        self._scores: dict[tuple[str, str], float] = {}
        self._state = "running"
        self._written = -math.inf
        files.make_directory(self._path.parent)
        self._write()

    def step(self, step: OptimiserStep) -> None:
        """Take a step's figures; write them where the last write is a few seconds ago."""
        self._values |= {
            "step": step.number,
            "steps": step.total,
            "last_step_timestamp_seconds": time.time(),
            "step_seconds": step.seconds,
            "loss": step.loss,
            "tokens_total": step.tokens,
            "memory_bytes": float(peak_memory()),
        }
        for ours, theirs in (("learning_rate", "learning_rate"), ("grad_norm", "grad_norm")):
            if theirs in step.logs:
                self._values[ours] = step.logs[theirs]
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            self._write()

    def evaluation(self, evaluation: TrainingEvaluation) -> None:
        """Write an evaluation."""
        if evaluation.loss is not None:
            self._values["eval_loss"] = evaluation.loss
        for name, value in evaluation.scores.items():
            self._scores[str(evaluation.suite), name] = value
        self._write()

    def close(self, state: str) -> None:
        """Write the last state."""
        self._state = state
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        text = "".join(f"{line}\n" for line in self._lines())
        files.replace(self._path, text.encode(), durable=False)

    def _lines(self) -> Iterator[str]:
        yield "# TYPE wardrobe_train_info gauge"
        yield f"wardrobe_train_info{_labels(self._info)} 1"
        yield "# TYPE wardrobe_train_state gauge"
        for state in _STATES:
            labels = _labels({**self._labels, "state": state})
            yield f"wardrobe_train_state{labels} {int(state == self._state)}"
        for name, value in self._values.items():
            yield f"# TYPE wardrobe_train_{name} {'counter' if name.endswith('_total') else 'gauge'}"
            yield f"wardrobe_train_{name}{_labels(self._labels)} {value!r}"
        # One figure per suite: the first grader's.
        suites = {suite: value for (suite, _), value in reversed(self._scores.items())}
        if suites:
            yield "# TYPE wardrobe_train_eval_score gauge"
        for suite, value in suites.items():
            yield f"wardrobe_train_eval_score{_labels({**self._labels, 'suite': suite})} {value!r}"


def _labels(labels: Mapping[str, str]) -> str:
    escaped = {
        key: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        for key, value in labels.items()
    }
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped.items()) + "}"


def _require(package: str, install: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UsageError(
            f"tracking.to: {package}", f"needs the package {package} ({error})", f"pip install '{install}'"
        ) from error
