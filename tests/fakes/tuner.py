"""A worker in place of the trainer: it takes fine-tuning jobs in hand and ends them as the real one does.

What it "trains" is a right adapter whose weights a seed decides. Each step is a method, so that a test can
stop between any two.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.entries.openai.tuned import CHECKPOINT, TunedModel
from registry.records import Version
from registry.store import Registry
from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.liveness import this_process
from registry.tuning.machine import JobEvent
from registry.tuning.records import owner_facts
from registry.tuning.workers import WorkerBeat, Workers
from tests.fakes.adapters import make_adapter

WORKER = "worker-fake"
STEPS = 3


@dataclass
class Tuner:
    """Works on the jobs of `registry`; keeps its adapters in `folder`."""

    registry: Registry
    folder: Path
    jobs: TuningJobs = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = TuningJobs(self.registry.catalogue.root)

    def beat(self) -> None:
        """Say that this worker lives."""
        beat = WorkerBeat(WORKER, this_process(), "cpu", None, 1.0)
        Workers(self.registry.catalogue.root).beat(beat)

    def validate(self, job_id: str) -> TuningJob:
        """Find the job's files good."""
        job = self._claim(job_id)
        message = "Files validated, moving job to queued state"
        job.append(JobEvent.VALIDATED, who=WORKER, worker=WORKER, message=message, facts={"rows": 10})
        return job

    def begin(self, job_id: str) -> TuningJob:
        """Begin to train."""
        return self._claim(job_id, message="Fine-tuning job started")

    def train(self, job: TuningJob) -> None:
        """Write the figures of every step."""
        lines: list[dict[str, Any]] = [
            {
                "at": time.time() + step / 500,
                "step": step,
                "loss": 1 / step,
                "mean_token_accuracy": 0.5,
                "tokens": 10 * step,
                "seconds": 0.01,
            }
            for step in range(1, STEPS + 1)
        ]
        lines.append({"at": time.time(), "kind": "evaluation", "step": STEPS, "eval_loss": 0.5})
        (job.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        (job.folder / "status.json").write_text(json.dumps({"state": "running", "steps": STEPS}))

    def succeed(self, job: TuningJob, seed: int = 7) -> Version:
        """Publish what was trained, and its checkpoint of one step before."""
        request = job.request
        version = self._publish(request.adapter, seed)
        self._name(job, version, request.tuned_name)
        checkpoint = self._publish(request.adapter, seed + 100)
        self._name(job, checkpoint, f"{request.tuned_name}{CHECKPOINT}{STEPS - 1}")
        result = self.registry.catalogue.files.create(
            "fine-tune-results", "step_metrics.csv", [b"step,train_loss\n1,1.0\n"], who=request.who
        )
        facts: dict[str, Any] = {
            "fine_tuned_model": request.tuned_name,
            "version": version.number,
            "digest": version.digest,
            "result_files": [result.id],
            "trained_tokens": 30,
        }
        message = f"New fine-tuned model created: {request.tuned_name}"
        job.append(JobEvent.SUCCEEDED, who=WORKER, worker=WORKER, message=message, facts=facts)
        return version

    def run(self, job_id: str, seed: int = 7) -> Version:
        """Do all of it."""
        self.validate(job_id)
        job = self.begin(job_id)
        self.train(job)
        return self.succeed(job, seed)

    def fail(self, job: TuningJob, code: str, message: str, param: str | None = None) -> None:
        """Take a job in hand, and end it as one that cannot be trained."""
        job = self._claim(job.id)
        error: dict[str, Any] = {"code": code, "message": message, "param": param}
        job.append(JobEvent.FAILED, who=WORKER, worker=WORKER, message=message, facts={"error": error})

    def _claim(self, job_id: str, message: str = "Validating training file") -> TuningJob:
        job = self.jobs.find(job_id)
        facts: dict[str, Any] = {"owner": owner_facts(this_process()), "device": "cpu"}
        job.append(JobEvent.CLAIMED, who=WORKER, worker=WORKER, message=message, facts=facts)
        return job

    def _publish(self, adapter: str, seed: int) -> Version:
        source = self.folder / f"trained-{adapter}-{seed}"
        if not source.exists():
            make_adapter(source, seed=seed)
        return self.registry.publish(adapter, source, who=WORKER).version

    def _name(self, job: TuningJob, version: Version, name: str) -> None:
        who = job.request.who
        model = TunedModel(name, version.adapter, version.number, version.digest, job.id, who, time.time())
        self.registry.catalogue.tuned.add(model)
