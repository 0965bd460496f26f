"""The published structure of fine-tuning's objects, in our own words; see `tests.published`.

Of a job the status `paused` is taken as well, which the specification's example of a pause has and its list
leaves out; ours stands under `x_wardrobe`.
"""

from __future__ import annotations

from typing import Any

import jsonschema

from tests.published import _METADATA, _NUMBER, _OR_NULL, _TEXT, _TRUTH, _list, _object, _one

_ANY: dict[str, Any] = {}
_FIGURE = {"type": "number"}
_NUMBER_OR_NULL = {"anyOf": [_NUMBER, {"type": "null"}]}


def _auto(
    low: float, high: float | None = None, *, whole: bool = False, open_end: bool = False
) -> dict[str, Any]:
    number: dict[str, Any] = {"type": "integer" if whole else "number"}
    number["exclusiveMinimum" if open_end else "minimum"] = low
    if high is not None:
        number["maximum"] = high
    return {"oneOf": [{"type": "string", "enum": ["auto"]}, number]}


_BASIC = {
    "batch_size": _auto(1, 256, whole=True),
    "learning_rate_multiplier": _auto(0, open_end=True),
    "n_epochs": _auto(1, 50, whole=True),
}
_REINFORCED = {
    **_BASIC,
    "reasoning_effort": _one("default", "low", "medium", "high"),
    "compute_multiplier": _auto(1e-5, 10, open_end=True),
    "eval_interval": _auto(1, whole=True),
    "eval_samples": _auto(1, whole=True),
}
_METHOD = _object(
    "type",
    type=_one("supervised", "dpo", "reinforcement"),
    supervised=_object("", hyperparameters=_object("", **_BASIC)),
    dpo=_object("", hyperparameters=_object("", **_BASIC, beta=_auto(0, 2, open_end=True))),
    reinforcement=_object("grader", grader={"type": "object"}, hyperparameters=_object("", **_REINFORCED)),
)
_WANDB = _object(
    "project", project=_TEXT, name=_OR_NULL, entity=_OR_NULL, tags={"type": "array", "items": _TEXT}
)
_ERROR = _object("code message param", code=_TEXT, message=_TEXT, param=_OR_NULL)
_JOB = _object(
    "created_at error finished_at fine_tuned_model hyperparameters id model object organization_id"
    " result_files status trained_tokens training_file validation_file seed",
    id=_TEXT,
    object=_one("fine_tuning.job"),
    created_at=_NUMBER,
    error={
        "anyOf": [_object("code message param", code=_TEXT, message=_TEXT, param=_OR_NULL), {"type": "null"}]
    },
    fine_tuned_model=_OR_NULL,
    finished_at=_NUMBER_OR_NULL,
    hyperparameters=_object("", **_BASIC),
    model=_TEXT,
    organization_id=_TEXT,
    result_files={"type": "array", "items": _TEXT},
    status=_one("validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"),
    trained_tokens=_NUMBER_OR_NULL,
    training_file=_TEXT,
    validation_file=_OR_NULL,
    integrations={
        "anyOf": [
            {
                "type": "array",
                "maxItems": 5,
                "items": _object("type wandb", type=_one("wandb"), wandb=_WANDB),
            },
            {"type": "null"},
        ]
    },
    seed=_NUMBER,
    estimated_finish=_NUMBER_OR_NULL,
    method=_METHOD,
    metadata=_METADATA,
    x_wardrobe={"type": "object"},
)
_EVENT = _object(
    "id object created_at level message",
    object=_one("fine_tuning.job.event"),
    id=_TEXT,
    created_at=_NUMBER,
    level=_one("info", "warn", "error"),
    message=_TEXT,
    type=_one("message", "metrics"),
    data={"type": "object"},
)
_FIGURES = (
    "step", "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy",
    "full_valid_loss", "full_valid_mean_token_accuracy",
)  # fmt: skip
_CHECKPOINT = _object(
    "created_at fine_tuning_job_id fine_tuned_model_checkpoint id metrics object step_number",
    id=_TEXT,
    object=_one("fine_tuning.job.checkpoint"),
    created_at=_NUMBER,
    fine_tuned_model_checkpoint=_TEXT,
    fine_tuning_job_id=_TEXT,
    step_number=_NUMBER,
    metrics=_object("", **dict.fromkeys(_FIGURES, _FIGURE)),
)
_PERMISSION = _object(
    "created_at id object project_id",
    id=_TEXT,
    created_at=_NUMBER,
    project_id=_TEXT,
    object=_one("checkpoint.permission"),
)
_FLAGS = (
    "formula_parse_error", "sample_parse_error", "truncated_observation_error", "unresponsive_reward_error",
    "invalid_variable_error", "other_error", "python_grader_server_error", "python_grader_runtime_error",
    "model_grader_server_error", "model_grader_refusal_error", "model_grader_parse_error",
)  # fmt: skip
_WORDS = (
    "python_grader_server_error_type", "python_grader_runtime_error_details",
    "model_grader_server_error_details",
)  # fmt: skip
_RUN = _object(
    "reward metadata sub_rewards model_grader_token_usage_per_model",
    reward=_FIGURE,
    metadata=_object(
        "name type errors execution_time scores token_usage sampled_model_name",
        name=_TEXT,
        type=_TEXT,
        errors=_object(
            " ".join((*_FLAGS, *_WORDS)), **dict.fromkeys(_FLAGS, _TRUTH), **dict.fromkeys(_WORDS, _OR_NULL)
        ),
        execution_time=_FIGURE,
        scores={"type": "object"},
        token_usage=_NUMBER_OR_NULL,
        sampled_model_name=_OR_NULL,
    ),
    sub_rewards={"type": "object"},
    model_grader_token_usage_per_model={"type": "object"},
    x_wardrobe={"type": "object"},
)


def _nullable(page: dict[str, Any]) -> dict[str, Any]:
    page["properties"] |= {"first_id": _OR_NULL, "last_id": _OR_NULL}
    return page


TUNING: dict[str, dict[str, Any]] = {
    "job": _JOB,
    "jobs": _list(_JOB),
    "events": _list(_EVENT),
    "checkpoints": _nullable(_list(_CHECKPOINT)),
    "permissions": _nullable(_list(_PERMISSION)),
    "grader run": _RUN,
    "grader": _object("grader", grader=_ANY),
    "event": _object(
        "id object created_at type data",
        id=_TEXT,
        object=_one("event"),
        created_at=_NUMBER,
        type=_TEXT,
        data=_object("id", id=_TEXT),
    ),
}


def check_tuning(kind: str, answer: object) -> None:
    """Fail unless `answer` has the published structure of `kind`."""
    jsonschema.validate(answer, TUNING[kind], cls=jsonschema.Draft202012Validator)
