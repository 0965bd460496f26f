"""OpenAI's graders: what a fine-tuning job, a run of a grader and an evaluation may name. Pure.

Owns the shape: types, ranges, the text in which `{{item.…}}` and `{{sample.…}}` stand. How each of them
judges is `train.evaluation.grading`'s. Source: OpenAI's published description of its API, 2026-08-21.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from registry.errors import UsageError
from registry.wording import fact_of

PLACE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
"""What stands for a value in a template."""
_PATH = re.compile(r"(item|sample)(\.[A-Za-z0-9_-]+|\[\d+\])*")
MAX_GRADERS = 20
MAX_SOURCE_BYTES = 256 * 1024


def _template(text: object) -> object:
    for place in PLACE.findall(text) if isinstance(text, str) else ():
        if _PATH.fullmatch(place) is None:
            message = "{{{{{place}}}}} is no value: write item.NAME, sample.output_text or sample.output_json"
            raise PydanticCustomError("invalid_template", message, {"place": place[:100]})
    return text


Template = Annotated[str, BeforeValidator(_template)]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class StringCheck(_Part):
    """Whether two texts are equal, different, or one holds the other."""

    type: Literal["string_check"]
    name: Name
    input: Template
    reference: Template
    operation: Literal["eq", "ne", "like", "ilike"]


class TextSimilarity(_Part):
    """How alike two texts are, 0 to 1; an evaluation may say by `pass_threshold` whether it is enough."""

    type: Literal["text_similarity"]
    name: Name = "text_similarity"
    input: Template
    reference: Template
    evaluation_metric: Literal[
        "cosine", "fuzzy_match", "bleu", "gleu", "meteor",
        "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l",
    ]  # fmt: skip
    pass_threshold: float | None = None


class PythonCode(_Part):
    """What `grade(sample, item)` of this source returns."""

    type: Literal["python"]
    name: Name
    source: Annotated[str, Field(min_length=1, max_length=MAX_SOURCE_BYTES)]
    image_tag: str | None = None
    pass_threshold: float | None = None


class _Text(_Part):
    type: Literal["input_text", "output_text"]
    text: Template


class GraderMessage(_Part):
    """A message to the model that judges; text only."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[Template | _Text | list[Template | _Text], Field(union_mode="left_to_right")]
    type: Literal["message"] = "message"

    @property
    def text(self) -> str:
        """Return what it says."""
        parts = self.content if isinstance(self.content, list) else [self.content]
        return "\n".join(one if isinstance(one, str) else one.text for one in parts)


class SamplingParams(_Part):
    """How the model that judges is asked."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    max_completions_tokens: Annotated[int, Field(ge=1)] | None = None
    reasoning_effort: str | None = None


class ScoreModel(_Part):
    """The number that a model answers, in `range`."""

    type: Literal["score_model"]
    name: Name
    model: Annotated[str, Field(min_length=1)]
    input: Annotated[list[GraderMessage], Field(min_length=1)]
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    sampling_params: SamplingParams | None = None
    pass_threshold: float | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the least and the greatest score."""
        low, high = self.range or (0.0, 1.0)
        return low, high

    @model_validator(mode="after")
    def _is_a_range(self) -> ScoreModel:
        low, high = self.bounds
        if not low < high:
            raise PydanticCustomError(
                "invalid_range", "its range does not go from a lower to a higher number"
            )
        return self


class LabelModel(_Part):
    """Whether the label that a model gives is one of those that pass."""

    type: Literal["label_model"]
    name: Name
    model: Annotated[str, Field(min_length=1)]
    input: Annotated[list[GraderMessage], Field(min_length=1)]
    labels: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    passing_labels: Annotated[list[str], Field(min_length=1)]
    sampling_params: SamplingParams | None = None

    @model_validator(mode="after")
    def _are_labels(self) -> LabelModel:
        unknown = sorted(set(self.passing_labels) - set(self.labels))
        if unknown:
            raise PydanticCustomError("invalid_labels", "passing_labels has {names}", {"names": unknown[0]})
        return self


SingleGrader = Annotated[
    StringCheck | TextSimilarity | PythonCode | ScoreModel | LabelModel, Discriminator("type")
]


def _named(graders: object) -> object:
    # OpenAI's clients type it as one grader, its server takes a map of them.
    if isinstance(graders, Mapping) and isinstance(graders.get("type"), str):
        return {str(graders.get("name", "grader")): graders}
    return graders


class MultiGrader(_Part):
    """A formula over the rewards of other graders, by their names in the map."""

    type: Literal["multi"]
    name: Name = "multi"
    graders: Annotated[
        dict[str, SingleGrader], BeforeValidator(_named), Field(min_length=1, max_length=MAX_GRADERS)
    ]
    calculate_output: Annotated[str, Field(min_length=1, max_length=2_000)]


KINDS = frozenset({"string_check", "text_similarity", "score_model", "label_model", "python", "multi"})
"""By which pydantic tells them apart in the place of a fault."""

Grader = Annotated[
    StringCheck | TextSimilarity | PythonCode | ScoreModel | LabelModel | MultiGrader, Discriminator("type")
]


_ADAPTER: TypeAdapter[Grader] = TypeAdapter(Grader)


def parse_grader(found: Mapping[str, Any]) -> Grader:
    """Return a grader.

    Raises: UsageError: names the field at fault.
    """
    try:
        return _ADAPTER.validate_python(dict(found))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"] if part not in KINDS)
        raise UsageError(f"grader {place}".rstrip(), fact_of(first), "correct it", param="grader") from error


def each_grader(grader: Grader) -> Iterator[SingleGrader]:
    """Yield the graders that judge by themselves."""
    if isinstance(grader, MultiGrader):
        yield from grader.graders.values()
    else:
        yield grader
