"""The body of `POST /v1/fine_tuning/jobs`: OpenAI's fields in OpenAI's ranges, and ours under `x_wardrobe`.

Pure. Owns what may be asked, and the form in which it is kept: the method whole, with every default written
out. Source of the ranges: OpenAI's published description of its API, 2026-08-21. Invariant: a field that
nobody knows is refused, since it would be ignored. What `x_wardrobe` holds beyond the few names that the
server needs itself is a training config's, which the worker checks (README.md says why).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, PlainSerializer, WrapValidator

from registry.api.documents import Request as RequestDocument
from registry.tuning.graders import Grader
from registry.validation.canonical import canonical_json
from serve.openai.bodies import Metadata
from serve.openai.errors import RequestRefused

AUTO: Any = "auto"
EXTRAS = "x_wardrobe"
MAX_SEED = 2**31 - 1


def _or_auto(value: Any, number: Callable[[Any], Any]) -> Any:
    return AUTO if value is None or value == AUTO else number(value)


_AS_IT_IS = PlainSerializer(lambda value: value, return_type=Any)
Epochs = Annotated[int, Field(ge=1, le=50), WrapValidator(_or_auto), _AS_IT_IS]
BatchSize = Annotated[int, Field(ge=1, le=256), WrapValidator(_or_auto), _AS_IT_IS]
Multiplier = Annotated[float, Field(gt=0, allow_inf_nan=False), WrapValidator(_or_auto), _AS_IT_IS]
Beta = Annotated[float, Field(gt=0, le=2), WrapValidator(_or_auto), _AS_IT_IS]
Compute = Annotated[float, Field(gt=1e-5, le=10), WrapValidator(_or_auto), _AS_IT_IS]
Count = Annotated[int, Field(ge=1), WrapValidator(_or_auto), _AS_IT_IS]
"""Each of them may be the word `auto` as well."""


def _writable(value: dict[str, Any]) -> dict[str, Any]:
    canonical_json(value)  # refuses NaN, lone surrogates and what is nested too deeply
    return value


Extras = Annotated[dict[str, JsonValue], AfterValidator(_writable)]


class Hyperparameters(RequestDocument):
    """Those of every method."""

    n_epochs: Epochs = Field(default=AUTO)
    batch_size: BatchSize = Field(default=AUTO)
    learning_rate_multiplier: Multiplier = Field(default=AUTO)


class DpoHyperparameters(Hyperparameters):
    """Those of DPO."""

    beta: Beta = Field(default=AUTO)


class ReinforcementHyperparameters(Hyperparameters):
    """Those of reinforcement."""

    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"
    compute_multiplier: Compute = Field(default=AUTO)
    eval_interval: Count = Field(default=AUTO)
    eval_samples: Count = Field(default=AUTO)


class SupervisedBlock(RequestDocument):
    """`method.supervised`."""

    hyperparameters: Hyperparameters = Hyperparameters()


class DpoBlock(RequestDocument):
    """`method.dpo`."""

    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class ReinforcementBlock(RequestDocument):
    """`method.reinforcement`."""

    grader: Grader
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()


class TuningMethod(RequestDocument):
    """`method`."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: SupervisedBlock | None = None
    dpo: DpoBlock | None = None
    reinforcement: ReinforcementBlock | None = None


class WandbProject(RequestDocument):
    """`integrations[].wandb`."""

    project: str
    name: str | None = None
    entity: str | None = None
    tags: list[str] = Field(default_factory=list)


class TuningIntegration(RequestDocument):
    """`integrations[]`."""

    type: Literal["wandb"]
    wandb: WandbProject


class CreateJob(RequestDocument):
    """The whole body."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    training_file: Annotated[str, Field(min_length=1)]
    validation_file: Annotated[str, Field(min_length=1)] | None = None
    hyperparameters: Hyperparameters | None = None
    method: TuningMethod | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[TuningIntegration], Field(max_length=5)] | None = None
    x_wardrobe: Extras | None = None


def whole_method(job: CreateJob) -> dict[str, Any]:
    """Return the method that is asked for, with every default written out.

    Raises: RequestRefused: the blocks do not fit the type, or the older form says something else.
    """
    method = job.method or TuningMethod(type="supervised")
    given = {name: block for name in _BLOCKS if (block := getattr(method, name)) is not None}
    for name in given:
        if name != method.type:
            message = f"Invalid 'method.{name}': the method is '{method.type}'."
            raise RequestRefused(message, param=f"method.{name}", reason="invalid_value")
    if method.type == "reinforcement" and not given:
        path = "method.reinforcement"
        raise RequestRefused(
            f"Missing required parameter: '{path}'.", param=path, reason="missing_required_parameter"
        )
    block = given.get(method.type) or _BLOCKS[method.type]()
    hyperparameters = _joined(block.hyperparameters, job.hyperparameters)
    told: dict[str, Any] = {"hyperparameters": hyperparameters}
    if isinstance(block, ReinforcementBlock):
        told = {"grader": block.grader.model_dump(mode="json", exclude_unset=True), **told}
    return {"type": method.type, method.type: told}


_BLOCKS: dict[str, Any] = {
    "supervised": SupervisedBlock,
    "dpo": DpoBlock,
    "reinforcement": ReinforcementBlock,
}


def _joined(own: Hyperparameters, older: Hyperparameters | None) -> dict[str, Any]:
    """Return the method's hyperparameters with those of the body's older form, which may not contradict."""
    told = own.model_dump()
    for name in older.model_fields_set if older is not None else ():
        value = getattr(older, name)
        if name in own.model_fields_set and told[name] != value:
            raise _contradiction(name)
        told[name] = value
    return told


def _contradiction(name: str) -> RequestRefused:
    message = f"Invalid 'hyperparameters.{name}': 'method' says something else; leave 'hyperparameters' out."
    return RequestRefused(message, param=f"hyperparameters.{name}", reason="invalid_value")
