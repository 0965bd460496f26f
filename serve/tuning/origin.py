"""What `model` of a fine-tuning job means: the base, or the version that the training goes on from.

Pure, over one view. Owns the configured stand-ins (`[tuning] models`): names of OpenAI's models that an
application has in its code. Invariant: a name that moves is followed once, when the job is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from registry.errors import NotFound, Quarantined, UsageError, WardrobeError
from registry.names import BASE, parse_model
from registry.views.view import View
from serve.openai.errors import RequestRefused


def find_start(
    text: str, view: View, base: str, stand_ins: Mapping[str, str], param: str = "model"
) -> str | None:
    """Return the `NAME@N` that a training starts from, None: the base; without a `base` nobody starts there.

    Raises: RequestRefused: nothing that can be tuned has this name; lists what does.
    """
    meant = stand_ins.get(text, text)
    if base and meant in {base, BASE} and (meant == base or text in stand_ins):
        return None
    try:
        tuned = view.tuned.get(meant)
        version = view.resolve(parse_model(meant)) if tuned is None else view.follow(tuned)
    except (NotFound, Quarantined, UsageError) as error:
        known = [name for name, other in sorted(stand_ins.items()) if _means_something(other, view, base)]
        raise _unavailable(text, error, [base, *known] if base else known, param) from error
    return version.name


def _means_something(meant: str, view: View, base: str) -> bool:
    """Return whether a stand-in's model exists in `view`, which may be a part of all."""
    if meant in {base, BASE}:
        return bool(base)
    return meant in view.tuned or meant.partition("@")[0] in view.adapters


def _unavailable(text: str, error: WardrobeError, known: Sequence[str], param: str) -> RequestRefused:
    names = "".join(f"{name}, " for name in known)
    message = (
        f"Model {text[:200]} is not available for fine-tuning or does not exist ({error.fact}). "
        f"Known are {names}NAME@N of any adapter, and the names of fine-tuned models."
    )
    return RequestRefused(message, param=param, reason="model_not_available")
