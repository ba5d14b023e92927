"""Results as Markdown tables and as JSON, and verdicts on their targets."""

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.rounds import Quartiles


@dataclass(frozen=True, slots=True)
class Target:
    """The upper bound of a figure or, with ``at_least``, its lower bound.

    Attributes:
        limit: The bound in the unit of the figure; reaching it counts as met.
        stretch: A harder bound that would be welcome, or None.
        at_least: True if larger is better.
        strictly: True if reaching the bound does not count as met.
    """

    limit: float
    stretch: float | None = None
    at_least: bool = False
    strictly: bool = False

    def is_met(self, figure: float) -> bool:
        """Whether a figure meets the target."""
        return self._keeps(figure, self.limit)

    def __str__(self) -> str:
        """The bound for a table."""
        sign = "≥" if self.at_least else "<" if self.strictly else "≤"
        stretch = "" if self.stretch is None else f" (stretch {self.stretch:g})"
        return f"{sign} {self.limit:g}{stretch}"

    def judge(self, figure: float) -> str:
        """How a figure compares with the bound, in a word or two."""
        if not self.is_met(figure):
            return "NOT MET"
        return "met, stretch too" if self._is_stretched(figure) else "met"

    def _is_stretched(self, figure: float) -> bool:
        return self.stretch is not None and self._keeps(figure, self.stretch)

    def _keeps(self, figure: float, limit: float) -> bool:
        if self.at_least:
            return figure >= limit
        return figure < limit if self.strictly else figure <= limit


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target for one figure of ours.

    Attributes:
        what: The figure in words, including its unit.
        reached: The figure; if it was counted and not timed, all quartiles are equal.
        target: The target of the figure.
    """

    what: str
    reached: Quartiles
    target: Target

    @property
    def is_met(self) -> bool:
        """Whether the median meets the target."""
        return self.target.is_met(self.reached.median)


@dataclass(slots=True)
class Table:
    """One group of results.

    Attributes:
        title: What was measured.
        header: The names of the columns; the first column has the entrants.
        rows: The cells as they are printed.
        verdicts: The verdicts on the targets of the group.
        figures: The data of the cells for the JSON file.
        note: A sentence below the table; may be empty.
    """

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    figures: dict[str, dict[str, Quartiles]] = field(default_factory=dict)
    note: str = ""

    def markdown(self) -> str:
        """The results below their title, and the verdicts."""
        parts = [f"### {self.title}", _aligned(self.header, self.rows)]
        if self.note:
            parts.append(self.note)
        if self.verdicts:
            judged = [
                [
                    verdict.what,
                    str(verdict.target),
                    f"{verdict.reached.median:,.3g}",
                    verdict.target.judge(verdict.reached.median),
                ]
                for verdict in self.verdicts
            ]
            parts.append(_aligned(["target", "wanted", "reached", ""], judged))
        return "\n\n".join(parts) + "\n"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    # Names are left-aligned, figures right-aligned.
    rule = ["-" * widths[0], *[f"{'-' * (width - 1)}:" for width in widths[1:]]]
    return "\n".join(_line(row, widths) for row in [header, rule, *rows])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = row
    padded = [first.ljust(widths[0])]
    padded += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
    return f"| {' | '.join(padded)} |"


def with_quartiles(figure: Quartiles, decimals: int) -> str:
    """A median with the other quartiles in brackets."""
    lower, median, upper = (
        f"{value:,.{decimals}f}" for value in (figure.lower, figure.median, figure.upper)
    )
    return f"{median} ({lower} to {upper})"


def exactly(figure: float) -> Quartiles:
    """A figure that was counted and not timed."""
    return Quartiles(figure, figure, figure)


def summary(tables: Sequence[Table]) -> str:
    """The number of targets that are met, and a list of those that are not."""
    verdicts = [(table.title, verdict) for table in tables for verdict in table.verdicts]
    missed = [f"{title}: {verdict.what}" for title, verdict in verdicts if not verdict.is_met]
    met = f"{len(verdicts) - len(missed)} of {len(verdicts)} targets met"
    return "\n".join(
        [f"{met}; not met:", "", *[f"- {what}" for what in missed]] if missed else [f"{met}."]
    )


def interpreter() -> str:
    """The interpreter that ran the benchmark, without its path."""
    implementation = platform.python_implementation()
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"{implementation} {platform.python_version()}{'' if locked else ' without GIL'}"


def write_json(path: Path, groups: Mapping[str, Sequence[Table]]) -> None:
    """Write every figure and verdict to a file."""
    document = {
        "interpreter": interpreter(),
        "groups": {
            group: [_as_json(table) for table in tables] for group, tables in groups.items()
        },
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _as_json(table: Table) -> dict[str, object]:
    return {
        "title": table.title,
        "figures": {
            name: {unit: asdict(figure) for unit, figure in figures.items()}
            for name, figures in table.figures.items()
        },
        "targets": [{**asdict(verdict), "met": verdict.is_met} for verdict in table.verdicts],
    }


def write_page(path: Path, groups: Mapping[str, Sequence[Table]]) -> None:
    """Replace the tables of each group on a page, between their marking comments.

    Raises:
        ValueError: If a group has no place on the page.
    """
    page = path.read_text(encoding="utf-8")
    for group, tables in groups.items():
        begin, end = f"<!-- {group}: begin -->\n", f"<!-- {group}: end -->\n"
        before, after = page.index(begin) + len(begin), page.index(end)
        measured = f"Measured on {interpreter()}."
        shown = "\n".join([measured, "", *[table.markdown() for table in tables]])
        page = f"{page[:before]}\n{shown}\n{page[after:]}" if tables else page
    path.write_text(page, encoding="utf-8")
