"""What to write into the docs, for the failure of a test that compares them with the code."""

from collections import Counter
from collections.abc import Sequence

Row = Sequence[str]


def corrections(expected: Sequence[Row], documented: Sequence[Row], table: str) -> list[str]:
    """The rows to add to a table and to take out of it; none where it is right.

    Args:
        expected: The first cells of each row, as the code has them.
        documented: The same, as the docs have them.
        table: The marker of the table.
    """
    code, docs = Counter(map(tuple, expected)), Counter(map(tuple, documented))
    where = f"below <!-- {table} --> in docs/service.md, or in the page of the domain"
    added = [f"add {where}: {_line(row)}" for row in sorted((code - docs).elements())]
    deleted = [f"delete {where}: {_line(row)}" for row in sorted((docs - code).elements())]
    return added + deleted


def _line(row: Row) -> str:
    cells = [f"`{cell}`" if cell and not cell.isdigit() else cell for cell in row]
    return f"| {' | '.join([*cells, 'what it means'])} |"
