"""Plain text tables for a terminal."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a table with aligned columns, indented by two spaces.

    Args:
        rows: The rows, at least one. All must have the same number of cells.

    Returns:
        One line for each row, without trailing spaces and without a trailing newline.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(f"  {line}".rstrip() for line in lines)
