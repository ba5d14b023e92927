"""The outcome of a replay as a picture. Needs matplotlib, which the extra `replay` brings.

Above are the recorded calls and failures by time, below the states of the circuit of each set.
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

# As `Timeline.bands` numbers the states. They differ in brightness, too, not in colour alone.
_STATES: Final = (("closed", "#d5ead8"), ("half-open", "#f2b134"), ("open", "#a8201a"))
_CALLS, _FAILURES = "#8d99ae", "#a8201a"
LONGEST_NAME: Final = 30
_SECONDS_PER_DAY: Final = 86_400.0
# Text stays text, also where it has dollar signs, and equal replays give equal files.
_STYLE: Final[Any] = {
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "replay",
    "text.parse_math": False,
}


def svg(report: Report) -> bytes:
    """Draw a replay as one SVG file that needs no other."""
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
        below.set_yticks(range(len(outcomes)), [_short(one.parameters.name) for one in outcomes])
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
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _edges(timeline: Timeline, *, has_dates: bool) -> list[float]:
    """Where the spans begin and end on the axis: dates as matplotlib counts them, or seconds."""
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
    # Above the axes it hides no call.
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)
    axes.margins(x=0)


def _periods(band: Sequence[int], edges: Sequence[float]) -> Iterator[tuple[int, float, float]]:
    """Each state with where it begins on the axis and how long it lasts."""
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
