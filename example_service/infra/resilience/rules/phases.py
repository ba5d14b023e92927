"""One period in a state: which calls it lets run, and which outcomes end it.

    Closed      every call runs       failures in a row, or a share of failures, open it
    Open        no call runs          until its wait is over
    HalfOpen    a few run at once     enough successes close it, one failure opens it

A period never changes the state itself. When an outcome ends it, it returns the cause, a text, and
`CircuitStateMachine` starts the next period.
"""

from collections.abc import Callable
from itertools import repeat
from math import inf
from operator import length_hint
from typing import ClassVar, NamedTuple, TypeAlias

from example_service.infra.resilience.rules.failure_rate import RateWindow
from example_service.infra.resilience.rules.lockfree import EMPTY
from example_service.infra.resilience.rules.states import CircuitState


class ShortCuts(NamedTuple):
    """Which steps of a closed circuit need no lock, because they change nothing but a count.

    Attributes:
        admissions: Admissions. Where calls are timed they also take a `TimedCall`.
        successes: Successes that end no row of failures, once the result has been judged.
        uncounted: Whether such a success needs no further look at the result, clock or listeners.
        failures: Failures that do not open the circuit.
        timed: Whether each call gets a permit of its own, which knows when it started.
    """

    admissions: bool
    successes: bool
    uncounted: bool
    failures: bool
    timed: bool = False


ALL_SHORT_CUTS = ShortCuts(admissions=True, successes=True, uncounted=True, failures=True)
NO_SHORT_CUTS = ShortCuts(admissions=False, successes=False, uncounted=False, failures=False)


class Closed:
    """Every call runs. It is also the permit of every call that it admits without timing it.

    Three attributes spare callers the lock:

    - `steady`: a success changes nothing but its count.
    - `quiet`: it is steady, and the caller of the rules need not look at the success either.
    - `allowance`: a failure for which `next(allowance, None)` yields something is counted by that,
      and does not open the circuit. The caller then clears `quiet` and `steady`, because the next
      success ends the row of failures.

    Args:
        threshold: Failures in a row that open it.
        window: The recent results, if a share of failures opens it, too.
        short_cuts: Which steps need no lock.
    """

    __slots__ = (
        "_counted",
        "_row_began",
        "_short_cuts",
        "_threshold",
        "_window",
        "allowance",
        "quiet",
        "steady",
    )
    state: ClassVar = CircuitState.CLOSED
    reopenings: ClassVar = 0

    def __init__(self, threshold: int, window: RateWindow | None, short_cuts: ShortCuts) -> None:
        self._threshold = threshold
        self._window = window
        self._short_cuts = short_cuts
        # Failures of this period, with those that `allowance` still allows.
        self._counted = self._row_began = 0
        self.steady = short_cuts.successes and (window is None or window.quiet_until > -inf)
        self.quiet = self.steady and short_cuts.uncounted
        self.allowance: repeat[bool] | repeat[None] = EMPTY

    @property
    def failures(self) -> int:
        """All failures of this period."""
        return self._counted - length_hint(self.allowance)

    @property
    def failures_in_a_row(self) -> int:
        """Failures since the last success."""
        return self.failures - self._row_began

    @property
    def steady_until(self) -> float:
        """When time makes it unsteady, in seconds on the clock; infinite for never."""
        return self._window.quiet_until if self._window is not None and self.steady else inf

    def window_counts(self, now: float) -> tuple[int, int] | None:
        """Failures and calls in the window; None without one."""
        if self._window is None:
            return None
        self._window.catch_up()
        return self._window.counts(now)

    def has_room(self) -> bool:
        """Whether one more call may run."""
        return True

    def unsteady(self) -> None:
        """Have the next success take the lock; time may have changed what it does."""
        self.quiet = self.steady = False
        if self._window is not None:
            self._window.catch_up()

    def succeed(self, now: float) -> str | None:
        """Act on a success, already counted. Returns the cause if it opens the circuit."""
        window, cause = self._window, None
        if window is not None:
            window.skip_success()
            window.catch_up()
            cause = window.add(now, failed=False)
        # Steady before the row ends: a failure that another thread counts meanwhile undoes it.
        self.steady = self._short_cuts.successes and (window is None or window.quiet_until > now)
        self.quiet = self.steady and self._short_cuts.uncounted
        self._row_began = self.end()
        self._allow(self._threshold - 1)
        return cause

    def fail(self, now: float) -> str | None:
        """Count a failure. Returns the cause if it opens the circuit."""
        self.unsteady()
        self._counted = self.end() + 1
        row = self._counted - self._row_began
        if row >= self._threshold:
            return f"{row} {'failure' if row == 1 else 'failures'} in a row"
        self._allow(self._threshold - row - 1)
        return None if self._window is None else self._window.add(now, failed=True)

    def ignore_success(self) -> None:
        """Keep a success of an earlier period, already counted, out of the window."""
        if self._window is not None:
            self._window.skip_success()

    def end(self) -> int:
        """Have every failure take the lock from now on. Returns all failures of this period."""
        before, self.allowance = self.allowance, EMPTY
        self._counted -= length_hint(before)
        return self._counted

    def _allow(self, failures: int) -> None:
        """Let this many failures pass without the lock."""
        if failures and self._short_cuts.failures:
            self._counted += failures
            self.allowance = repeat(True, failures)


class Open:
    """No call runs until `until`.

    Args:
        since: When it began, in seconds on the clock.
        wait_seconds: How long it lasts; infinite means until a reset.
        failures_in_a_row: Failures that led to it.
        reopenings: Failed recoveries since the circuit was last closed.

    Attributes:
        rejections_before: Calls refused before the circuit was last closed.
    """

    __slots__ = ("failures_in_a_row", "rejections_before", "reopenings", "until", "wait_seconds")
    state: ClassVar = CircuitState.OPEN
    steady_until: ClassVar = inf

    def __init__(
        self, since: float, wait_seconds: float, failures_in_a_row: int, reopenings: int
    ) -> None:
        self.reopenings = reopenings
        self.rejections_before = 0
        self.wait_seconds = wait_seconds
        self.until = since + wait_seconds
        self.failures_in_a_row = failures_in_a_row


class HalfOpen:
    """At most `max_calls` run at once. Enough successes close it, one failure opens it.

    Args:
        max_calls: Probes that may run at once.
        success_threshold: Successes that close it.
        failures_in_a_row: Failures since the last success, in earlier periods.
        reopenings: Failed recoveries since the circuit was last closed.

    Attributes:
        rejections_before: Calls refused before the circuit was last closed.
        probes: The probes that are running, and the calls inside them, oldest first.
        successes: Probes that have succeeded.
    """

    __slots__ = (
        "_max_calls",
        "_success_threshold",
        "failures_in_a_row",
        "probes",
        "rejections_before",
        "reopenings",
        "successes",
    )
    state: ClassVar = CircuitState.HALF_OPEN
    steady: ClassVar = False
    steady_until: ClassVar = inf

    def __init__(
        self, max_calls: int, success_threshold: int, failures_in_a_row: int, reopenings: int
    ) -> None:
        self.reopenings = reopenings
        self.rejections_before = 0
        self._max_calls = max_calls
        self._success_threshold = success_threshold
        self.failures_in_a_row = failures_in_a_row
        self.probes: list[TimedCall] = []
        self.successes = 0

    def has_room(self) -> bool:
        """Whether one more call may run."""
        return sum(map(_takes_place, self.probes)) < self._max_calls

    def oldest_probe(self) -> "TimedCall | None":
        """The probe that started first, which may be a call that has outlived its probe."""
        return next(filter(_takes_place, self.probes), None)

    def succeed(self) -> str | None:
        """Count the success of a probe. Returns the cause if it closes the circuit."""
        self.successes += 1
        self.failures_in_a_row = 0
        if self.successes < self._success_threshold:
            return None
        return f"{self.successes} probes succeeded"


class TimedCall:
    """The permit of a call whose running time matters: a probe, or any call where calls are timed.

    Attributes:
        phase: The period that admitted it; `STALE` if shadow mode ran it against the rules, and
            once it has ended; `COUNTED` once it has been counted while it was still running.
        started: When, in seconds on the clock.
        is_lost: Says whether the end of the call can no longer be seen. Set only for some calls.
    """

    # Without `__init__`, which would double the time that it takes to make one.
    __slots__ = ("is_lost", "phase", "started")
    quiet: ClassVar = False
    steady: ClassVar = False
    allowance: ClassVar = EMPTY

    phase: "Closed | HalfOpen"
    started: float
    is_lost: Callable[[], bool]


class NestedCall(TimedCall):
    """The permit of a call inside another one of the same circuit and period.

    Attributes:
        outer: The call around it.
    """

    __slots__ = ("outer",)

    outer: TimedCall


def timed_call(
    phase: "Closed | HalfOpen", started: float, outer: TimedCall | None = None
) -> TimedCall:
    """Make the permit of a call that started at `started`, perhaps inside another one."""
    if outer is None:
        call = TimedCall()
    else:
        call = NestedCall()
        call.outer = outer
    call.phase = phase
    call.started = started
    return call


def is_part(call: TimedCall) -> bool:
    """Whether a call is a part of another one, and therefore not counted itself.

    That is the case inside a probe and inside a call that was counted while it runs. Once the outer
    call has ended, what goes on, perhaps in a task that it has started, is a call of its own.
    """
    while isinstance(call, NestedCall):
        call = call.outer
        if call.phase is COUNTED or isinstance(call.phase, HalfOpen):
            return True
    return False


def is_uncounted(permit: "Permit") -> bool:
    """Whether the outcome of a call is not counted: it was already, or that of an outer call is."""
    return isinstance(permit, TimedCall) and (permit.phase is COUNTED or is_part(permit))


def _takes_place(call: TimedCall) -> bool:
    """Whether a running call is one of those that half-open state limits."""
    return not is_part(call) and not (hasattr(call, "is_lost") and call.is_lost())


Permit: TypeAlias = Closed | TimedCall
Phase: TypeAlias = Closed | Open | HalfOpen

STALE = Closed(1, None, NO_SHORT_CUTS)
"""A period that is over: an outcome under it is counted, and changes nothing else."""

COUNTED = Closed(1, None, NO_SHORT_CUTS)
"""In place of the period of a call whose outcome is counted already."""
