"""A guard for operators: its parameters, metrics, reset and modes."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from example_service.infra.resilience.events import CircuitListener, StateChangeListener
from example_service.infra.resilience.guard import Guard
from example_service.infra.resilience.metrics import CircuitSnapshot, metrics_of, snapshot_of
from example_service.infra.resilience.outcomes import ExceptionTypes
from example_service.infra.resilience.rules.backoff import Backoff
from example_service.infra.resilience.rules.failure_rate import FailureRate
from example_service.infra.resilience.rules.records import ManualMode
from example_service.infra.resilience.rules.states import CircuitState, Mode
from example_service.infra.resilience.state_log import log_mode
from example_service.infra.resilience.validation import check_mode

if TYPE_CHECKING:
    from threading import RLock


class StateLock:
    """Lets code write `async with breaker._lock`, although the lock is a thread lock.

    An `asyncio.Lock` belongs to one event loop and does not work between threads. A breaker created
    at import time serves many event loops and threads, so a re-entrant thread lock protects its
    decisions. It is held for less than a microsecond, and never during an `await`.
    """

    __slots__ = ("_lock",)

    def __init__(self, lock: "RLock") -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    async def __aenter__(self) -> None:
        self._lock.acquire()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()


class MonitoredGuard(Guard):
    """A guard whose metrics can be read, and whose rules an operator can override."""

    __slots__ = ()

    # The parameters.

    @property
    def failure_threshold(self) -> int:
        """Failures in a row that open the circuit."""
        return self.machine.failure_threshold

    @property
    def recovery_timeout(self) -> float:
        """Seconds open before a probe may run, the first time."""
        return self.machine.recovery_timeout

    @property
    def success_threshold(self) -> int:
        """Successes in half-open state that close the circuit."""
        return self.machine.success_threshold

    @property
    def half_open_max_calls(self) -> int:
        """Probes that may run at the same time."""
        return self.machine.half_open_max_calls

    @property
    def probe_timeout(self) -> float:
        """Seconds after which a running probe counts as a failure."""
        return self.machine.probe_timeout

    @property
    def backoff(self) -> Backoff:
        """How the open wait grows with each failed recovery."""
        return self.machine.backoff

    @property
    def slow_call_duration(self) -> float | None:
        """Seconds after which a running call counts as a failure."""
        return self.machine.slow_call_duration

    @property
    def failure_rate(self) -> FailureRate | None:
        """The share of failures that opens the circuit."""
        return self.machine.failure_rate

    @property
    def expected_exception(self) -> ExceptionTypes:
        """The type, or types, of exceptions that count as failures."""
        return self.classifier.expected_exception

    @property
    def is_failure(self) -> Callable[[Exception], bool] | None:
        """The predicate that narrows `expected_exception`."""
        return self.classifier.is_failure

    @property
    def is_success(self) -> Callable[[Exception], bool] | None:
        """The predicate for exceptions that are answers of a healthy dependency."""
        return self.classifier.is_success

    @property
    def is_failed_result(self) -> Callable[[Any], bool] | None:
        """The predicate for returned values that count as failures."""
        return self.classifier.is_failed_result

    @property
    def open_for(self) -> Callable[[Any], float | None] | None:
        """The function that returns the wait that a failure asks for."""
        return self.classifier.open_for

    @property
    def listeners(self) -> tuple[CircuitListener, ...]:
        """The objects with methods to call when something happens."""
        return self._listeners.given if self._listeners is not None else ()

    # What monitoring sees.

    @property
    def state(self) -> CircuitState:
        """The state now: an open circuit whose wait is over shows as half-open."""
        return self.look()

    @property
    def is_closed(self) -> bool:
        """Whether calls run."""
        return self.look() is CircuitState.CLOSED

    @property
    def is_open(self) -> bool:
        """Whether calls are refused."""
        return self.look() is CircuitState.OPEN

    @property
    def is_half_open(self) -> bool:
        """Whether only probes run."""
        return self.look() is CircuitState.HALF_OPEN

    @property
    def total_failures(self) -> int:
        """Failures since construction or the last `reset`."""
        self.look()
        with self.mutex:
            return self.machine.totals().failures - self.machine.totals_at_reset.failures

    @property
    def total_successes(self) -> int:
        """Successes since construction or the last `reset`."""
        self.look()
        return self.machine.totals().successes - self.machine.totals_at_reset.successes

    @property
    def total_rejections(self) -> int:
        """Refused calls since construction or the last `reset`."""
        return self.machine.rejections() - self.machine.totals_at_reset.rejections

    @property
    def in_flight(self) -> int:
        """Calls that are running."""
        self.look()
        with self.mutex:
            return self.machine.in_flight()

    def get_metrics(self) -> dict[str, Any]:
        """All metrics now, as values that JSON can represent.

        Returns:
            A dictionary with these keys:

            - `state`: "closed", "open" or "half_open".
            - `failure_count`: failures in a row.
            - `success_count`: successes so far in half-open state, otherwise 0.
            - `total_failures`, `total_successes`, `total_rejections`: since construction or the
              last `reset`.
            - `last_failure_time`: ISO 8601 in UTC, or None.
            - `failure_rate`: failures / (failures + successes), 0.0 if there are none.
            - `retry_after`: seconds until a call may run, 0.0 unless open; None if forced open
              without an end.
            - `opened_count`: openings since construction or the last `reset`.
            - `in_flight`: calls that are running.
            - `window`, only with the parameter `failure_rate`: a dictionary of `failure_rate` and
              `calls` in the window now, both 0 unless closed, and `threshold`.
            - `reason`, only while not closed: what opened the circuit.
            - `mode`, only while an operator's mode applies: a dictionary of `name` ("forced_open",
              "disabled" or "shadow"), `reason`, `ends_in` (seconds, or None) and
              `would_have_rejected` (calls that the rules refused, but shadow mode ran).
        """
        self.look()
        with self.mutex:
            return metrics_of(
                self.machine,
                self.clock(),
                self._last_failure_time,
                self._reason(),
            )

    def snapshot(self) -> CircuitSnapshot:
        """What Prometheus sees: lifetime counts, which a reset does not lower."""
        self.look()
        with self.mutex:
            return snapshot_of(self.name, self.machine, self.clock())

    # Operators.

    async def reset(self) -> None:
        """Close the circuit and clear counts, totals, backoff, the last failure and the mode.

        Calls that are running are late: their outcomes do not change the state. Prometheus counters
        never go down.
        """
        self.begin_reset()()

    def begin_reset(self) -> Callable[[], None]:
        """Reset, and return a function that notifies; call it outside every lock."""
        _, events, waiting = self._take_step(self._reset)
        return partial(self._finish, events, waiting)

    def force_open(self, reason: str, seconds: float | None = None) -> None:
        """Refuse every call, whatever the dependency does.

        Args:
            reason: Why, for logs, metrics and errors: printable, 1 to 500 characters.
            seconds: How long; afterwards the circuit is half-open. None means until `reset`.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range.
        """
        self.begin_mode(Mode.FORCED_OPEN, reason, seconds)()

    def disable(self, reason: str, seconds: float | None = None) -> None:
        """Run every call and never open; outcomes are still counted.

        Args:
            reason: Why, for logs and metrics: printable, 1 to 500 characters.
            seconds: How long; afterwards the circuit is closed. None means until `reset`.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range.
        """
        self.begin_mode(Mode.DISABLED, reason, seconds)()

    def shadow(self, reason: str, seconds: float | None = None) -> None:
        """Apply the rules and report as usual, but run the calls that they refuse.

        Args:
            reason: Why, for logs and metrics: printable, 1 to 500 characters.
            seconds: How long; afterwards the circuit refuses what the rules refuse. None means
                until `reset`.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range.
        """
        self.begin_mode(Mode.SHADOW, reason, seconds)()

    def begin_mode(self, mode: Mode, reason: str, seconds: float | None) -> Callable[[], None]:
        """Set a mode, and return a function that notifies; call it outside every lock."""
        check_mode(reason, seconds)
        given, events, waiting = self._take_step(self._set_mode, mode, reason, seconds)

        def notify() -> None:
            if given is not None:
                log_mode(self.name, given, seconds)
            self._finish(events, waiting)

        return notify

    def start_in_mode(self, mode: Mode, reason: str, seconds: float | None) -> None:
        """Start in the mode already set for this name, without logging or notifying listeners."""
        self.begin_mode(mode, reason, seconds)
        self.machine.state_changes = None

    def start_open(self, reason: str, wait_seconds: float, reopenings: int) -> None:
        """Start open with the other processes of a fleet, without logging or notifying listeners.

        Args:
            reason: Why, for logs, metrics and errors.
            wait_seconds: How long the open period still lasts.
            reopenings: Failed recoveries of the fleet so far, for the backoff.
        """
        self._take_step(self.machine.follow, CircuitState.OPEN, reason, wait_seconds, reopenings)
        self.machine.state_changes = None

    def force(
        self,
        state: CircuitState,
        cause: str,
        since: float | None = None,
        wait_seconds: float | None = None,
    ) -> None:
        """Start a period in `state`, whatever the rules say; for tests.

        Args:
            state: Which state.
            cause: Why, for logs and listeners.
            since: When an open period began, in seconds on the clock; None for now.
            wait_seconds: How long it lasts; None for what the rules say.
        """
        self._decide(self._force, state, cause, since, wait_seconds)

    def report_to(self, observer: StateChangeListener | None) -> None:
        """Notify `observer` of changes of state, before log and listeners."""
        self.observer = observer

    def _force(
        self,
        state: CircuitState,
        cause: str,
        since: float | None,
        wait_seconds: float | None,
        now: float,
    ) -> None:
        self.machine.force(state, now, cause, since, wait_seconds)

    def _reset(self, now: float) -> None:
        self.machine.reset(now)
        if self._outage is not None:
            self._outage.forget()

    def _set_mode(self, mode: Mode, reason: str, seconds: float | None, now: float) -> ManualMode:
        given = self.machine.set_mode(mode, reason, now, None if seconds is None else now + seconds)
        self._begin_summary(self._outage or self._first_outage(), now)
        return given

    # Documented hooks for tests, which set the state and read it.

    @property
    def _lock(self) -> StateLock:
        return StateLock(self.mutex)

    async def _check_state(self) -> None:
        self.look()

    @property
    def _state(self) -> CircuitState:
        return self.look()

    @_state.setter
    def _state(self, state: CircuitState) -> None:
        since = self.clock()
        if (failed_at := self._last_failure_time) is not None:
            since -= time.time() - failed_at.timestamp()
        self.force(CircuitState(state), "set by hand", since)

    @property
    def _last_failure_time(self) -> datetime | None:
        failed_at = self._outage.failed_at if self._outage is not None else None
        return None if failed_at is None else datetime.fromtimestamp(failed_at, UTC)

    @_last_failure_time.setter
    def _last_failure_time(self, failed_at: datetime | None) -> None:
        with self.mutex:
            outage = self._outage or self._first_outage()
            outage.failed_at = None if failed_at is None else failed_at.timestamp()
            if outage.failed_at is not None:
                # The rules do not use wall time, so convert it to the breaker's clock.
                now = self.clock()
                self.machine.move_opening(now - (time.time() - outage.failed_at), now)
