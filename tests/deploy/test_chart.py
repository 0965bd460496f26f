"""The chart with the real Helm library: it renders, fits its schemas, and every check bites.

A mutation plants one fault in a copy of the chart and expects the finding that a person would need.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.checks.__main__ import main
from deploy.checks.chart import CHART, ChartObject, mappings, parse, render
from deploy.checks.rules import check_rules
from deploy.checks.schemas import check_schemas
from deploy.checks.settings_schema import OWNED_BY_CHART, rendered, schema_path, with_settings
from registry.errors import UsageError
from serve.settings import ServeSettings, load_settings
from tests.checkout import tracked_files
from tests.fakes.served import make_root, serve

OBSERVABILITY = CHART.parent.parent / "observability"
EXAMPLES = sorted((CHART / "ci").glob("*.yaml"))
NONE: dict[str, Any] = {}


def values(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text()))


def findings(manifests: list[ChartObject], version: str = "1.34") -> list[str]:
    return [str(one) for one in (*check_schemas(manifests, version), *check_rules(manifests))]


def find(manifests: list[ChartObject], kind: str) -> Any:
    return next(one.body for one in manifests if one.kind == kind)


@pytest.fixture(scope="module")
def full() -> list[ChartObject]:
    return render(values("full"))


def test_there_are_examples_with_everything_and_with_gpus() -> None:
    assert [path.name for path in EXAMPLES] == ["full-values.yaml", "gpu-values.yaml"]


@pytest.mark.parametrize("example", [None, *EXAMPLES], ids=lambda path: path.stem if path else "defaults")
@pytest.mark.parametrize("version", ["1.30", "1.34", "1.37"])
def test_the_chart_renders_and_fits_its_schemas(example: Path | None, version: str) -> None:
    given = yaml.safe_load(example.read_text()) if example else NONE
    assert findings(render(given), version) == []


def test_everything_on_renders_every_kind(full: list[ChartObject]) -> None:
    assert {one.kind for one in full} >= {
        "Deployment", "Service", "ServiceAccount", "PersistentVolumeClaim", "PodDisruptionBudget",
        "NetworkPolicy", "ServiceMonitor", "PrometheusRule", "ScaledObject", "CronJob", "Job",
        "ConfigMap", "Pod",
    }  # fmt: skip


def test_a_second_release_shares_no_name_with_the_first(full: list[ChartObject]) -> None:
    other = render(values("full"), name="second")
    assert not {one.name for one in full} & {one.name for one in other}


FAULTS = [
    # Schemas of Kubernetes
    ("deployment.yaml", "revisionHistoryLimit: 5", "revisionHistoryLimits: 5", "revisionHistoryLimits"),
    ("deployment.yaml", "periodSeconds: 10\n", "periodSeconds: often\n", "often"),
    ("deployment.yaml", "failureThreshold: 6", "failureTreshold: 6", "failureTreshold"),
    ("pdb.yaml", "policy/v1", "policy/v1beta9", "no schema is known for policy/v1beta9 PodDisruptionBudget"),
    ("service.yaml", "kind: Service\n", "kind: Servise\n", "no schema is known for v1 Servise"),
    ("service.yaml", "kind: Service\n", "", "has no kind"),
    ("pvc.yaml", "accessModes:", "accessMode:", "accessMode"),
    # Schemas of custom resources
    ("scaledobject.yaml", "    name: {{", "    nome: {{", "spec.scaleTargetRef.name: Field required"),
    ("scaledobject.yaml", "pollingInterval:", "pollInterval:", "spec.pollInterval: no such field"),
    ("scaledobject.yaml", "keda.sh/v1alpha1", "keda.sh/v2", "no schema is known for keda.sh/v2"),
    ("monitoring.yaml", "path: /metrics", "pfad: /metrics", "spec.endpoints.0.pfad: no such field"),
    ("../files/rules/engine.yml", "        expr: ", "        exprs: ", "expr: Field required"),
    # Rules across objects
    ("_helpers.tpl", "runAsNonRoot: true", "runAsNonRoot: false", "pod lacks runAsNonRoot"),
    ("_helpers.tpl", "enableServiceLinks: false", "enableServiceLinks: true", "lacks enableServiceLinks"),
    ("_helpers.tpl", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "readOnlyRootFile"),
    ("_helpers.tpl", "drop: [ALL]", "drop: []", "lacks capabilities drop ALL"),
    ("_helpers.tpl", "automountServiceAccountToken: false", "hostNetwork: true", "no host namespaces"),
    ("deployment.yaml", ".Values.drain.seconds 15 }}", "9 }}", "cuts streams; at least 85"),
    ("deployment.yaml", "path: /livez, port: http}\n            periodSeconds: 10",
     "path: /readyz, port: http}\n            periodSeconds: 10", "livenessProbe does not ask /livez"),
    ("deployment.yaml", "name: shm, mountPath", "name: shared, mountPath", "volume shared is not there"),
    ("deployment.yaml", "{name: http, containerPort", "{name: web, containerPort", "names the port http"),
    ("service.yaml", "    app.kubernetes.io/component: replica\n", "", "finds pods that serve nothing"),
    ("pdb.yaml", "component: replica", "component: server", "PodDisruptionBudget/wardrobe: its selector"),
    ("deployment.yaml", "{{- if not .Values.autoscaling.enabled }}", "{{- if true }}", "autoscaler also"),
    ("scaledobject.yaml", "Ref:\n    name: {{", "Ref:\n    name: x{{", "no Deployment/x"),
    ("monitoring.yaml", "- port: http", "- port: web", "finds no Service with that port"),
    ("training.yaml", "configMap: {name: {{ $name }}}", "configMap: {name: other}", "no ConfigMap/other"),
    # YAML and templates
    ("pdb.yaml", "kind: Pod", "kind: X\nkind: Pod", "key {'kind'} twice"),
    ("pdb.yaml", '{{- include "wardrobe.labels"', '{{- include "wardrobe.lables"', "wardrobe.lables"),
    ("gc.yaml", "restartPolicy: Never", "\trestartPolicy: Never", "YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "right", "wrong", "told"), FAULTS, ids=lambda text: text[:30])
def test_a_fault_in_the_chart_is_found(tmp_path: Path, file: str, right: str, wrong: str, told: str) -> None:
    chart = Path(shutil.copytree(CHART, tmp_path / "wardrobe"))
    path = chart / "templates" / file
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    try:
        found = findings(render(values("full"), chart=chart))
    except UsageError as error:
        found = [str(error)]
    assert any(told in one for one in found), found


BAD_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"replicas": 3}, "replicas"),
    ({"replicaCount": "three"}, "replicaCount"),
    ({"image": {"digest": "sha256:abc"}}, "digest"),
    ({"settings": {"engine": {"compile": "perhaps"}}}, "compile"),
    ({"settings": {"drain_seconds": 5}}, "drain_seconds"),
    ({"drain": {"preStopSeconds": 0}}, "preStopSeconds"),
    ({"model": {"path": "models/base"}}, "path"),
    ({"gc": {"schedule": "daily"}}, "schedule"),
]


@pytest.mark.parametrize(("given", "told"), BAD_VALUES, ids=lambda one: str(one)[:40])
def test_values_that_the_schema_does_not_know_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        render(given)


def test_the_schema_names_exactly_the_settings_that_the_server_has() -> None:
    path = schema_path()
    fresh = rendered(with_settings(json.loads(path.read_text())))
    assert path.read_text() == fresh, "run `python -m deploy.checks --write-schema`"
    assert ServeSettings.model_fields.keys() >= OWNED_BY_CHART


def test_the_server_reads_the_chart_s_variables_as_they_were_meant(
    full: list[ChartObject], monkeypatch: pytest.MonkeyPatch
) -> None:
    container = find(full, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    for name in [name for name in os.environ if name.startswith("WARDROBE_")]:
        monkeypatch.delenv(name)
    for one in mappings(container["env"]):
        monkeypatch.setenv(str(one["name"]), str(one.get("value", "wardrobe-7d9f-abcde")))
    settings = load_settings({})
    assert (str(settings.root), settings.host, settings.port) == ("/data", "0.0.0.0", 8000)
    assert settings.vllm == {
        "max_model_len": 131072,
        "enable_prefix_caching": True,
        "gpu_memory_utilization": 0.85,
    }
    assert isinstance(settings.vllm["max_model_len"], int)
    assert settings.limits.max_tokens == 4096
    assert settings.residency.load_timeout_seconds == 30
    assert settings.drain_seconds == 60
    assert settings.log_format == "json"
    assert not settings.insecure_no_auth


def test_a_service_link_of_kubernetes_would_be_refused_by_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WARDROBE_PORT", "tcp://10.0.0.1:80")
    with pytest.raises(UsageError, match="port"):
        load_settings({})


def test_the_rules_of_prometheus_are_the_ones_in_observability(full: list[ChartObject]) -> None:
    groups = [
        group for one in full if one.kind == "PrometheusRule" for group in mappings(one.at("spec", "groups"))
    ]
    files = sorted((OBSERVABILITY / "rules").glob("*.yml"))
    expected = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    assert len(files) > 3
    assert sorted(groups, key=lambda one: str(one["name"])) == sorted(expected, key=lambda one: one["name"])


def test_a_training_config_keeps_its_numbers_and_a_changed_one_is_another_job(
    full: list[ChartObject],
) -> None:
    config = next(one for one in full if one.kind == "ConfigMap" and "-train-" in one.name)
    assert json.loads(config.body["data"]["train.yaml"]) == values("full")["training"]["config"]  # type: ignore[index, call-overload, arg-type]
    for change in ({"training": {"config": {"seed": 1}}}, {"model": {"subPath": "other"}}):
        [(part, fields)] = change.items()
        changed = values("full")
        changed[part] |= fields
        assert find(render(changed), "Job")["metadata"]["name"] != find(full, "Job")["metadata"]["name"]
    assert find(render({**values("full"), "replicaCount": 9}), "Job") == find(full, "Job")


def test_the_autoscaler_asks_for_metrics_that_a_server_has_before_its_first_request(
    full: list[ChartObject], tmp_path: Path
) -> None:
    query = find(full, "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    assert query.startswith('sum(wardrobe_inference_inflight{namespace="llm",service="wardrobe"} or ')
    registry = make_root(tmp_path)
    with serve(registry, tmp_path) as server:
        families = {one.name: one for one in text_string_to_metric_families(server.exposition())}
    assert families["wardrobe_draining"].samples
    assert "wardrobe_inference_inflight" in families


def test_whatever_the_key_is_it_is_in_no_object(full: list[ChartObject]) -> None:
    assert not [one.name for one in full if one.kind == "Secret"]
    assert "wardrobe_" not in json.dumps(find(full, "Deployment"))  # no token of ours: wardrobe_<id>_<secret>


def test_the_check_s_command_says_what_it_found_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 0
    assert "0 findings" in capsys.readouterr().err
    given = tmp_path / "values.yaml"
    given.write_text("resources: {requests: {cpu: 1}}\nextraVolumes: [{name: unused, emptyDir: {}}]\n")
    assert main(["-f", str(given)]) == 1
    assert "volume unused is unused" in capsys.readouterr().out
    given.write_text("replicas: 3\n")
    assert main(["-f", str(given)]) == 2
    assert "replicas" in capsys.readouterr().err


def test_an_object_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="not an object"):
        list(parse("x.yaml", "- a\n"))


def test_the_dashboards_are_the_ones_in_observability(full: list[ChartObject]) -> None:
    files = {path.name: path.read_text() for path in sorted((OBSERVABILITY / "grafana").glob("*.json"))}
    given = [one.at("data") for one in full if "-dashboard-" in one.name]
    found = {name: text for data in given if isinstance(data, dict) for name, text in data.items()}
    assert len(files) >= 4
    assert found == files


def test_every_file_names_the_version_of_the_project() -> None:
    deploy = CHART.parent.parent
    version = tomllib.loads((deploy.parent / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    files = [path for path in tracked_files() if deploy in path.parents]
    tagged = [path for path in files if path.suffix in {".yaml", ".sh"} or path.name == "Dockerfile"]
    tags = {
        tag for path in tagged for tag in re.findall(r"(?:cpu|gpu|train)-(\d+\.\d+\.\d+)", path.read_text())
    }
    assert tags == {version}


def test_without_keys_the_services_own_names_are_known_unless_others_are_given() -> None:
    def hosts(given: dict[str, Any]) -> list[str]:
        container = find(render(given), "Deployment")["spec"]["template"]["spec"]["containers"][0]
        return [one["value"] for one in container["env"] if one["name"] == "WARDROBE_ALLOWED_HOSTS"]

    (named,) = hosts({"auth": {"insecureNoAuth": True}})
    name = find(render(NONE), "Service")["metadata"]["name"]
    assert name in json.loads(named)
    assert any(host.endswith(".svc.cluster.local") for host in json.loads(named))
    own = {"auth": {"insecureNoAuth": True}, "settings": {"allowed_hosts": ["models.example"]}}
    assert hosts(own) == ['["models.example"]']
    assert hosts(NONE) == []


def test_what_the_values_schema_refuses_is_told_in_one_line() -> None:
    with pytest.raises(UsageError) as caught:
        render({"foo": 1})
    assert str(caught.value) == (
        "chart wardrobe: values: additional properties 'foo' not allowed; see values.yaml"
    )
