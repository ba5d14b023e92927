"""Draw the result of a replay. This needs matplotlib, which the extra `replay` installs.

The upper chart shows the recorded calls and failures over time, the lower one the state of the
circuit of each set.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from itertools import groupby
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from example_service.replay.report import Report
from example_service.replay.timeline import Timeline

# In the order of the numbers in `Timeline.bands`. The colors also differ in brightness.
_STATES: Final = (("closed", "#d5ead8"), ("half-open", "#f2b134"), ("open", "#a8201a"))
_CALLS, _FAILURES = "#8d99ae", "#a8201a"
MAX_NAME_LENGTH: Final = 30
_SECONDS_PER_DAY: Final = 86_400.0
# Draw text as text and without TeX markup, and make the files reproducible.
_STYLE: Final[Any] = {
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "replay",
    "text.parse_math": False,
}


def svg(report: Report) -> bytes:
    """Draw a replay as a self-contained SVG file."""
    timeline, outcomes = report.replayed.timeline, report.replayed.outcomes
    edges = _edges(timeline, has_dates=report.has_dates)
    with rc_context(_STYLE):
        figure = Figure(figsize=(11, 3.2 + 0.4 * len(outcomes)), layout="constrained")
        above, below = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 0.3 + 0.5 * len(outcomes))}
        )
        _draw_calls(above, timeline, edges)
        above.set_title(f"{report.file}: {report.replayed.calls:,} calls", loc="left")
        for row, band in enumerate(timeline.bands):
            for state, begin, length in _periods(band, edges):
                below.broken_barh([(begin, length)], (row - 0.4, 0.8), color=_STATES[state][1])
        below.set_yticks(
            range(len(outcomes)), [_short(outcome.parameters.name) for outcome in outcomes]
        )
        below.set_ylim(len(outcomes) - 0.5, -0.5)
        below.margins(x=0)
        figure.legend(
            handles=[Patch(color=color, label=name) for name, color in _STATES],
            loc="outside lower center",
            ncols=len(_STATES),
        )
        _label_time(below, has_dates=report.has_dates)
        drawn = BytesIO()
        about = {"Title": f"Replay of {report.file}", "Date": None, "Creator": None}
        figure.savefig(drawn, format="svg", metadata=about)
    return drawn.getvalue()


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…"


def _edges(timeline: Timeline, *, has_dates: bool) -> list[float]:
    """The edges of the spans on the time axis: matplotlib dates, or seconds."""
    start = timeline.start or 0.0
    zero = 0.0
    if has_dates:
        zero = date2num(datetime.fromtimestamp(start, UTC))  # type: ignore[no-untyped-call]
    unit = _SECONDS_PER_DAY if has_dates else 1.0
    return [
        zero + number * timeline.span_seconds / unit for number in range(len(timeline.calls) + 1)
    ]


def _draw_calls(axes: Axes, timeline: Timeline, edges: Sequence[float]) -> None:
    for counts, color, label in (
        (timeline.calls, _CALLS, "calls"),
        (timeline.failures, _FAILURES, "failures"),
    ):
        rates = [count / timeline.span_seconds for count in counts]
        axes.stairs(rates, edges, fill=True, color=color, label=label)
    axes.set_ylabel("per second")
    # Placed above the axes, where it does not cover the bars.
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)
    axes.margins(x=0)


def _periods(band: Sequence[int], edges: Sequence[float]) -> Iterator[tuple[int, float, float]]:
    """The state, start and length of each period, in units of the time axis."""
    for state, spans in groupby(range(len(band)), key=band.__getitem__):
        numbers = list(spans)
        begin = edges[numbers[0]]
        yield state, begin, edges[numbers[-1] + 1] - begin


def _label_time(axes: Axes, *, has_dates: bool) -> None:
    if has_dates:
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(
            ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
        )
        axes.set_xlabel("time (UTC)")
    else:
        axes.set_xlabel("seconds since the first call")
