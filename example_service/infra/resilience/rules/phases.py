"""One period in a state: which calls it lets run, and which outcomes end it.

    Closed      every call runs       failures in a row, or a share of failures, open it
    Open        no call runs          until its wait is over
    HalfOpen    a few probes run      enough successes close it, one failure opens it

A period never changes the state itself. When an outcome ends the period, the method returns the
cause as text, and `CircuitStateMachine` starts the next period.
"""

from collections.abc import Callable
from itertools import repeat
from math import inf
from operator import length_hint
from typing import ClassVar, NamedTuple, TypeAlias

from example_service.infra.resilience.rules.failure_rate import RateWindow
from example_service.infra.resilience.rules.lockfree import EMPTY
from example_service.infra.resilience.rules.states import CircuitState


class LockFreeSteps(NamedTuple):
    """Which steps of a closed circuit need no lock, because they change nothing but a count.

    Attributes:
        admissions: Whether calls are admitted without the lock.
        successes: Whether successes are counted without the lock, except after a failure.
        counts_only: Whether such a success is only counted, with no check of the result or the
            clock, and no listener to notify.
        failures: Whether failures are counted without the lock, except one that opens the circuit.
        timed: Whether each call gets its own permit, which records when it started.
    """

    admissions: bool
    successes: bool
    counts_only: bool
    failures: bool
    timed: bool = False


ALL_LOCK_FREE_STEPS = LockFreeSteps(
    admissions=True, successes=True, counts_only=True, failures=True
)
NO_LOCK_FREE_STEPS = LockFreeSteps(
    admissions=False, successes=False, counts_only=False, failures=False
)


class Closed:
    """Every call runs. Calls that are not timed share this object as their permit.

    Three attributes say what the guard may do without the lock:

    - `lock_free`: a success changes nothing but its count, so the guard may count it itself.
    - `counts_only`: in addition, the guard need not check the result, the clock or the listeners.
    - `lock_free_failures`: a counter of failures that do not open the circuit. If
      `next(lock_free_failures, None)` yields something, the failure is counted. The guard then
      clears `counts_only` and `lock_free`, because the next success resets the failures in a row.

    Args:
        threshold: Failures in a row that open it.
        window: The recent results, if a share of failures opens it, too.
        lock_free_steps: Which steps need no lock.
    """

    __slots__ = (
        "_counted",
        "_failures_at_last_success",
        "_lock_free_steps",
        "_threshold",
        "_window",
        "counts_only",
        "lock_free",
        "lock_free_failures",
    )
    state: ClassVar = CircuitState.CLOSED
    reopenings: ClassVar = 0

    def __init__(
        self, threshold: int, window: RateWindow | None, lock_free_steps: LockFreeSteps
    ) -> None:
        self._threshold = threshold
        self._window = window
        self._lock_free_steps = lock_free_steps
        # Failures of this period, plus those that `lock_free_failures` has left.
        self._counted = self._failures_at_last_success = 0
        # The first success of a window takes the lock, and then decides for the next ones.
        self.lock_free = lock_free_steps.successes and window is None
        self.counts_only = self.lock_free and lock_free_steps.counts_only
        self.lock_free_failures: repeat[bool] | repeat[None] = EMPTY

    @property
    def failures(self) -> int:
        """All failures of this period."""
        return self._counted - length_hint(self.lock_free_failures)

    @property
    def failures_in_a_row(self) -> int:
        """Failures since the last success."""
        return self.failures - self._failures_at_last_success

    @property
    def lock_free_until(self) -> float:
        """Until when `lock_free` may stay set, in seconds on the clock; infinite for always."""
        return self._window.lock_free_until if self._window is not None and self.lock_free else inf

    def window_counts(self, now: float) -> tuple[int, int] | None:
        """Failures and calls in the window; None without one."""
        if self._window is None:
            return None
        self._window.catch_up()
        return self._window.counts(now)

    def has_room(self) -> bool:
        """Whether one more call may run."""
        return True

    def require_lock(self) -> None:
        """Require the lock for the next success, which may do more than count."""
        self.counts_only = self.lock_free = False
        if self._window is not None:
            self._window.catch_up()

    def succeed(self, now: float) -> str | None:
        """Apply the rules to a counted success. Returns the cause if it opens the circuit."""
        window, cause = self._window, None
        if window is not None:
            window.skip_success()
            window.catch_up()
            cause = window.add(now, failed=False)
        # Set first, so that a failure counted meanwhile by another thread can clear it again.
        self.lock_free = self._lock_free_steps.successes and (
            window is None or window.lock_free_until > now
        )
        self.counts_only = self.lock_free and self._lock_free_steps.counts_only
        self._failures_at_last_success = self.lock_failures()
        self._allow_lock_free(self._threshold - 1)
        return cause

    def fail(self, now: float) -> str | None:
        """Count a failure. Returns the cause if it opens the circuit."""
        self.require_lock()
        self._counted = self.lock_failures() + 1
        in_a_row = self._counted - self._failures_at_last_success
        if in_a_row >= self._threshold:
            return f"{in_a_row} {'failure' if in_a_row == 1 else 'failures'} in a row"
        self._allow_lock_free(self._threshold - in_a_row - 1)
        return None if self._window is None else self._window.add(now, failed=True)

    def ignore_success(self) -> None:
        """Leave a late success, which was already counted, out of the window."""
        if self._window is not None:
            self._window.skip_success()

    def lock_failures(self) -> int:
        """Require the lock for every failure from now on. Returns all failures of this period."""
        before, self.lock_free_failures = self.lock_free_failures, EMPTY
        self._counted -= length_hint(before)
        return self._counted

    def _allow_lock_free(self, failures: int) -> None:
        """Let this many failures be counted without the lock."""
        if failures and self._lock_free_steps.failures:
            self._counted += failures
            self.lock_free_failures = repeat(True, failures)


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

    rejections_before: int

    def __init__(
        self, since: float, wait_seconds: float, failures_in_a_row: int, reopenings: int
    ) -> None:
        self.reopenings = reopenings
        self.wait_seconds = wait_seconds
        self.until = since + wait_seconds
        self.failures_in_a_row = failures_in_a_row


class HalfOpen:
    """At most `max_calls` run at the same time. Enough successes close it, one failure opens it.

    Args:
        max_calls: Probes that may run at the same time.
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
    lock_free: ClassVar = False

    rejections_before: int

    def __init__(
        self, max_calls: int, success_threshold: int, failures_in_a_row: int, reopenings: int
    ) -> None:
        self.reopenings = reopenings
        self._max_calls = max_calls
        self._success_threshold = success_threshold
        self.failures_in_a_row = failures_in_a_row
        self.probes: list[TimedCall] = []
        self.successes = 0

    def has_room(self) -> bool:
        """Whether one more call may run."""
        return sum(map(_uses_slot, self.probes)) < self._max_calls

    def oldest_probe(self) -> "TimedCall | None":
        """The running probe that started first."""
        return next(filter(_uses_slot, self.probes), None)

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
        phase: The period that admitted it. `STALE` once it has ended, or if the rules refused it
            and shadow mode ran it. `COUNTED` once it was counted as overdue while still running.
        started: When it started, in seconds on the clock.
        is_lost: Returns whether the end of the call can no longer be noticed. Set only for futures.
    """

    # There is no `__init__`, because it would double the time to create a permit.
    __slots__ = ("is_lost", "phase", "started")
    counts_only: ClassVar = False
    lock_free: ClassVar = False
    lock_free_failures: ClassVar = EMPTY

    phase: "Closed | HalfOpen"
    started: float
    is_lost: Callable[[], bool]


class NestedCall(TimedCall):
    """The permit of a call that is made inside another call of the same circuit and period.

    Attributes:
        outer: The other call.
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


def is_part_of_another(call: TimedCall) -> bool:
    """Whether a call is part of another one, so that its own outcome is not counted.

    This is so while it runs inside a probe, or inside a call that was already counted as overdue.
    A call that outlives its outer call, for example in a task, counts separately from then on.
    """
    while isinstance(call, NestedCall):
        call = call.outer
        if call.phase is COUNTED or isinstance(call.phase, HalfOpen):
            return True
    return False


def is_uncounted(permit: "Permit") -> bool:
    """Whether an outcome must not be counted, because the call or an outer call already counts."""
    return isinstance(permit, TimedCall) and (permit.phase is COUNTED or is_part_of_another(permit))


def _uses_slot(call: TimedCall) -> bool:
    """Whether a running call uses one of the probe slots of half-open state."""
    return not is_part_of_another(call) and not (hasattr(call, "is_lost") and call.is_lost())


Permit: TypeAlias = Closed | TimedCall
Phase: TypeAlias = Closed | Open | HalfOpen

STALE = Closed(1, None, NO_LOCK_FREE_STEPS)
"""Stands for any period that is over: an outcome is late, so it only counts in the totals."""

COUNTED = Closed(1, None, NO_LOCK_FREE_STEPS)
"""Stands for the period of a call that was already counted as overdue."""
