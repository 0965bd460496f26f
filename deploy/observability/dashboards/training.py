"""The dashboard of training runs."""

from __future__ import annotations

from deploy.observability.dashboards.panels import Dashboard, Panel, PanelQuery, PanelRow, Variable
from deploy.observability.dashboards.queries import RATE, series

_RUNS = Variable("job", "wardrobe_train_info", "job_id", "Run")
_RUN = 'job_id=~"$job"'


def _of_run(title: str, metric: str, unit: str = "short") -> Panel:
    return series(title, f"max by (job_id, adapter) ({metric}{{{_RUN}}})", "{{job_id}} {{adapter}}", unit)


TRAINING = Dashboard(
    uid="wardrobe-training",
    title="Wardrobe / Training",
    text="Training runs, from the text files that they write for node_exporter.",
    variables=(_RUNS,),
    rows=(
        PanelRow(
            "Runs",
            (
                Panel(
                    "State",
                    (
                        PanelQuery(
                            f"max by (job_id, adapter, state) (wardrobe_train_state{{{_RUN}}}) == 1",
                            "{{job_id}} {{adapter}} {{state}}",
                        ),
                    ),
                    "state-timeline",
                    width=12,
                    height=6,
                ),
                Panel(
                    "What they train",
                    (PanelQuery(f"wardrobe_train_info{{{_RUN}}}"),),
                    "table",
                    width=12,
                    height=6,
                ),
                series(
                    "Done",
                    f"max by (job_id) (wardrobe_train_step{{{_RUN}}})"
                    f" / (max by (job_id) (wardrobe_train_steps{{{_RUN}}}) > 0)",
                    "{{job_id}}",
                    "percentunit",
                ),
                series(
                    "Since the last step",
                    f"time() - max by (job_id) (wardrobe_train_last_step_timestamp_seconds{{{_RUN}}})",
                    "{{job_id}}",
                    "s",
                ),
                _of_run("Peak memory", "wardrobe_train_memory_bytes", "bytes"),
            ),
        ),
        PanelRow(
            "Learning",
            (
                Panel(
                    "Loss",
                    (
                        PanelQuery(
                            f"max by (job_id, adapter) (wardrobe_train_loss{{{_RUN}}})", "{{job_id}} train"
                        ),
                        PanelQuery(
                            f"max by (job_id, adapter) (wardrobe_train_eval_loss{{{_RUN}}})",
                            "{{job_id}} held out",
                        ),
                    ),
                ),
                _of_run("Learning rate", "wardrobe_train_learning_rate", "sci"),
                _of_run("Gradient norm", "wardrobe_train_grad_norm"),
                series(
                    "Tokens/s",
                    f"sum by (job_id) (rate(wardrobe_train_tokens_total{{{_RUN}}}[{RATE}]))",
                    "{{job_id}}",
                ),
                _of_run("Seconds per step", "wardrobe_train_step_seconds", "s"),
                series(
                    "Scores",
                    f"max by (job_id, suite) (wardrobe_train_eval_score{{{_RUN}}})",
                    "{{job_id}} {{suite}}",
                ),
            ),
        ),
    ),
)
