"""The result of a replay as text and as JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from example_service.core.table import aligned
from example_service.replay.simulation import Opening, Outcome, Replay
from example_service.replay.suggestion import Suggestion, of

OPENINGS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Report:
    """The report on one replay.

    Attributes:
        file: The name of the recording.
        kind: The format of the recording.
        has_dates: Whether its times are dates; otherwise they are seconds.
        replayed: The result of the replay.
        suggestion: The suggested parameters; None if none were requested.
    """

    file: str
    kind: str
    has_dates: bool
    replayed: Replay
    suggestion: Suggestion | None = None

    def text(self) -> str:
        """Format the report for a terminal: a summary, a row for each set, and its openings."""
        replayed = self.replayed
        seconds = replayed.last - replayed.first
        neutral = replayed.calls - replayed.failed - replayed.succeeded
        recorded = (
            f"{self.file}, {self.kind}: {_calls(replayed.calls)} in {_duration(seconds)}, of which "
            f"{replayed.succeeded:,} succeeded, {replayed.failed:,} failed "
            f"and {neutral:,} were neutral."
        )
        rows = [("set", "opened", "failing calls spared", "healthy calls refused", "recovered in")]
        rows += [self._row(outcome) for outcome in replayed.outcomes]
        parts = [recorded, aligned(rows)]
        parts += [self._openings(outcome) for outcome in replayed.outcomes if outcome.openings]
        if self.suggestion is not None:
            parts.append("\n".join(["Suggestion:", *self.suggestion.why]))
        return "\n\n".join(parts) + "\n"

    def document(self) -> dict[str, Any]:
        """Return the report for JSON, with the parameters of each set."""
        replayed = self.replayed
        suggestion = self.suggestion
        return {
            "recording": {
                "file": self.file,
                "kind": self.kind,
                "calls": replayed.calls,
                "succeeded": replayed.succeeded,
                "failed": replayed.failed,
                "first": self._time(replayed.first),
                "last": self._time(replayed.last),
            },
            "sets": [self._as_json(outcome) for outcome in replayed.outcomes],
            "suggestion": None
            if suggestion is None
            else {
                "parameters": dict(suggestion.parameters.values) if suggestion.parameters else None,
                "why": list(suggestion.why),
            },
        }

    def _row(self, outcome: Outcome) -> tuple[str, str, str, str, str]:
        recoveries = [
            opening.recovery_seconds
            for opening in outcome.openings
            if opening.recovery_seconds is not None
        ]
        return (
            outcome.parameters.name,
            "never" if not outcome.opened else _times(outcome.opened),
            of(outcome.spared, outcome.failing),
            of(outcome.healthy_refused, outcome.healthy),
            f"{max(recoveries):.1f} s" if recoveries else "-",
        )

    def _openings(self, outcome: Outcome) -> str:
        shown = outcome.openings[:OPENINGS_SHOWN]
        rows = [("opened at", "why", "closed after", "spared", "healthy refused")]
        rows += [
            (
                str(self._time(opening.opened_at)),
                opening.why,
                _closed_after(opening),
                f"{opening.spared:,}",
                f"{opening.healthy_refused:,}",
            )
            for opening in shown
        ]
        more = outcome.opened - len(shown)
        ending = f"\n  and {_times(more)} more" if more else ""
        return f"{outcome.parameters.name}:\n{aligned(rows)}{ending}"

    def _as_json(self, outcome: Outcome) -> dict[str, Any]:
        return {
            "name": outcome.parameters.name,
            "parameters": dict(outcome.parameters.values),
            "failing": outcome.failing,
            "healthy": outcome.healthy,
            "opened": outcome.opened,
            "refused": outcome.refused,
            "spared": outcome.spared,
            "healthy_refused": outcome.healthy_refused,
            "seconds_spared": round(outcome.seconds_spared, 3),
            "openings": [
                {
                    "opened_at": self._time(opening.opened_at),
                    "why": opening.why,
                    "closed_at": _maybe(self._time, opening.closed_at),
                    "spared": opening.spared,
                    "healthy_refused": opening.healthy_refused,
                    "recovery_seconds": _maybe(_rounded, opening.recovery_seconds),
                }
                for opening in outcome.openings
            ],
        }

    def _time(self, seconds: float) -> str | float:
        """Format a time like those of the file. Dates are converted to UTC."""
        if not self.has_dates:
            return _rounded(seconds)
        moment = datetime.fromtimestamp(seconds, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _maybe(show: Callable[[float], Any], seconds: float | None) -> Any:
    return None if seconds is None else show(seconds)


def _rounded(seconds: float) -> float:
    return round(seconds, 3)


def _closed_after(opening: Opening) -> str:
    if opening.closed_at is None:
        return "not in the recording"
    return _duration(opening.closed_at - opening.opened_at)


def _duration(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _calls(number: int) -> str:
    return f"{number:,} call{'' if number == 1 else 's'}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")
