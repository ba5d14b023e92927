"""What a breaker remembers about an outage: names, times and counts, but no exceptions."""

import math
import sys
import time

from example_service.infra.resilience.events import CallFailed, Event, StateChanged
from example_service.infra.resilience.rules.records import ManualMode, Overdue, Transition
from example_service.infra.resilience.rules.states import CircuitState, Mode

KINDS_REMEMBERED = 5
KIND_LENGTH = 80
SECONDS_BETWEEN_SUMMARIES = 1.0


class Outage:
    """The last failures of a breaker, what opened its circuit, and what it has refused since.

    Attributes:
        failed_at: Wall time of the last failure, in seconds since the epoch; None for none.
        last_kind: Type name of the last failure's exception, or a short text for another failure.
        failing_type: The type of the last failure's exception, if all exceptions of that type count
            as failures; else None.
        reason: What opened the circuit; None while it is closed.
        summary_due: When the next log line about refused calls may be written, in seconds on the
            breaker's clock. There is at most one a second.
        silent_until: Until when refusals are only counted, without log line or listener.
    """

    __slots__ = (
        "_logged",
        "_older_kinds",
        "failed_at",
        "failing_type",
        "last_kind",
        "reason",
        "silent_until",
        "summary_due",
    )

    def __init__(self) -> None:
        self.forget()
        self.summary_due = self.silent_until = -math.inf
        self._logged = 0

    def forget(self) -> None:
        """Forget every failure."""
        self.failed_at: float | None = None
        self.forget_kinds()

    def forget_kinds(self) -> None:
        """Forget the kinds of failures, and what opened the circuit."""
        self.last_kind: str | None = None
        self.failing_type: type[BaseException] | None = None
        self.reason: str | None = None
        self._older_kinds: tuple[str, ...] = ()

    def remember(self, kind: str, failed_at: float) -> None:
        """Add a failure, and keep the kinds of those before it; the oldest is dropped."""
        self.failed_at = max(failed_at, self.failed_at or failed_at)
        kind = sys.intern(kind)  # Every breaker of a process remembers the same few names.
        if self.last_kind is not None:
            kinds = [older for older in (self.last_kind, *self._older_kinds) if older != kind]
            self._older_kinds = tuple(kinds[: KINDS_REMEMBERED - 1])
        self.last_kind = kind
        self.failing_type = None

    def event(
        self,
        breaker_name: str,
        report: Transition | Overdue,
        mode: ManualMode | None,
        now: float,
    ) -> Event:
        """Turn a report of the rules into an event, and remember the failure or reason in it."""
        if isinstance(report, Overdue):
            self.remember("overdue call", time.time() - (now - report.deadline))
            return CallFailed(breaker_name, None, report.seconds)
        wait = report.wait_seconds
        return StateChanged(
            breaker_name=breaker_name,
            from_state=report.from_state,
            to_state=report.to_state,
            wait_seconds=None if wait == math.inf else wait,
            failure_count=report.failure_count,
            rejections=report.rejections,
            reason=self._reason(report, mode),
            caused_by=report.caused_by,
        )

    def _reason(self, transition: Transition, mode: ManualMode | None) -> str:
        reason = transition.cause
        if transition.to_state is CircuitState.OPEN:
            if mode is None or mode.mode is not Mode.FORCED_OPEN:
                reason += self._last_failures()
            self.reason = reason
        elif transition.to_state is CircuitState.CLOSED:
            # The next outage has another reason.
            self.forget_kinds()
        return reason

    def _last_failures(self) -> str:
        if self.last_kind is None:
            return ""
        kinds = (self.last_kind, *self._older_kinds)
        return "; last failures: " + ", ".join(_printable(kind[:KIND_LENGTH]) for kind in kinds)

    def begin_summary(self, rejections: int, now: float, *, silent: bool) -> None:
        """Start counting refused calls for the next log line.

        Args:
            rejections: The breaker's lifetime count.
            now: Seconds on the breaker's clock.
            silent: Whether refusals are only counted until then, without notifying listeners.
        """
        self._logged = rejections
        self.summary_due = now + SECONDS_BETWEEN_SUMMARIES
        self.silent_until = self.summary_due if silent else -math.inf

    def rejections_to_log(self, rejections: int, now: float) -> int:
        """The number of refused calls for a log line now; 0 if no line is due."""
        return 0 if now < self.summary_due else rejections - self._logged


def _printable(kind: str) -> str:
    """Replace what is not printable: the name of a type must not start another log line."""
    return "".join(character if character.isprintable() else "?" for character in kind)
