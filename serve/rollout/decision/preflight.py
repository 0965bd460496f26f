"""The canary's pre-flight: what must hold before it meets users. Pure functions.

A version gets weight only when every live replica reports it loaded, it is proved, and its golden
prompts were answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from registry.records import Heartbeat, RolloutEntry
from registry.views.view import AdapterView


@dataclass(frozen=True, slots=True)
class Preflight:
    """Whether the canary may meet users: `missing` says what every live replica still lacks.

    `failed` is a reason that will not go away by waiting: the version cannot be loaded or proved, or its
    golden prompts were not answered.
    """

    ready: bool
    missing: str = ""
    failed: str = ""


def check_preflight(
    entry: RolloutEntry,
    adapter: AdapterView,
    replicas: Sequence[Heartbeat],
    *,
    require_proof: bool,
    golden: Mapping[str, bool] | None,
    failure: str,
) -> Preflight:
    """Return whether the rollout may leave `preloading`.

    `replicas` are the live ones; `golden` maps each golden prompt to whether it was answered, empty while
    nobody has asked, None where the adapter has none; `failure` is why this replica cannot load the
    canary, '' if it can.
    """
    if failure:
        return Preflight(ready=False, failed=failure)
    if golden and not all(golden.values()):
        wrong = ", ".join(sorted(name for name, answered in golden.items() if not answered))
        return Preflight(ready=False, failed=f"golden prompts without the right answer: {wrong}")
    missing = [*_missing_loads(entry, replicas)]
    if require_proof and entry.canary not in adapter.proved:
        missing.append(f"{adapter.name}@{entry.canary} is not proved yet")
    if golden is not None and not golden:
        missing.append("the golden prompts have not been answered yet")
    return Preflight(ready=not missing, missing="; ".join(missing))


def _missing_loads(entry: RolloutEntry, replicas: Sequence[Heartbeat]) -> list[str]:
    names = [f"{entry.adapter}@{number}" for number in (entry.canary, entry.stable) if number]
    serving = [one for one in replicas if one.state != "draining"]
    if not serving:
        return ["no replica is live"]
    lacking = {one.replica: [name for name in names if name not in one.resident] for one in serving}
    return [f"{replica} has not loaded {', '.join(found)}" for replica, found in lacking.items() if found]


def check_forbidden(entry: RolloutEntry, adapter: AdapterView) -> str:
    """Return why the canary may not be served any more, '' when it may."""
    name = f"{adapter.name}@{entry.canary}"
    if entry.canary in adapter.quarantined:
        return f"{name} is quarantined: {adapter.quarantined[entry.canary]}"
    if entry.canary not in adapter.versions:
        return f"{name} does not exist any more"
    return ""
