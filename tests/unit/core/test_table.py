"""Plain text tables."""

from example_service.core.table import aligned


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """The cells of a column are aligned, and no line ends with spaces."""
    assert aligned([("a", "bcd", "e"), ("long", "", ""), ("", "f", "gh")]) == (
        "  a     bcd  e\n  long\n        f    gh"
    )
