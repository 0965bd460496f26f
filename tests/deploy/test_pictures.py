"""The pictures of the documentation are what their generator draws now, small, and used."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from deploy.pictures.files import FOLDER, PICTURES, RUN, write_pictures
from deploy.pictures.lives import PLACES
from serve.rollout.decision.states import RolloutState

DOCS = FOLDER.parent


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_is_what_the_generator_draws(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert text == PICTURES[name](), "run make reference"
    assert ET.fromstring(text).tag.endswith("svg")
    assert len(text) < 200_000


# Drawn by the scenarios' drill from its own run.
DRILLED = "load-test.svg"


def test_the_folder_holds_the_pictures_and_their_source_and_nothing_else() -> None:
    assert {path.name for path in FOLDER.iterdir()} - {RUN.name, DRILLED} == set(PICTURES)


def test_every_state_of_a_rollout_has_its_place() -> None:
    assert set(PLACES) == set(RolloutState)


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_is_shown_by_a_page(name: str) -> None:
    shown = [page for page in DOCS.rglob("*.md") if f"pictures/{name})" in page.read_text()]
    assert shown, f"{name} is shown nowhere"


def test_a_second_writing_changes_nothing(tmp_path: Path) -> None:
    assert write_pictures(tmp_path) == list(PICTURES)
    assert write_pictures(tmp_path) == []
