"""A second breaker, written only from the text of the rules: slow, simple, single-threaded.

It has admissions, the ends of calls, looks, `reset` and the modes, and shares no code with the real
breaker. Tests compare the two.

Every effect of time (a call that becomes overdue, a mode that ends, an open wait that ends) is a
*moment*. A look applies all moments up to now, the earliest first, and simultaneous ones in the
order in which they are listed here.
"""

import functools
import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

# An event of a listener: what happened, then its details.
ModelEvent: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class ModelParameters:
    """The parameters of a breaker.

    Attributes:
        percent: The failure rate that opens the circuit, in whole percent; None for no such rule.
        window_calls: The number of results in the window.
        minimum_calls: The minimum number of results for the rule to apply.
    """

    failure_threshold: int = 2
    success_threshold: int = 2
    half_open_max_calls: int = 1
    recovery_timeout: float = 10.0
    probe_timeout: float = 10.0
    multiplier: float = 1.0
    max_timeout: float = 50.0
    slow_call_duration: float | None = None
    percent: int | None = None
    window_calls: int = 1
    minimum_calls: int = 1


@dataclass(eq=False)
class ModelCall:
    """An admitted call; `generation` is None if only shadow mode admitted it."""

    generation: int | None
    started: float
    overdue: bool = False


@dataclass
class ModelMode:
    """A mode that an operator has set."""

    name: str
    until: float
    would_have_rejected: int = 0


@dataclass
class Model:
    """What a breaker must show; `events` has the events that its listener must have received."""

    parameters: ModelParameters = field(default_factory=ModelParameters)
    now: float = 0.0
    state: str = "closed"
    generation: int = 0
    failure_count: int = 0
    success_count: int = 0
    reopenings: int = 0
    open_until: float = math.inf
    opened_because: str = ""
    opened_count: int = 0
    mode: ModelMode | None = None
    totals: Counter[str] = field(default_factory=Counter)
    lifetime: Counter[str] = field(default_factory=Counter)
    calls: list[ModelCall] = field(default_factory=list)
    window: deque[bool] = field(default_factory=deque)
    events: list[ModelEvent] = field(default_factory=list)

    # Actions on a breaker.

    def look(self) -> None:
        """Apply every moment up to now."""
        while True:
            moments: list[tuple[float, Callable[[], None]]] = []
            for call in self.calls:
                if not call.overdue:
                    act = functools.partial(self._become_overdue, call, self._deadline(call))
                    moments.append((self._deadline(call), act))
            if self.mode is not None:
                moments.append((self.mode.until, self._end_mode))
            if self.state == "open":
                moments.append((self.open_until, functools.partial(self._change, "half_open")))
            at, act_first = min(
                moments, key=lambda moment: moment[0], default=(math.inf, self.look)
            )
            if at == math.inf or at > self.now:
                return
            act_first()

    def begin(self) -> ModelCall | None:
        """Admit a call, or refuse it."""
        self.look()
        full = len(self._probes()) >= self.parameters.half_open_max_calls
        generation: int | None = self.generation
        if self.state == "open" or (self.state == "half_open" and full):
            if self.mode is None or self.mode.name != "shadow":
                self._count("rejections")
                self.events.append(("rejected", self.state, self.retry_after()))
                return None
            self.mode.would_have_rejected += 1
            generation = None
        call = ModelCall(generation, self.now)
        self.calls.append(call)
        return call

    def end(self, call: ModelCall, outcome: str) -> None:
        """Record the end of a call: success, failure or neutral."""
        self.look()
        self.calls.remove(call)
        if call.overdue or outcome == "neutral":
            return
        duration = self.now - call.started
        if outcome == "success":
            self._count("successes")
            self.events.append(("succeeded", duration))
            if call.generation == self.generation:
                self._succeed()
        else:
            self._count("failures")
            self.events.append(("failed", duration))
            if call.generation == self.generation:
                self._fail(self.now, "a probe failed")

    def reset(self) -> None:
        """Close the circuit and forget everything; calls in flight become late."""
        self.look()
        self.mode = None
        self._close()
        self.opened_count = 0
        self.totals.clear()

    def force_open(self, seconds: float | None) -> None:
        """Refuse every call."""
        self.look()
        self.mode = ModelMode("forced_open", self._after(seconds))
        self._open(self.now, seconds, "forced open by hand")

    def disable(self, seconds: float | None) -> None:
        """Admit every call."""
        self.look()
        self.mode = ModelMode("disabled", self._after(seconds))
        self._close()

    def shadow(self, seconds: float | None) -> None:
        """Apply the rules but admit every call; any other mode ends."""
        self.look()
        would_have_rejected = 0
        if self.mode is not None and self.mode.name == "shadow":
            would_have_rejected = self.mode.would_have_rejected
        elif self.mode is not None or self.state == "closed":
            self._close()
        self.mode = ModelMode("shadow", self._after(seconds), would_have_rejected)

    # What a breaker shows.

    def retry_after(self) -> float | None:
        """Seconds until a call may be admitted."""
        if self.state != "open":
            return 0.0
        return None if self.open_until == math.inf else self.open_until - self.now

    def reason(self) -> str:
        """Words that the reason must contain."""
        forced = self.mode is not None and self.mode.name == "forced_open"
        return "forced open by hand" if forced else self.opened_because

    def transitions(self) -> list[ModelEvent]:
        """The events that are transitions."""
        return [event for event in self.events if event[0] == "changed"]

    # The rules.

    def _deadline(self, call: ModelCall) -> float:
        slow = self.parameters.slow_call_duration
        limits = [] if slow is None else [slow]
        if call in self._probes():
            limits.append(self.parameters.probe_timeout)
        return call.started + min(limits, default=math.inf)

    def _probes(self) -> list[ModelCall]:
        if self.state != "half_open":
            return []
        return [call for call in self.calls if call.generation == self.generation]

    def _become_overdue(self, call: ModelCall, at: float) -> None:
        call.overdue = True
        self._count("failures")
        self.events.append(("failed", at - call.started))
        if call.generation == self.generation:
            self._fail(at, "a probe did not end within")

    def _end_mode(self) -> None:
        self.mode = None
        if self.state == "closed":
            self._close()

    def _succeed(self) -> None:
        self.failure_count = 0
        if self.state == "closed":
            self._judge_share(self.now, failed=False)
            return
        self.success_count += 1
        if self.success_count >= self.parameters.success_threshold:
            self._close()

    def _fail(self, at: float, cause_in_half_open: str) -> None:
        self.failure_count += 1
        if self.state == "half_open":
            self.reopenings += 1
            self._open(at, self._wait(), cause_in_half_open)
        elif self.mode is not None and self.mode.name == "disabled":
            return
        elif self.failure_count >= self.parameters.failure_threshold:
            counted = "1 failure" if self.failure_count == 1 else f"{self.failure_count} failures"
            self._open(at, self._wait(), f"{counted} in a row")
        else:
            self._judge_share(at, failed=True)

    def _judge_share(self, at: float, *, failed: bool) -> None:
        percent = self.parameters.percent
        if percent is None or (self.mode is not None and self.mode.name == "disabled"):
            return
        self.window.append(failed)
        while len(self.window) > self.parameters.window_calls:
            self.window.popleft()
        calls, failures = len(self.window), sum(self.window)
        if calls >= self.parameters.minimum_calls and failures * 100 >= percent * calls:
            self._open(at, self._wait(), f"{failures} of the last {calls} calls failed")

    def _wait(self) -> float:
        one = self.parameters
        return min(one.recovery_timeout * one.multiplier**self.reopenings, one.max_timeout)

    def _after(self, seconds: float | None) -> float:
        return math.inf if seconds is None else self.now + seconds

    def _close(self) -> None:
        self.reopenings = 0
        self._change("closed")
        self.failure_count = 0

    def _open(self, at: float, wait: float | None, because: str) -> None:
        self.open_until = math.inf if wait is None else at + wait
        if self.state != "open":
            self.opened_count += 1
            self.opened_because = because
        self._change("open", wait)

    def _change(self, state: str, wait: float | None = None) -> None:
        if state != self.state:
            self.events.append(("changed", self.state, state, wait))
        self.state = state
        self.generation += 1
        self.success_count = 0
        self.window.clear()

    def _count(self, what: str) -> None:
        self.totals[what] += 1
        self.lifetime[what] += 1
