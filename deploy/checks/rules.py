"""What no schema knows: do the objects fit each other, and is every pod as closed as it can be?

Pure: from rendered objects to findings. Each rule is a generator of (object, fault); `RULES` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from deploy.checks.chart import ChartObject, at, mappings
from deploy.checks.schemas import SchemaFinding

LAUNCHER_GRACE_SECONDS = 10
"""What `serve/launcher` may take beyond `drain_seconds` to end the engine."""

_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Pod": (),
}


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, or the template of one, with the object that makes it."""

    owner: ChartObject
    body: JsonValue

    @property
    def labels(self) -> Mapping[str, JsonValue]:
        """Return its labels."""
        found = at(self.body, "metadata", "labels")
        return found if isinstance(found, dict) else {}

    def spec(self, *path: str) -> JsonValue:
        """Return a value of its spec."""
        return at(self.body, "spec", *path)

    @property
    def containers(self) -> list[Mapping[str, JsonValue]]:
        """Return all containers, those of the start first."""
        return [*mappings(self.spec("initContainers")), *mappings(self.spec("containers"))]

    @property
    def ports(self) -> set[str]:
        """Return the names of its ports."""
        return {str(port.get("name")) for one in self.containers for port in mappings(one.get("ports"))}


Rule = Callable[[list[ChartObject], list[Pod]], Iterator[tuple[ChartObject, str]]]


def check_rules(manifests: Iterable[ChartObject]) -> list[SchemaFinding]:
    """Return what every rule finds."""
    every = list(manifests)
    pods = [Pod(one, at(one.body, *_TEMPLATES[one.kind])) for one in every if one.kind in _TEMPLATES]
    return [
        SchemaFinding(f"{owner.source} {owner.name}", fault)
        for rule in RULES
        for owner, fault in rule(every, pods)
    ]


def _pods_are_closed(_: list[ChartObject], pods: list[Pod]) -> Iterator[tuple[ChartObject, str]]:
    for pod in pods:
        wanted = {
            "runAsNonRoot": pod.spec("securityContext", "runAsNonRoot") is True,
            "seccompProfile RuntimeDefault": pod.spec("securityContext", "seccompProfile", "type")
            == "RuntimeDefault",
            "automountServiceAccountToken: false": pod.spec("automountServiceAccountToken") is False,
            "enableServiceLinks: false (WARDROBE_PORT)": pod.spec("enableServiceLinks") is False,
            "no host namespaces": not any(pod.spec(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
        }
        for wish, met in wanted.items():
            if not met:
                yield pod.owner, f"pod lacks {wish}"


def _containers_are_closed(_: list[ChartObject], pods: list[Pod]) -> Iterator[tuple[ChartObject, str]]:
    for pod in pods:
        for one in pod.containers:
            wanted = {
                "readOnlyRootFilesystem": at(one, "securityContext", "readOnlyRootFilesystem") is True,
                "allowPrivilegeEscalation: false": at(one, "securityContext", "allowPrivilegeEscalation")
                is False,
                "capabilities drop ALL": at(one, "securityContext", "capabilities", "drop") == ["ALL"],
                "a memory limit": at(one, "resources", "limits", "memory") is not None,
                "a memory request": at(one, "resources", "requests", "memory") is not None,
                "an image with a fixed tag": _is_fixed(str(one.get("image"))),
            }
            for wish, met in wanted.items():
                if not met:
                    yield pod.owner, f"container {one.get('name')} lacks {wish}"


def _is_fixed(image: str) -> bool:
    tag = image.rpartition("/")[2].partition(":")[2]
    return "@sha256:" in image or tag not in {"", "latest"}


def _servers_can_drain(_: list[ChartObject], pods: list[Pod]) -> Iterator[tuple[ChartObject, str]]:
    for pod in pods:
        for one in mappings(pod.spec("containers")):
            drain = _environment(one).get("WARDROBE_DRAIN_SECONDS")
            if drain is None:
                continue
            sleep, grace = (
                at(one, "lifecycle", "preStop", "sleep", "seconds"),
                pod.spec("terminationGracePeriodSeconds"),
            )
            if not isinstance(sleep, int) or not isinstance(grace, int):
                yield pod.owner, "has no preStop sleep or no terminationGracePeriodSeconds"
            elif grace < (least := sleep + float(str(drain)) + LAUNCHER_GRACE_SECONDS):
                yield pod.owner, f"terminationGracePeriodSeconds {grace} cuts streams; at least {least:g}"
            for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
                if at(one, probe, "httpGet", "path") != path:
                    yield pod.owner, f"{probe} does not ask {path}"


def _environment(container: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {str(one.get("name")): one.get("value") for one in mappings(container.get("env"))}


def _selectors_find_pods(every: list[ChartObject], pods: list[Pod]) -> Iterator[tuple[ChartObject, str]]:
    paths = {
        "Deployment": ("spec", "selector", "matchLabels"),
        "Service": ("spec", "selector"),
        "PodDisruptionBudget": ("spec", "selector", "matchLabels"),
        "NetworkPolicy": ("spec", "podSelector", "matchLabels"),
    }
    for one in every:
        if one.kind not in paths:
            continue
        wanted = one.at(*paths[one.kind])
        own = [pod for pod in pods if one.kind != "Deployment" or pod.owner is one]
        if not isinstance(wanted, dict) or not any(_matches(wanted, pod.labels) for pod in own):
            yield one, "its selector finds no pod"


def _services_reach_one_kind_of_pod(
    every: list[ChartObject], pods: list[Pod]
) -> Iterator[tuple[ChartObject, str]]:
    for one in every:
        wanted = one.at("spec", "selector")
        if one.kind != "Service" or not isinstance(wanted, dict):
            continue
        found = [pod for pod in pods if _matches(wanted, pod.labels)]
        if {pod.owner.kind for pod in found} - {"Deployment"}:
            yield one, "its selector finds pods that serve nothing"
        for port in mappings(one.at("spec", "ports")):
            if any(str(port.get("targetPort")) not in pod.ports for pod in found):
                yield one, f"no container names the port {port.get('targetPort')}"


def _references_lead_somewhere(
    every: list[ChartObject], pods: list[Pod]
) -> Iterator[tuple[ChartObject, str]]:
    names = {one.name for one in every}
    for pod in pods:
        account = pod.spec("serviceAccountName")
        if f"ServiceAccount/{account}" not in names:
            yield pod.owner, f"there is no ServiceAccount/{account}"
        volumes = {str(one.get("name")): one for one in mappings(pod.spec("volumes"))}
        for volume in volumes.values():
            config = at(volume, "configMap", "name")
            if config is not None and f"ConfigMap/{config}" not in names:
                yield pod.owner, f"there is no ConfigMap/{config}"
        mounted = {str(m.get("name")) for one in pod.containers for m in mappings(one.get("volumeMounts"))}
        for name in sorted(mounted ^ volumes.keys()):
            yield pod.owner, f"volume {name} is " + ("unused" if name in volumes else "not there")


def _custom_resources_have_targets(
    every: list[ChartObject], _: list[Pod]
) -> Iterator[tuple[ChartObject, str]]:
    services = [one for one in every if one.kind == "Service"]
    for one in every:
        if one.kind == "ScaledObject":
            target = one.at("spec", "scaleTargetRef", "name")
            owner = next((other for other in every if other.name == f"Deployment/{target}"), None)
            if owner is None:
                yield one, f"there is no Deployment/{target}"
            elif owner.at("spec", "replicas") is not None:
                yield owner, "sets replicas, which the autoscaler also does"
        if one.kind == "ServiceMonitor":
            wanted = one.at("spec", "selector", "matchLabels")
            found = [two for two in services if isinstance(wanted, dict) and _matches(wanted, _labels(two))]
            named = {port.get("name") for two in found for port in mappings(two.at("spec", "ports"))}
            asked = {end.get("port") for end in mappings(one.at("spec", "endpoints"))}
            if not found or not asked <= named:
                yield one, "it finds no Service with that port"


def _labels(manifest: ChartObject) -> Mapping[str, JsonValue]:
    found = manifest.at("metadata", "labels")
    return found if isinstance(found, dict) else {}


def _matches(wanted: Mapping[str, JsonValue], labels: Mapping[str, JsonValue]) -> bool:
    return wanted.items() <= labels.items()


RULES: tuple[Rule, ...] = (
    _pods_are_closed,
    _containers_are_closed,
    _servers_can_drain,
    _selectors_find_pods,
    _services_reach_one_kind_of_pod,
    _references_lead_somewhere,
    _custom_resources_have_targets,
)
