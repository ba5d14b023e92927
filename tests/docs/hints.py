"""How to correct the docs, for tests that compare them with the code."""

from collections import Counter
from collections.abc import Sequence

Row = Sequence[str]


def corrections(expected: Sequence[Row], documented: Sequence[Row], table: str) -> list[str]:
    """The rows to add to and to remove from a table; none if it is correct.

    Args:
        expected: The first cells of each row, according to the code.
        documented: The first cells of each row in the docs.
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
