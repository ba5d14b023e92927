"""The lists of removable parts match the project: what they name exists."""

import pytest

from scripts.template.parts import Part, load_parts
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
def test_list_of_a_part_fits_the_project(part: Part) -> None:
    """What it deletes exists, and the lines of each change occur exactly once."""
    assert part.misfits(ROOT, [PARTS[name] for name in part.first]) == [], f"correct {part.file}"


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_parts_that_must_go_first_need_no_others(part: Part) -> None:
    """A part may require that others are removed first, but those must require none."""
    assert all(PARTS[first].first == () for first in part.first)


def test_the_page_shows_what_each_part_costs() -> None:
    """It shows lines of code, tests and other files, accurate to a quarter plus fifty lines."""
    rows = {name: cells for name, *cells in table_rows(ROOT / "docs" / "clone.md", "parts")}

    assert list(rows) == list(PARTS)
    for name, part in PARTS.items():
        *figures, what = rows[name]
        assert what == part.what
        for shown, lines in zip(figures, part.cost(ROOT), strict=True):
            assert abs(int(shown.replace(",", "")) - lines) <= 50 + lines / 4, (name, lines)
