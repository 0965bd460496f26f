"""What `model` of a fine-tuning job means: the base, or the version that the training goes on from.

Pure, over one view. Owns the configured stand-ins (`[tuning] models`): names of OpenAI's models that an
application has in its code. Invariant: a name that moves is followed once, when the job is made.
"""

from __future__ import annotations

from collections.abc import Mapping

from registry.errors import NotFound, Quarantined, UsageError, WardrobeError
from registry.names import BASE, parse_model
from registry.views.view import View
from serve.openai.errors import RequestRefused


def find_start(
    text: str, view: View, base: str, stand_ins: Mapping[str, str], param: str = "model"
) -> str | None:
    """Return the `NAME@N` that a training starts from, None: the base.

    Raises: RequestRefused: nothing that can be tuned has this name; lists what does.
    """
    meant = stand_ins.get(text, text)
    if meant in {base, BASE} and (meant == base or text in stand_ins):
        return None
    try:
        tuned = view.tuned.get(meant)
        version = view.resolve(parse_model(meant)) if tuned is None else view.follow(tuned)
    except (NotFound, Quarantined, UsageError) as error:
        raise _unavailable(text, error, base, stand_ins, param) from error
    return version.name


def _unavailable(
    text: str, error: WardrobeError, base: str, stand_ins: Mapping[str, str], param: str
) -> RequestRefused:
    known = ", ".join([base, *sorted(stand_ins)])
    message = (
        f"Model {text[:200]} is not available for fine-tuning or does not exist ({error.fact}). "
        f"Known are {known}, NAME@N of any adapter, and the names of fine-tuned models."
    )
    return RequestRefused(message, param=param, reason="model_not_available")
