"""Objects against the schemas of their kinds: Kubernetes' own, strictly, and those of custom resources.

Invariant: an object whose kind has no schema here is a finding, never passed over. The models of custom
resources drop fields that they do not know; such a field is a finding too, since the API server would
refuse or prune it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.checks.chart import ChartObject

if TYPE_CHECKING:
    from pydantic import BaseModel

KUBERNETES = "1.34"
"""The release that objects are checked against unless told otherwise; the chart asks for 1.30 or later."""


@dataclass(frozen=True, slots=True)
class SchemaFinding:
    """What is wrong with which object."""

    where: str
    fault: str

    def __str__(self) -> str:
        return f"{self.where}: {self.fault}"


def check_schemas(manifests: Iterable[ChartObject], version: str = KUBERNETES) -> list[SchemaFinding]:
    """Return one finding per object that its schema refuses, or that has none."""
    return [
        SchemaFinding(f"{one.source} {one.name}", fault)
        for one in manifests
        for fault in _faults(one, version)
    ]


def _faults(manifest: ChartObject, version: str) -> Iterator[str]:
    import kubernetes_validate as kubernetes

    api = str(manifest.body.get("apiVersion") or "")
    if not manifest.kind or not api:
        yield "has no kind or no apiVersion"
        return
    model = _custom_model(api, manifest.kind)
    if model is not None:
        yield from _custom_faults(manifest, model)
        return
    try:
        kubernetes.validate(dict(manifest.body), version, strict=True)
    except kubernetes.ValidationError as error:
        yield f"{'.'.join(str(part) for part in error.path)}: {error.message[:300]}"
    except kubernetes.SchemaNotFoundError:
        yield f"no schema is known for {api} {manifest.kind} in Kubernetes {version}"


def _custom_model(api: str, kind: str) -> type[BaseModel] | None:
    from cloudcoil.models import keda, prometheus_operator

    found: dict[tuple[str, str], type[BaseModel]] = {
        ("keda.sh/v1alpha1", "ScaledObject"): keda.v1alpha1.ScaledObject,
        ("monitoring.coreos.com/v1", "PrometheusRule"): prometheus_operator.v1.PrometheusRule,
        ("monitoring.coreos.com/v1", "ServiceMonitor"): prometheus_operator.v1.ServiceMonitor,
    }
    return found.get((api, kind))


def _custom_faults(manifest: ChartObject, model: type[BaseModel]) -> Iterator[str]:
    from pydantic import ValidationError

    try:
        known = model.model_validate(dict(manifest.body))
    except ValidationError as error:
        for one in error.errors():
            yield f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"
        return
    kept = known.model_dump(by_alias=True, exclude_unset=True, mode="json")
    for lost in _lost(manifest.body, kept, ""):
        yield f"{lost}: no such field"


def _lost(given: object, kept: object, path: str) -> Iterator[str]:
    """Yield the paths of keys in `given` that are not in `kept`."""
    if isinstance(given, Mapping) and isinstance(kept, Mapping):
        for key, value in given.items():
            here = f"{path}.{key}".lstrip(".")
            if key not in kept:
                yield here
            else:
                yield from _lost(value, kept[key], here)
    elif isinstance(given, list) and isinstance(kept, list):
        for index, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _lost(one, other, f"{path}.{index}")
