"""`wardrobe register` of many folders, beside the files and over a real server."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from registry.api import batch
from registry.api.operation import LocalClient
from registry.changes.publish import PublishRequest
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.store import leftovers
from tests.fakes.terminal import Terminal


@pytest.fixture
def above(tmp_path: Path) -> Path:
    """Three adapters, a hidden folder and a file."""
    folder = tmp_path / "above"
    for seed, name in enumerate(("billing", "legal", "support"), 1):
        make_adapter(folder / name, seed=seed)
    (folder / ".cache").mkdir()
    (folder / "notes.txt").write_text("ours")
    return folder


def test_all_registers_every_sub_folder_by_its_name(wardrobe: Terminal, above: Path) -> None:
    done = wardrobe.ok("register", "--all", above, "--note", "in bulk")
    rows = [line.split()[1:] for line in done.out.splitlines()[1:-1]]
    assert rows == [["billing@1", "new"], ["legal@1", "new"], ["support@1", "new"]]
    assert done.out.splitlines()[-1] == "3 new"
    listed = wardrobe.ok("--json", "list").json
    assert {one["adapter"]: one["stable"] for one in listed} == {"billing": 1, "legal": 1, "support": 1}


def test_a_second_run_finds_what_is_there(wardrobe: Terminal, above: Path) -> None:
    wardrobe.ok("register", "--all", above)
    make_adapter(above / "fourth", seed=4)
    done = wardrobe.ok("register", "--all", above)
    assert done.out.count("exists already") == 3
    assert done.out.splitlines()[-1] == "1 new, 3 there already"
    assert [line.split()[-1] for line in done.out.splitlines() if "fourth" in line] == ["new"]
    assert {one["versions"] for one in wardrobe.ok("--json", "list").json} == {1}


def test_pairs_name_their_adapters_and_those_of_one_are_numbered_in_order(
    wardrobe: Terminal, above: Path
) -> None:
    pairs = [f"one={above / name}" for name in ("support", "legal", "billing")]
    found = wardrobe.ok("--json", "register", *pairs, f"two={above / 'legal'}").json
    assert [(one["adapter"], one["published"]["version"]) for one in found] == [
        ("one", 1),
        ("one", 2),
        ("one", 3),
        ("two", 1),
    ]
    assert [Path(one["folder"]).name for one in found] == ["support", "legal", "billing", "legal"]


def test_a_bad_folder_stops_no_other_and_the_exit_code_and_the_table_tell(
    wardrobe: Terminal, above: Path
) -> None:
    (above / "empty").mkdir()
    make_adapter(above / "large", rank=64)
    make_adapter(above / "no name", seed=5)
    done = wardrobe("register", "--all", above)
    assert done.code == 1
    refused = {line.split("  ")[0].rpartition("/")[2] for line in done.out.splitlines() if "REFUSED" in line}
    assert refused == {"empty", "large", "no name"}
    assert "max_lora_rank" in done.out
    assert "3 of 6 folders were not registered" in done.err
    assert done.out.splitlines()[-1] == "3 new, 3 refused"
    assert {one["adapter"] for one in wardrobe.ok("--json", "list").json} == {"billing", "legal", "support"}
    as_json = wardrobe("--json", "register", "--all", above).json
    assert {one["adapter"]: (one["error"] or {}).get("code") for one in as_json}["large"] is not None
    assert {one["published"]["created"] for one in as_json if one["published"]} == {False}


def test_the_reason_of_a_refusal_repeats_neither_the_name_nor_the_folder_of_its_row(
    wardrobe: Terminal, tmp_path: Path
) -> None:
    above = tmp_path / "above"
    (above / "empty").mkdir(parents=True)
    make_adapter(above / "large", rank=64)
    (make_adapter(above / "broken") / "adapter_config.json").write_text("{")
    make_adapter(above / "bad name")
    rows = {
        line.split("  ")[0].rpartition("/")[2]: line.partition("REFUSED")[2].strip()
        for line in wardrobe("register", "--all", above).out.splitlines()[1:-1]
    }
    assert {name: why.split()[:2] for name, why in rows.items()} == {
        "empty": ["holds", "no"],
        "large": ["rank", "64"],
        "broken": ["adapter_config.json", "is"],
        "bad name": ["is", "not"],
    }


def test_the_last_error_is_of_the_type_of_the_refusals_and_counts_in_plain_words(
    wardrobe: Terminal, above: Path
) -> None:
    (above / "empty").mkdir()
    alone = wardrobe("--json", "register", f"u={above / 'empty'}")
    assert alone.err.startswith("error: u: was not registered; ")
    found, last = alone.json, json.loads(alone.err.splitlines()[-1])["error"]
    assert (last["type"], last["code"]) == (found[0]["error"]["type"], found[0]["error"]["code"])
    assert last["type"] == "invalid_request_error"
    two = wardrobe("register", f"u={above / 'empty'}", f"t={above / 'legal'}")
    assert two.err.startswith("error: u: 1 of 2 folders was not registered; ")


def test_a_folder_may_have_an_equals_sign_in_its_path(root: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "lr=1e-4")
    done = Terminal(("--root", str(root))).ok("register", "support", folder)
    assert done.out.startswith("support@1")


def test_a_warning_that_many_share_is_printed_once(wardrobe: Terminal, tmp_path: Path) -> None:
    for seed in range(5):
        path = make_adapter(tmp_path / "above" / f"adapter-{seed}", seed=seed)
        (path / "training_args.bin").write_bytes(b"pickle")
    done = wardrobe.ok("register", "--all", tmp_path / "above")
    told = [line for line in done.err.splitlines() if "left out" in line]
    assert len(told) == 1
    assert "adapter-0@1, adapter-1@1, adapter-2@1 and 2 more" in told[0]


def test_known_content_is_not_printed_as_if_it_were_new(wardrobe: Terminal, above: Path) -> None:
    first = wardrobe.ok("register", "support", above / "support")
    again = wardrobe.ok("register", "support", above / "support")
    assert again.out.split() == [*first.out.split(), "exists", "already"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "NAME DIR"),
        (("support",), "names no folder"),
        (("a={}/legal", "support"), "mixes NAME DIR with NAME=DIR: support has no ="),
        (("s", "s1", "t=s2"), "mixes NAME DIR with NAME=DIR: s has no ="),
        (("s", "t=s2"), "mixes NAME DIR with NAME=DIR: s has no ="),
        (("a", "b", "c"), "is neither NAME DIR nor NAME=DIR"),
        (("s=",), "'s=': names no folder"),
        (("a={}/legal", "s="), "'s=': names no folder"),
        (("s", ""), "'s': names no folder"),
        (("={}/legal",), "names no adapter"),
        (("", "{}/legal"), "'': names no adapter"),
        (("--all", "{}/missing"), "cannot be listed"),
        (("--all", ""), "it is empty, as an unset variable is"),
        (("--all", "{}/legal"), "is an adapter itself"),
        (("--all", "{}/.cache"), "no sub-folders"),
        (("--all", "{}", "a={}/legal"), "takes no other folders"),
        (("--all", "{}", "--golden", "x"), "belongs to one adapter"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(
    arguments: tuple[str, ...], words: str, root: Path, above: Path
) -> None:
    done = Terminal(("--root", str(root)))("register", *(one.format(above) for one in arguments))
    assert done.code == 2
    assert words in done.err
    assert Registry.open(root).adapters() == []


def test_a_link_that_leads_nowhere_is_told_and_not_passed_over(wardrobe: Terminal, above: Path) -> None:
    (above / "unmounted").symlink_to(above / "away")
    (above / "linked").symlink_to(above / "legal")
    done = wardrobe("register", "--all", above)
    assert done.code == 1
    [line] = [line for line in done.out.splitlines() if "REFUSED" in line]
    assert "is a link to" in line
    assert done.out.splitlines()[-1] == "4 new, 1 refused"


def test_the_last_error_names_a_few_of_many(wardrobe: Terminal, tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / "above" / f"a{number}").mkdir(parents=True)
    done = wardrobe("register", "--all", tmp_path / "above")
    assert done.err.startswith("error: a0, a1, a2 and 6 more (--json lists them): 9 of 9 folders were not")


def test_an_interrupted_run_leaves_whole_versions_only_and_begins_no_further_one(
    root: Path, above: Path
) -> None:
    for seed in range(10, 40):
        make_adapter(above / f"adapter-{seed}", seed=seed)
    registry = Registry.open(root)
    requests = [PublishRequest(one.name, one) for one in sorted(above.iterdir()) if one.is_dir()]
    first = threading.Event()

    def interrupt(_: batch.Registered) -> None:
        if not first.is_set():
            first.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch.register_all(LocalClient(registry, "tester"), requests, interrupt)
    there = registry.adapters()
    assert 0 < len(there) < len(requests)
    assert all(result.ok for result in registry.verify())
    assert list(leftovers(root)) == []
