"""Plain text tables for a terminal."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out as columns, each as wide as its widest cell, indented by two spaces.

    Args:
        rows: At least one row; all of them have the same number of cells.

    Returns:
        One line a row, without spaces at the ends and without a last line break.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(f"  {line}".rstrip() for line in lines)
