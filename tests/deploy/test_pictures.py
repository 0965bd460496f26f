"""The pictures of the documentation are small, shown, and name the rollout's states as the code does."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from serve.rollout.decision.states import RolloutState
from tests.checkout import REPOSITORY

DOCS = REPOSITORY / "docs"
PICTURES = sorted((DOCS / "pictures").iterdir())


@pytest.mark.parametrize("name", [path.name for path in PICTURES])
def test_a_picture_is_an_svg_that_a_page_shows(name: str) -> None:
    text = (DOCS / "pictures" / name).read_text()
    assert ET.fromstring(text).tag.endswith("svg")
    assert len(text) < 200_000
    shown = [page for page in DOCS.rglob("*.md") if f"pictures/{name})" in page.read_text()]
    assert shown, f"{name} is shown nowhere"


def test_every_state_of_a_rollout_has_its_place() -> None:
    words = set(ET.parse(DOCS / "pictures" / "states.svg").getroot().itertext())
    assert {state.value for state in RolloutState} <= words
