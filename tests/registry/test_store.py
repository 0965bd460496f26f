from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from registry.changes.publish import inspect
from registry.errors import Conflict, InvalidAdapter, InvalidName, NotFound, Quarantined, UsageError
from registry.names import parse_model
from registry.records import BaseModelInfo, Limits
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.store import leftovers, publish, put


def test_the_first_version_becomes_stable_and_later_ones_do_not(registry: Registry) -> None:
    first = publish(registry, seed=1)
    second = publish(registry, seed=2)
    assert [(move.alias, move.version) for move in first.alias_moves] == [("stable", 1)]
    assert second.alias_moves == ()
    assert registry.aliases("support") == {"stable": 1}


def test_no_stable_leaves_an_adapter_without_stable(registry: Registry) -> None:
    put(registry, no_stable=True)
    with pytest.raises(NotFound, match="has no stable version; promote one"):
        registry.resolve(parse_model("support"))
    assert registry.resolve(parse_model("support@1")).number == 1


def test_an_alias_given_at_registration_is_set(registry: Registry) -> None:
    put(registry, seed=1)
    published = publish(registry, seed=2, alias="beta")
    assert [(move.alias, move.version, move.why) for move in published.alias_moves] == [
        ("beta", 2, "register")
    ]


def test_the_same_content_gets_the_number_that_it_has(registry: Registry) -> None:
    first = publish(registry, seed=1, note="first")
    again = publish(registry, seed=1, note="again")
    assert again.version == first.version
    assert (first.created, again.created) == (True, False)
    assert list(leftovers(registry.root)) == []


def test_a_duplicate_that_is_wanted_gets_a_number_of_its_own(registry: Registry) -> None:
    first = put(registry, seed=1)
    second = put(registry, seed=1, allow_duplicate=True)
    assert (second.number, second.digest) == (2, first.digest)


def test_a_deleted_number_is_never_used_again(registry: Registry) -> None:
    for seed in (1, 2):
        put(registry, seed=seed)
    registry.delete("support", 2, who="tester")
    registry.gc(apply=True)
    assert not (registry.root / "adapters/support/versions/2").exists()
    assert put(registry, seed=2).number == 3


def test_an_adapter_may_not_be_called_like_the_base_in_any_case(tmp_path: Path) -> None:
    for number, name in enumerate(("llama", "LLaMa")):
        registry = Registry.init(tmp_path / str(number), make_base(tmp_path / "base"), name=name)
        for taken in ("llama", "base"):
            with pytest.raises(Conflict, match=rf"names the base model \({name}\), which alone would answer"):
                put(registry, taken)
        assert registry.adapters() == []
        assert not (registry.root / "adapters" / "llama").exists()
        assert put(registry, "llama-2").number == 1


def test_an_older_adapter_that_answers_by_its_name_goes_on(registry: Registry) -> None:
    put(registry, seed=1)
    named = registry.catalogue.root
    renamed = Registry(replace(named, base=replace(named.base, name="Support")))
    assert put(renamed, seed=2).number == 2
    shadowed = Registry(replace(named, base=replace(named.base, name="support")))
    with pytest.raises(Conflict, match="names the base model"):
        put(shadowed, seed=3)


def test_a_refused_adapter_leaves_nothing_behind(registry: Registry, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "nan", poison=float("nan"))
    with pytest.raises(InvalidAdapter):
        registry.publish("support", folder, who="tester")
    assert list(leftovers(registry.root)) == []
    assert registry.adapters() == []
    assert not (registry.root / "adapters/support").exists()


def test_weights_that_change_while_they_are_registered_are_refused(
    registry: Registry, tmp_path: Path
) -> None:
    folder = make_adapter(tmp_path / "moving", seed=1)

    def slow_inspect(folder: Path, *, base: BaseModelInfo, limits: Limits, name: str) -> object:
        found = inspect(folder, base=base, limits=limits, name=name)
        weights = folder / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
        return found

    watching = Registry(registry.catalogue.root, inspector=slow_inspect)  # type: ignore[arg-type]
    with pytest.raises(InvalidAdapter, match="changed while it was registered") as caught:
        watching.publish("support", folder, who="tester")
    assert caught.value.reason == "digest"
    assert list(leftovers(registry.root)) == []
    assert registry.adapters() == []


def test_the_files_of_a_version_are_read_only(registry: Registry) -> None:
    version = put(registry)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (version.path, *version.path.iterdir())}
    assert modes.pop("1") == 0o555
    assert set(modes) == {"manifest.json", *(file.path for file in version.files)}
    assert set(modes.values()) == {0o444}


@pytest.mark.parametrize("name", ["", "Support", "../up", "a/b", ".hidden", "a" * 64])
def test_a_name_that_could_leave_the_root_is_refused(name: str, registry: Registry) -> None:
    with pytest.raises(InvalidName):
        put(registry, name)
    with pytest.raises(InvalidName):
        registry.versions(name)
    assert list((registry.root / "adapters").iterdir()) == []


@pytest.mark.parametrize("alias", ["canary", "3", "Up", "../x"])
def test_an_alias_that_nobody_may_set_is_refused_before_anything_is_written(
    alias: str, registry: Registry
) -> None:
    with pytest.raises(InvalidName):
        put(registry, alias=alias)
    assert registry.adapters() == []
    put(registry)
    with pytest.raises(InvalidName):
        registry.set_alias("support", alias, 1, who="tester")


def test_rolling_back_twice_goes_two_back_and_a_third_time_is_refused(registry: Registry) -> None:
    for seed in (1, 2, 3):
        put(registry, seed=seed, alias="stable")
    assert [registry.rollback("support", who="tester").version for _ in range(2)] == [2, 1]
    with pytest.raises(Conflict, match="no earlier version"):
        registry.rollback("support", who="tester")
    assert registry.aliases("support") == {"stable": 1}


def test_a_rollback_skips_deleted_and_quarantined_versions(registry: Registry) -> None:
    for seed in (1, 2, 3, 4):
        put(registry, seed=seed, alias="stable")
    registry.delete("support", 3, who="tester")
    registry.quarantine("support", 2, "it harms", who="tester")
    assert registry.rollback("support", who="tester").version == 1


def test_a_rollback_leaves_a_stable_that_is_quarantined(registry: Registry) -> None:
    for seed in (1, 2):
        put(registry, seed=seed, alias="stable")
    registry.quarantine("support", 2, "it harms", who="tester")
    with pytest.raises(Quarantined, match="it harms"):
        registry.resolve(parse_model("support"))
    assert registry.rollback("support", who="tester").version == 1
    assert registry.resolve(parse_model("support")).number == 1


def test_setting_an_alias_to_where_it_points_writes_no_entry(registry: Registry) -> None:
    put(registry)
    move = registry.promote("support", 1, who="tester")
    assert (move.seq, move.why) == (1, "register")
    assert len(registry.history("support")) == 1


def test_an_alias_can_be_removed_and_its_history_stays(registry: Registry) -> None:
    put(registry, alias="beta")
    registry.remove_alias("support", "beta", who="tester")
    assert registry.aliases("support") == {"stable": 1}
    assert [move.version for move in registry.history("support") if move.alias == "beta"] == [1, None]
    with pytest.raises(NotFound):
        registry.remove_alias("support", "beta", who="tester")
    assert registry.set_alias("support", "beta", 1, who="tester").seq == 3


def test_an_alias_is_not_set_to_a_version_that_may_not_be_served(registry: Registry) -> None:
    for seed in (1, 2, 3):
        put(registry, seed=seed)
    registry.quarantine("support", 2, "it harms", who="tester")
    registry.delete("support", 3, who="tester")
    with pytest.raises(Quarantined, match="it harms"):
        registry.promote("support", 2, who="tester")
    for missing in (3, 9):
        with pytest.raises(NotFound, match="versions: 1, 2"):
            registry.promote("support", missing, who="tester")


def test_a_version_that_an_alias_uses_cannot_be_deleted(registry: Registry) -> None:
    put(registry, alias="beta")
    with pytest.raises(Conflict, match="alias beta, stable points to it"):
        registry.delete("support", 1, who="tester")
    assert [version.number for version in registry.versions("support")] == [1]


def test_a_deleted_version_is_gone_for_every_question(registry: Registry) -> None:
    for seed in (1, 2):
        put(registry, seed=seed)
    registry.delete("support", 2, who="tester")
    for ask in (
        lambda: registry.version("support", 2),
        lambda: registry.resolve(parse_model("support@2")),
        lambda: registry.delete("support", 2, who="tester"),
        lambda: registry.attest("support", 2, "proof", {}, who="tester"),
        lambda: registry.quarantine("support", 2, "late", who="tester"),
        lambda: registry.verify("support", 2),
        lambda: registry.export("support", 2, registry.root.parent / "out"),
    ):
        with pytest.raises(NotFound, match="versions: 1"):
            ask()


def test_a_tombstone_is_void_while_an_alias_points_to_the_version(registry: Registry) -> None:
    """What a delete leaves that was killed before it saw the alias."""
    version = put(registry)
    registry.catalogue.tombstones.put("support", 1, version, "killed")
    assert registry.resolve(parse_model("support")) == version
    assert registry.gc(apply=True).trashed == ()
    with pytest.raises(Conflict, match="is being deleted"):
        registry.set_alias("support", "beta", 1, who="tester")
    later = registry.catalogue.clock() + 3601
    assert registry.gc(apply=True, now=later).kept_because == {"support@1": "alias stable points to it"}
    assert registry.set_alias("support", "beta", 1, who="tester").version == 1


@pytest.mark.parametrize("model", ["nope", "nope@1", "nope@stable"])
def test_an_unknown_adapter_is_answered_with_those_that_exist(model: str, registry: Registry) -> None:
    put(registry, "alpha")
    put(registry, "beta")
    with pytest.raises(NotFound, match="adapters: alpha, beta"):
        registry.resolve(parse_model(model))


def test_asking_for_canary_without_a_rollout_says_so(registry: Registry) -> None:
    put(registry)
    with pytest.raises(NotFound, match="no rollout is open"):
        registry.resolve(parse_model("support@canary"))


def _damage(path: Path, how: str) -> None:
    path.chmod(0o755)
    weights = path / "adapter_model.safetensors"
    if how == "changed":
        weights.chmod(0o644)
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    elif how == "truncated":
        weights.chmod(0o644)
        os.truncate(weights, 10)
    elif how == "missing":
        weights.unlink()
    elif how == "extra":
        (path / "tokenizer.py").write_text("import os")
    elif how == "symlink":
        shutil.copy(weights, path.parent / "elsewhere")
        weights.unlink()
        weights.symlink_to(path.parent / "elsewhere")
    elif how == "manifest":
        manifest = path / "manifest.json"
        fields = json.loads(manifest.read_text())
        fields["files"][-1]["sha256"] = "0" * 64
        manifest.chmod(0o644)
        manifest.write_text(json.dumps(fields))
    else:
        (path / "manifest.json").unlink()


DAMAGES = ["changed", "truncated", "missing", "extra", "symlink", "manifest", "no-manifest"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_version_that_is_not_as_published_is_quarantined_by_verify(how: str, registry: Registry) -> None:
    version = put(registry, seed=1)
    put(registry, seed=2)
    _damage(version.path, how)
    results = {result.name: result for result in registry.verify()}
    assert (results["support@1"].ok, results["support@2"].ok) == (False, True)
    assert results["support@1"].problem == registry.quarantined("support", 1)
    assert registry.quarantined("support", 2) is None
    with pytest.raises(Quarantined):
        registry.resolve(parse_model("support"))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_version_that_is_not_as_published_is_refused_before_it_is_loaded(
    how: str, registry: Registry
) -> None:
    version = put(registry, seed=1)
    registry.verify_version(version)
    _damage(version.path, how)
    with pytest.raises(InvalidAdapter) as caught:
        registry.verify_version(version)
    assert caught.value.reason == "digest"
    with pytest.raises(Quarantined):
        registry.verify_version(version)


def test_a_manifest_that_was_replaced_by_another_versions_is_noticed(registry: Registry) -> None:
    first, second = put(registry, seed=1), put(registry, seed=2)
    first.path.chmod(0o755)
    for file in second.path.iterdir():
        (first.path / file.name).unlink()
        shutil.copy(file, first.path / file.name)
    with pytest.raises(InvalidAdapter, match="no longer describes"):
        registry.verify_version(first)
    assert registry.verify("support", 1)[0].problem is not None


def test_damaged_content_can_be_registered_again_and_gets_a_new_number(registry: Registry) -> None:
    version = put(registry, seed=1)
    _damage(version.path, "changed")
    registry.verify()
    assert put(registry, seed=1).number == 2


def test_content_in_quarantine_for_what_it_does_is_refused(registry: Registry) -> None:
    put(registry, seed=1)
    registry.quarantine("support", 1, "it harms", who="tester")
    registry.quarantine("support", 1, "another reason", who="tester")
    with pytest.raises(Quarantined, match=r"support@1, which is quarantined \(it harms\)"):
        put(registry, seed=1)
    assert put(registry, seed=1, allow_duplicate=True).number == 2


def test_a_broken_manifest_spoils_no_other_version(registry: Registry) -> None:
    version = put(registry, seed=1)
    put(registry, seed=2, alias="stable")
    _damage(version.path, "no-manifest")
    assert [found.number for found in registry.versions("support")] == [2]
    assert registry.resolve(parse_model("support")).number == 2
    with pytest.raises(Quarantined, match=r"manifest\.json"):
        registry.resolve(parse_model("support@1"))
    registry.delete("support", 1, who="tester")
    assert registry.gc(apply=True).trashed == ("support@1",)


def test_attestations_of_a_kind_are_kept_in_order(registry: Registry) -> None:
    put(registry, lineage={"seed": 1})
    for score in (1, 2):
        registry.attest("support", 1, "evaluation", {"score": score}, who="tester")
    found = registry.attestations("support", 1)
    assert [(entry.kind, entry.seq) for entry in found] == [
        ("lineage", 1),
        ("evaluation", 1),
        ("evaluation", 2),
    ]
    assert [dict(entry.body) for entry in registry.attestations("support", 1, "evaluation")] == [
        {"score": 1},
        {"score": 2},
    ]
    with pytest.raises(InvalidName):
        registry.attest("support", 1, "../proof", {}, who="tester")


def test_the_same_lineage_is_not_attested_twice(registry: Registry) -> None:
    put(registry, lineage={"seed": 1})
    put(registry, lineage={"seed": 1})
    put(registry, lineage={"seed": 2})
    assert len(registry.attestations("support", 1, "lineage")) == 2


def test_an_export_is_a_folder_that_registers_as_the_same_content(registry: Registry, tmp_path: Path) -> None:
    version = put(registry)
    registry.export("support", 1, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {file.path for file in version.files}
    assert registry.publish("other", tmp_path / "out", who="tester").version.digest == version.digest
    with pytest.raises(Conflict, match="exists already"):
        registry.export("support", 1, tmp_path / "out")


def exported_base(registry: Registry, number: int, target: Path, **options: str) -> str:
    told = registry.export("support", number, target, **options)
    config = json.loads((target / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == told
    return told


def test_an_export_names_the_base_in_the_adapters_own_words(registry: Registry, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", config={"base_model_name_or_path": "Acme/Tiny-v1"})
    version = registry.publish("support", folder, who="tester").version
    assert version.base_named == registry.version("support", 1).base_named == "Acme/Tiny-v1"
    assert exported_base(registry, 1, tmp_path / "out") == "Acme/Tiny-v1"
    stored = json.loads((version.path / "adapter_config.json").read_text())
    assert stored["base_model_name_or_path"] == registry.base.fingerprint
    assert exported_base(registry, 1, tmp_path / "other", base="my/own") == "my/own"
    assert registry.publish("again", tmp_path / "other", who="tester").version.digest == version.digest


@pytest.mark.parametrize("named", [None, ..., "", "/nowhere/tiny", "sha256"])
def test_an_export_of_an_adapter_without_such_words_names_the_bases_folder(
    registry: Registry, tmp_path: Path, named: object
) -> None:
    words = registry.base.fingerprint if named == "sha256" else named
    folder = make_adapter(tmp_path / "a", config={"base_model_name_or_path": words})
    registry.publish("support", folder, who="tester")
    assert exported_base(registry, 1, tmp_path / "out") == str(registry.base.path)


def test_a_manifest_from_before_the_words_were_kept_is_valid_and_exported(
    registry: Registry, tmp_path: Path
) -> None:
    version = put(registry)
    manifest = version.path / "manifest.json"
    fields = json.loads(manifest.read_text())
    del fields["base_named"]
    manifest.chmod(0o644)
    manifest.write_text(json.dumps(fields))
    assert all(result.ok for result in registry.verify())
    assert registry.version("support", 1).base_named is None
    assert exported_base(registry, 1, tmp_path / "out") == str(registry.base.path)


def test_golden_prompts_are_kept_and_must_be_json_lines(registry: Registry, tmp_path: Path) -> None:
    assert registry.golden("support") is None
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"prompt": "a"}\n\n{"prompt": "b"}\n')
    put(registry, golden=golden)
    assert registry.golden("support") == golden.read_bytes()
    golden.write_text('{"prompt": "a"}\nnot json\n')
    with pytest.raises(UsageError, match=r"golden\.jsonl:2"):
        put(registry, "other", golden=golden)
    with pytest.raises(UsageError, match="cannot be read"):
        put(registry, "other", golden=tmp_path / "absent")
    assert registry.adapters() == ["support"]


def test_a_secret_is_made_once_and_only_its_owner_reads_it(registry: Registry) -> None:
    secret = registry.secret("mac")
    assert len(secret) == 32
    assert Registry.open(registry.root).secret("mac") == secret != registry.secret("other")
    assert stat.S_IMODE((registry.root / "keys/mac").stat().st_mode) == 0o600
    assert stat.S_IMODE((registry.root / "keys").stat().st_mode) == 0o700
    with pytest.raises(InvalidName):
        registry.secret("../mac")


def test_a_summary_tells_what_the_manifests_would(registry: Registry) -> None:
    for seed in (1, 2, 3):
        put(registry, seed=seed, alias="beta")
    registry.delete("support", 2, who="tester")
    put(registry, "alone", no_stable=True)
    (alone, support) = registry.summaries()
    assert (alone.adapter, alone.stable, alone.latest, alone.versions) == ("alone", None, 1, 1)
    assert (support.stable, support.latest, support.versions) == (1, 3, 2)
    assert support.aliases == {"beta": 3, "stable": 1}


def test_an_adapter_whose_versions_are_all_deleted_still_has_its_history(registry: Registry) -> None:
    put(registry, no_stable=True)
    registry.delete("support", 1, who="tester")
    registry.gc(apply=True)
    assert registry.adapters() == []
    assert registry.versions("support") == []
    assert [entry.action for entry in registry.audit()] == ["publish", "delete"]
    with pytest.raises(NotFound):
        registry.versions("never")
