"""Plain text tables."""

from example_service.core.table import aligned


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """Cells of one column begin below each other, and no line ends in spaces."""
    assert aligned([("a", "bcd", "e"), ("long", "", ""), ("", "f", "gh")]) == (
        "  a     bcd  e\n  long\n        f    gh"
    )
