"""What people are told of Watchtower's names is what the code does with them."""

import re
from pathlib import Path

import pytest

from sidecar.core.watchtower_names import ENVIRONMENT, LABELS, Known
from sidecar.settings_model import Settings

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "migrate-from-watchtower.md"
_ROW = re.compile(r"^\| `([^`]+)` \| (\w+) \| (.+) \|$", re.MULTILINE)


def _rows(heading: str) -> dict[str, tuple[str, str]]:
    section = GUIDE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return {name: (fate, words) for name, fate, words in _ROW.findall(section)}


@pytest.mark.parametrize("heading, table", [("Labels", LABELS), ("Variables", ENVIRONMENT)])
def test_the_guide_knows_every_name(heading: str, table: dict[str, Known]) -> None:
    """Each label and each variable, once, with what becomes of it; and none besides."""
    assert {name: fate for name, (fate, _) in _rows(heading).items()} == {
        name: str(known.fate) for name, known in table.items()
    }


def test_the_guide_names_settings_that_there_are() -> None:
    """Whatever it says takes the place of a name is one of ours."""
    named = set(re.findall(r"SIDECAR_([A-Z_]+[A-Z])", GUIDE.read_text()))
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_the_guide_says_what_holds_a_container() -> None:
    """As the reason does that its owner reads in the log."""
    held = {name for name, (_, words) in _rows("Labels").items() if "**held**" in words}
    said = {name for name, known in LABELS.items() if "held" in known.words}
    assert said <= held


def test_the_readme_leads_to_the_guide() -> None:
    """Whoever comes from Watchtower finds it."""
    assert f"({GUIDE.relative_to(ROOT)})" in (ROOT / "README.md").read_text()
