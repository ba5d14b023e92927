"""Each cell of `docs/comparison.md` shows what a library really does."""

import inspect
from importlib.metadata import version

import pytest

from tests.docs.breaker_features import ROWS
from tests.docs.breakers_compared import LIBRARIES
from tests.docs.pages import ROOT, plain, table_rows

PAGE = ROOT / "docs" / "comparison.md"
RIVALS = LIBRARIES[1:]


def test_every_row_of_the_table_has_a_test() -> None:
    """Every column has one as well."""
    assert [row[0] for row in table_rows(PAGE, "behaviour")] == list(ROWS)


@pytest.mark.parametrize("row", ROWS)
async def test_libraries_do_what_the_row_says(row: str) -> None:
    """Each cell is the outcome of using the feature."""
    [documented] = [cells[1:] for cells in table_rows(PAGE, "behaviour") if cells[0] == row]

    assert documented == [plain(await ROWS[row](library)) for library in LIBRARIES]


def test_all_parameters_of_a_library_are_listed() -> None:
    """Anything that is not in the list cannot be configured."""
    expected = [
        [
            library.name,
            ", ".join(f"`{name}`" for name in inspect.signature(library.parameters).parameters),
        ]
        for library in RIVALS
    ]

    assert table_rows(PAGE, "parameters compared") == expected


def test_versions_are_the_installed_ones() -> None:
    """The page names the release that was tested."""
    text = " ".join(PAGE.read_text(encoding="utf-8").split())

    for library in RIVALS:
        assert f"{library.name} {version(library.name)}" in text
