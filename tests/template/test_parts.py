"""The lists of the parts fit the project as it is: what they name is there."""

import pytest

from scripts.template.parts import Part, load_parts
from scripts.template.pieces import without_piece
from scripts.template.rename import RECORD
from tests.docs.pages import table_rows
from tests.template.copies import ROOT

PARTS = load_parts()

pytestmark = [
    pytest.mark.skipif((ROOT / RECORD).exists(), reason="this project has been renamed"),
    pytest.mark.skipif(
        any(part.is_gone(ROOT) for part in PARTS.values()), reason="a part has been removed"
    ),
]


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_what_goes_with_a_part_is_there(part: Part) -> None:
    """Files, folders, sections and definitions, each under the name that the list has."""
    missing = [path for path in part.delete if not (ROOT / path).exists()]
    for name, piece in part.pieces:
        text = (ROOT / name).read_text("utf-8")
        missing += [f"{name}{piece}"] if without_piece(piece, text) == text else []

    assert missing == []


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_changes_of_other_files_fit(part: Part) -> None:
    """The lines of each change are in its file, and once, so that it is clear what changes."""
    texts = {edit.file: (ROOT / edit.file).read_text("utf-8") for edit in part.edits}
    unfit = [str(edit) for edit in part.edits if texts[edit.file].count(edit.before()) != 1]

    assert unfit == [], f"correct scripts/template/parts/{part.name}.toml"


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_parts_that_go_first_are_parts(part: Part) -> None:
    """A part may need others to be gone, and those need none in turn."""
    assert all(PARTS[first].first == () for first in part.first)


def test_the_page_shows_what_each_part_costs() -> None:
    """In lines of code, of tests and of anything else, within a quarter and fifty lines."""
    rows = {name: cells for name, *cells in table_rows(ROOT / "docs" / "clone.md", "parts")}

    assert list(rows) == list(PARTS)
    for name, part in PARTS.items():
        *figures, what = rows[name]
        assert what == part.what
        for shown, lines in zip(figures, part.cost(ROOT), strict=True):
            assert abs(int(shown.replace(",", "")) - lines) <= 50 + lines / 4, (name, lines)
