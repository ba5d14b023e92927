"""The data of one circuit, and how one period follows another."""

from math import inf
from typing import TYPE_CHECKING, Any

from example_service.infra.resilience.rules.backoff import Backoff
from example_service.infra.resilience.rules.failure_rate import FailureRate
from example_service.infra.resilience.rules.lockfree import EMPTY, endless, taken
from example_service.infra.resilience.rules.phases import (
    STALE,
    Closed,
    HalfOpen,
    LockFreeSteps,
    Open,
    Phase,
    TimedCall,
)
from example_service.infra.resilience.rules.records import (
    NO_TOTALS,
    ManualMode,
    Overdue,
    Totals,
    Transition,
)
from example_service.infra.resilience.rules.states import CausedBy, CircuitState, Mode

if TYPE_CHECKING:
    from example_service.infra.resilience.rules.gate import Gate

_NEVER = 1 << 62
"""Failures in a row that open a disabled circuit."""


class Circuit:
    """The parameters, the current period and the counts of one circuit.

    Args:
        failure_threshold: Failures in a row that open a closed circuit.
        recovery_timeout: Seconds of the first open wait.
        success_threshold: Successes in HALF_OPEN that close it.
        half_open_max_calls: Probes that may run at the same time.
        probe_timeout: Seconds after which a running probe counts as a failure.
        backoff: How the open wait grows with each failed recovery.
        failure_rate: The share of failures that opens a closed circuit; None for no such rule.
        slow_call_duration: Seconds after which a running call counts as a failure; None for no
            such rule.
        lock_free_steps: Which steps need no lock.
    """

    __slots__ = (
        "_expected_outcomes",
        "_failures",
        "_lock_free_steps",
        "_reports",
        "_shadow_rejections",
        "admissions",
        "backoff",
        "due",
        "failure_rate",
        "failure_threshold",
        "gate",
        "half_open_max_calls",
        "has_blocks",
        "mode",
        "permits",
        "phase",
        "probe_timeout",
        "recovery_timeout",
        "refusals",
        "running",
        "shared_exit",
        "slow_call_duration",
        "state_changes",
        "success_threshold",
        "successes",
        "totals_at_reset",
    )

    def __init__(  # noqa: PLR0917 - By position: keywords would take a tenth of the construction.
        self,
        failure_threshold: int,
        recovery_timeout: float,
        success_threshold: int,
        half_open_max_calls: int,
        probe_timeout: float,
        backoff: Backoff,
        failure_rate: FailureRate | None,
        slow_call_duration: float | None,
        lock_free_steps: LockFreeSteps,
    ) -> None:
        self.failure_threshold = failure_threshold
        self.recovery_timeout = recovery_timeout
        self.success_threshold = success_threshold
        self.half_open_max_calls = half_open_max_calls
        self.probe_timeout = probe_timeout
        self.backoff = backoff
        self.failure_rate = failure_rate
        self.slow_call_duration = slow_call_duration
        self._lock_free_steps = lock_free_steps
        # Running calls with their start, oldest first; None without `slow_call_duration`.
        self.running: dict[TimedCall, float] | None = None if slow_call_duration is None else {}
        self.due = inf if slow_call_duration is None else -inf
        # Whether a timed block was ever entered. Only then can a call be inside another one that
        # is marked in the context; see `nested_calls`.
        self.has_blocks = False
        self.mode: ManualMode | None = None
        self.gate: Gate | None = None
        self.successes = endless(None)
        # Created when the circuit first opens, to save memory.
        self.refusals = EMPTY
        self.state_changes: dict[tuple[CircuitState, CircuitState], int] | None = None
        self.totals_at_reset = NO_TOTALS
        self._failures = self._shadow_rejections = 0
        # Outcomes to come from calls that `admissions` does not count. A call counted as overdue
        # adds one, because it was counted and is still running.
        self._expected_outcomes = 0
        self._reports: list[Transition | Overdue] | None = None
        window = None if failure_rate is None else failure_rate.window(self.successes)
        closed = Closed(failure_threshold, window, lock_free_steps)
        self.phase: Phase = closed
        self.shared_exit: Any = None
        self.admissions: Any = endless(closed) if lock_free_steps.admissions else EMPTY
        self.permits: Any = EMPTY if lock_free_steps.timed else self.admissions

    @property
    def is_timed(self) -> bool:
        """Whether each call gets its own permit, which records when it started."""
        return self._lock_free_steps.timed

    def totals(self) -> Totals:
        """Lifetime counts up to this moment."""
        phase, openings = self.phase, 0
        if changes := self.state_changes:
            openings = sum(n for (_, to), n in changes.items() if to is CircuitState.OPEN)
        return Totals(  # By position, because each scrape asks every breaker.
            self._failures + (phase.failures if isinstance(phase, Closed) else 0),
            taken(self.successes),
            taken(self.refusals),
            openings,
            self._shadow_rejections,
        )

    def failures_in_a_row(self) -> int:
        """Failures since the last success that was not late."""
        return self.phase.failures_in_a_row

    def rejections(self) -> int:
        """Lifetime count of refused calls."""
        return taken(self.refusals)

    def in_flight(self, totals: Totals | None = None) -> int:
        """Calls that are running now.

        Args:
            totals: What `totals` has just returned, if the caller has it.
        """
        totals = totals or self.totals()
        admitted = self._expected_outcomes + taken(self.admissions)
        return max(0, admitted - totals.successes - totals.failures)

    def retry_after(self, now: float) -> float | None:
        """Seconds until a call may run: 0.0 unless open, None if only a reset ends the wait."""
        if not isinstance(self.phase, Open):
            return 0.0
        return None if self.phase.until == inf else max(0.0, self.phase.until - now)

    def window_counts(self, now: float) -> tuple[int, int] | None:
        """Failures and calls in the window of `failure_rate`; None while there is no window."""
        return self.phase.window_counts(now) if isinstance(self.phase, Closed) else None

    def take_reports(self) -> list[Transition | Overdue] | None:
        """Remove and return the reports since the last call, oldest first; None if none."""
        reports, self._reports = self._reports, None
        return reports

    @property
    def reopenings(self) -> int:
        """Failed recoveries since the circuit was last closed."""
        return self.phase.reopenings

    # Changing the state.

    def _leave(self, call: TimedCall) -> Closed | HalfOpen:
        """End a call, which frees its probe slot. Returns its period."""
        phase, call.phase = call.phase, STALE
        if isinstance(phase, HalfOpen):
            phase.probes.remove(call)
        return phase

    def _count_failure(
        self, phase: Phase, at: float, probe_cause: str, open_for: float | None = None
    ) -> None:
        """Count a failure of a call that `phase` admitted. If late, it changes nothing else."""
        if phase is self.phase and isinstance(phase, Closed):
            cause = phase.fail(at)
            if open_for is not None and not self._is_disabled():
                cause = f"the dependency asked for a wait of {open_for:g} seconds"
            if cause is not None:
                self._open(at, cause, open_for)
            return
        self._failures += 1
        if phase is self.phase and isinstance(phase, HalfOpen):
            phase.failures_in_a_row += 1
            phase.reopenings += 1
            self._open(at, probe_cause, open_for)

    def _is_disabled(self) -> bool:
        return self.mode is not None and self.mode.mode is Mode.DISABLED

    def _open(
        self,
        since: float,
        cause: str,
        wait_seconds: float | None = None,
        reopenings: int | None = None,
        caused_by: CausedBy = "rules",
    ) -> None:
        if reopenings is None:
            reopenings = self.phase.reopenings
        if wait_seconds is None:
            opening = self.totals().openings + 1
            wait_seconds = self.backoff.wait_seconds(self.recovery_timeout, reopenings, opening)
        phase = Open(since, wait_seconds, self.failures_in_a_row(), reopenings)
        self._change(phase, cause, caused_by)

    def _half_open(self, cause: str) -> None:
        phase = HalfOpen(
            self.half_open_max_calls,
            self.success_threshold,
            self.failures_in_a_row(),
            self.phase.reopenings,
        )
        self._change(phase, cause)

    def _close(self, cause: str = "", caused_by: CausedBy = "rules") -> None:
        """Start a closed period. It needs no cause if the circuit is closed already."""
        disabled = self._is_disabled()
        rate = None if disabled else self.failure_rate
        window = None if rate is None else rate.window(self.successes)
        threshold = _NEVER if disabled else self.failure_threshold
        self._change(Closed(threshold, window, self._lock_free_steps), cause, caused_by)

    def _change(self, phase: Phase, cause: str, caused_by: CausedBy = "rules") -> None:
        """End the current period and start `phase`. Every change of state goes through here."""
        before, admissions = self.phase, self.admissions
        self.phase, self.shared_exit = phase, None
        self.permits = self.admissions = EMPTY
        if isinstance(before, Closed):
            before.counts_only = before.lock_free = False
            self._failures += before.lock_failures()
            rejections_before = self.rejections()
        else:
            rejections_before = before.rejections_before
        if not isinstance(phase, Closed):
            phase.rejections_before = rejections_before
            self.refusals = endless(None) if self.refusals is EMPTY else self.refusals
        elif self._lock_free_steps.admissions and self.mode is None:
            self.admissions = endless(phase)
            self.permits = EMPTY if self.is_timed else self.admissions
        # Counted last: other threads could take permits until `permits` was replaced.
        self._expected_outcomes += taken(admissions)
        if before.state is phase.state:
            return
        change = before.state, phase.state
        counts = self.state_changes or {}
        # A new dictionary, because another thread may be reading the old one.
        self.state_changes = {**counts, change: counts.get(change, 0) + 1}
        wait = phase.wait_seconds if isinstance(phase, Open) else None
        rejections = self.rejections() - rejections_before
        failures = before.failures_in_a_row
        self._report(Transition(*change, wait, failures, cause, rejections, caused_by))

    def _report(self, report: Transition | Overdue) -> None:
        self._reports = [*(self._reports or ()), report]
