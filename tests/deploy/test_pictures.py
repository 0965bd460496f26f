"""The pictures of the documentation are what their generator draws now, small, and used."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from deploy.pictures import FOLDER, PICTURES, RUN, write_pictures
from serve.rollout.decision.states import EventType, RolloutState

DOCS = FOLDER.parent


# Drawn by the scenarios' drill from its own run.
DRILLED = "load-test.svg"
BY_HAND = {"version.svg", "states.svg"}
SHOWN = sorted({*PICTURES, *BY_HAND})


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_is_what_the_generator_draws(name: str) -> None:
    assert (FOLDER / name).read_text() == PICTURES[name](), "run make reference"


@pytest.mark.parametrize("name", SHOWN)
def test_a_picture_is_whole_and_small(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert ET.fromstring(text).tag.endswith("svg")
    assert len(text) < 200_000


def test_the_folder_holds_the_pictures_and_their_source_and_nothing_else() -> None:
    assert {path.name for path in FOLDER.iterdir()} - {RUN.name, DRILLED} == set(SHOWN)


def test_every_state_of_a_rollout_has_its_place_and_every_arrow_is_an_event() -> None:
    drawn = {text.text for text in ET.parse(FOLDER / "states.svg").iter() if text.tag.endswith("text")}
    assert {state.value for state in RolloutState} <= drawn
    one = {event.value for event in (EventType.LOADED, EventType.SHADOWED, EventType.PROMOTE)}
    assert {*one, EventType.COOLED.value, EventType.ADVANCE.value} <= drawn
    pairs = {f"{EventType.PAUSE.value} / {EventType.RESUME.value}"}
    assert {*pairs, f"{EventType.HOLD.value}, {EventType.SUSPECT.value} / clear"} <= drawn


@pytest.mark.parametrize("name", SHOWN)
def test_a_picture_is_shown_by_a_page(name: str) -> None:
    shown = [page for page in DOCS.rglob("*.md") if f"pictures/{name})" in page.read_text()]
    assert shown, f"{name} is shown nowhere"


def test_a_second_writing_changes_nothing(tmp_path: Path) -> None:
    assert write_pictures(tmp_path) == list(PICTURES)
    assert write_pictures(tmp_path) == []
