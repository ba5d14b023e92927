"""The breakers there are, by name."""

import math
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from example_service.infra.resilience.events import StateChanged
from example_service.infra.resilience.rules.circuit_state import (
    CircuitState,
    CircuitStateMachine,
    Mode,
    Totals,
)
from example_service.infra.resilience.validation import instance_error, mode_error, name_error

if TYPE_CHECKING:
    from example_service.infra.resilience.circuit_breaker import CircuitBreaker

# Counters must not go down when a breaker is freed and another of its name is made, as in a client
# that is built for each request. So many names without a living breaker are remembered.
REMEMBERED_NAMES = 256

# Enough for what led to an incident, and the same memory however many breakers there are.
REMEMBERED_TRANSITIONS = 20

StateChanges: TypeAlias = Mapping[tuple[CircuitState, CircuitState], int]

_SEVERITY = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}


class CircuitSnapshot(NamedTuple):
    """What all breakers of one name add up to, for monitoring.

    Attributes:
        name: The breakers' name.
        state: Their worst state: open before half-open before closed.
        failures: Lifetime failures, those of breakers already freed included; never goes down.
        successes: Lifetime successes, likewise.
        rejections: Lifetime refused calls, likewise.
        in_flight: Calls admitted and not ended.
        state_changes: How often each change from one state to another happened, likewise.
        mode: The mode set by hand on one of them, or None.
        would_have_rejected: Calls that the current shadow mode has let through.
        shadow_rejections: Lifetime calls that any shadow mode has let through; never goes down.
    """

    name: str
    state: CircuitState
    failures: int
    successes: int
    rejections: int
    in_flight: int
    state_changes: StateChanges
    mode: Mode | None = None
    would_have_rejected: int = 0
    shadow_rejections: int = 0

    def plus(self, other: "CircuitSnapshot") -> "CircuitSnapshot":
        """What this and another one of the same name add up to."""
        state_changes = dict(self.state_changes)
        for change, count in other.state_changes.items():
            state_changes[change] = state_changes.get(change, 0) + count
        return CircuitSnapshot(
            self.name,
            max(self.state, other.state, key=_SEVERITY.__getitem__),
            self.failures + other.failures,
            self.successes + other.successes,
            self.rejections + other.rejections,
            self.in_flight + other.in_flight,
            state_changes,
            self.mode or other.mode,
            self.would_have_rejected + other.would_have_rejected,
            self.shadow_rejections + other.shadow_rejections,
        )


class NamedMode(NamedTuple):
    """A mode that holds for every breaker of a name.

    Attributes:
        mode: Which one.
        reason: Why, in the words of whoever set it.
        seconds: How long it still holds; None for until a reset.
    """

    mode: Mode
    reason: str
    seconds: float | None


class _Counts:
    """What breakers of one name that are gone have counted together."""

    __slots__ = ("failures", "rejections", "shadow_rejections", "state_changes", "successes")

    def __init__(self) -> None:
        self.failures = 0
        self.successes = 0
        self.rejections = 0
        self.shadow_rejections = 0
        self.state_changes: dict[tuple[CircuitState, CircuitState], int] = {}

    def add(self, totals: Totals, state_changes: StateChanges | None) -> None:
        self.failures += totals.failures
        self.successes += totals.successes
        self.rejections += totals.rejections
        self.shadow_rejections += totals.shadow_rejections
        if state_changes:
            for change, count in state_changes.items():
                self.state_changes[change] = self.state_changes.get(change, 0) + count

    def snapshot(self, name: str) -> CircuitSnapshot:
        """The same, to be added to what the living have; in no state that is worse than theirs."""
        return CircuitSnapshot(
            name,
            CircuitState.CLOSED,
            self.failures,
            self.successes,
            self.rejections,
            in_flight=0,
            state_changes=self.state_changes,
            shadow_rejections=self.shadow_rejections,
        )


class _BreakerRef(weakref.ref["CircuitBreaker"]):
    """A weak reference that keeps what must outlive the breaker: its name and counters.

    References of one name form a chain, from the newest to the oldest.
    """

    __slots__ = ("machine", "name", "older")

    name: str
    machine: CircuitStateMachine
    older: "_BreakerRef | None"


class CircuitBreakerRegistry:
    """The breakers of a process, by name.

    Every breaker registers itself when it is made, and is held weakly: it is gone from here when
    nobody uses it any more. One that is registered by hand, or made by `get_or_create`, is held
    until it is unregistered. Several living breakers may have one name; for monitoring their
    counters add up.

    Safe to use from any thread.

    Args:
        clock: Where "now" comes from, in seconds, for the ends of modes that hold for a name.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = RLock()
        # With each, when it ends.
        self._modes: dict[str, tuple[NamedMode, float]] = {}
        self._newest: dict[str, _BreakerRef] = {}
        self._held: dict[str, CircuitBreaker] = {}
        self._retired: dict[str, _Counts] = {}
        self._remembered: OrderedDict[str, _Counts] = OrderedDict()
        self._parameters: dict[str, dict[str, Any]] = {}
        self._recent: deque[tuple[float, StateChanged]] = deque(maxlen=REMEMBERED_TRANSITIONS)
        # A breaker may be freed at any moment, also while this thread holds the lock, so its
        # reference is only put aside here and looked at by the next operation.
        self._dead: deque[_BreakerRef] = deque()
        self._mark_dead = self._dead.append

    def watch(self, breaker: "CircuitBreaker") -> None:
        """Add a breaker without keeping it alive; every new breaker calls this.

        From now on it reports its changes of state here, and to no other registry.
        """
        ref = _BreakerRef(breaker, self._mark_dead)
        name = ref.name = breaker._name
        ref.machine = breaker._machine
        breaker._registry = self
        # Not `with`, which costs more than taking and releasing the lock.
        lock = self._lock
        lock.acquire()
        try:
            if self._dead:
                self._bury()
            ref.older = self._newest.get(name)
            self._newest[name] = ref
            if self._remembered and name in self._remembered:
                self._retired[name] = self._remembered.pop(name)
            if self._modes and (mode := self._mode_of(name)) is not None:
                breaker._begin_in_mode(*mode)
        finally:
            lock.release()

    def register(self, breaker: "CircuitBreaker") -> None:
        """Hold a breaker until it is unregistered; `get` finds it before others of its name.

        The one held before under its name, if any, is let go.

        Raises:
            TypeError: It is no breaker.
        """
        # The class imports this module for its default registry.
        from example_service.infra.resilience.circuit_breaker import CircuitBreaker  # noqa: PLC0415

        if error := instance_error("breaker", breaker, CircuitBreaker):
            raise error
        with self._lock:
            if breaker not in self._living(breaker.name):
                self.watch(breaker)
            self._held[breaker.name] = breaker

    def unregister(self, name: str) -> None:
        """Let go of all breakers of a name; they work on, but are not seen here any more.

        Raises:
            KeyError: There is no breaker of that name.
        """
        with self._lock:
            self.get(name)
            for breaker in self._living(name):
                if breaker._registry is self:
                    breaker._registry = None
            self._held.pop(name, None)
            self._newest.pop(name)
            if name in self._retired:
                self._remembered[name] = self._retired.pop(name)
            self._modes.pop(name, None)

    def get(self, name: str) -> "CircuitBreaker":
        """The breaker of a name: the registered one, else the oldest that is alive.

        Raises:
            KeyError: There is none; the message names those that there are.
        """
        with self._lock:
            held = self._held.get(name)
            if held is not None:
                return held
            living = self._living(name)
            if living:
                return living[-1]
            self._bury()
            known = ", ".join(sorted(self._newest)) or "none"
        raise KeyError(f"no circuit breaker named {name!r}; known: {known}")

    def get_or_create(self, name: str, **defaults: Any) -> "CircuitBreaker":
        """The breaker of a name, made if need be, and held from now on.

        Args:
            name: The breaker's name.
            defaults: Parameters of `CircuitBreaker` for making it. What `configure` was given
                for the name wins over them.

        Raises:
            ValueError: A parameter's value is bad.
            TypeError: A parameter's value is of the wrong type, or there is no such parameter.
        """
        # The class imports this module for its default registry.
        from example_service.infra.resilience.circuit_breaker import CircuitBreaker  # noqa: PLC0415

        held = self._held.get(name)
        if held is not None:
            return held
        if error := name_error("name", name):
            raise error
        with self._lock:
            living = self._living(name)
            if living:
                breaker = self._held.get(name, living[-1])
            else:
                configured = self._parameters.get(configuration_key(name), {})
                breaker = CircuitBreaker(name, registry=self, **{**defaults, **configured})
            self._held[name] = breaker
            return breaker

    def configure(self, parameters: Mapping[str, Mapping[str, Any]]) -> None:
        """Set the parameters with which `get_or_create` makes breakers from now on.

        Args:
            parameters: For each name the parameters of `CircuitBreaker` that are not to have
                their default. Names are compared in lower case with every other character than
                letters and digits as an underscore, so that `payment_api` stands for
                `Payment-API` too.
        """
        with self._lock:
            self._parameters = {
                configuration_key(name): dict(given) for name, given in parameters.items()
            }

    def get_all_metrics(self) -> dict[str, dict[str, Any]]:
        """`CircuitBreaker.get_metrics()` of every name; several breakers of one name add up."""
        return {
            name: add_up_metrics([one.get_metrics() for one in breakers])
            for name, breakers in self._by_name().items()
        }

    def snapshots(self) -> list[CircuitSnapshot]:
        """One snapshot for each name that has a living breaker, in order of first appearance."""
        return [self._snapshot(name, breakers) for name, breakers in self._by_name().items()]

    def keep(self, event: StateChanged) -> None:
        """Add a change of state to the recent ones; every breaker calls this."""
        self._recent.append((time.time(), event))

    def recent_transitions(self) -> list[tuple[datetime, StateChanged]]:
        """The last changes of state of all breakers, the newest first.

        As many as `REMEMBERED_TRANSITIONS`, of breakers already freed too. With each comes the
        wall time, in UTC, at which it was noticed; as no timer runs, that of a wait's end may be
        later than the end itself.
        """
        return [
            (datetime.fromtimestamp(at, UTC), event) for at, event in reversed(self._recent.copy())
        ]

    def set_mode(self, name: str, mode: Mode, reason: str, seconds: float | None = None) -> None:
        """Set a mode on every breaker of a name, those that are made while it holds included.

        Args:
            name: Of the breakers; there may be none yet.
            mode: What `CircuitBreaker.force_open`, `disable` or `shadow` would set.
            reason: Why, for logs, metrics and errors: printable, 1 to 500 characters.
            seconds: How long. None means until `reset` or `reset_all`.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range.
        """
        if error := name_error("name", name) or mode_error(reason, seconds):
            raise error
        given = NamedMode(Mode(mode), reason, seconds)
        ends_at = math.inf if seconds is None else self._clock() + seconds
        with self._lock:
            self._forget_ended_modes()
            self._modes[name] = given, ends_at
            tell = [one._begin_mode(*given) for one in self._living(name)]
        for each in tell:
            each()

    def modes(self) -> dict[str, NamedMode]:
        """The modes that hold for every breaker of a name, by name."""
        with self._lock:
            self._forget_ended_modes()
            names = list(self._modes)
            return {name: mode for name in names if (mode := self._mode_of(name)) is not None}

    async def reset(self, name: str) -> None:
        """Reset every breaker of a name, and end the mode that holds for it."""
        with self._lock:
            self._modes.pop(name, None)
            tell = [one._begin_reset() for one in self._living(name)]
        for each in tell:
            each()

    async def reset_all(self) -> None:
        """Reset every breaker, and end every mode that holds for a name."""
        for name in dict.fromkeys([*self._by_name(), *self.modes()]):
            await self.reset(name)

    def __iter__(self) -> Iterator["CircuitBreaker"]:
        return iter([one for breakers in self._by_name().values() for one in breakers])

    def __len__(self) -> int:
        return sum(map(len, self._by_name().values()))

    def __contains__(self, name: object) -> bool:
        with self._lock:
            return isinstance(name, str) and bool(self._living(name))

    def _mode_of(self, name: str) -> NamedMode | None:
        """The mode that holds for a name now. Requires the lock."""
        given, ends_at = self._modes.get(name, (None, 0.0))
        if given is None or given.seconds is None:
            return given
        seconds = ends_at - self._clock()
        return given._replace(seconds=seconds) if seconds > 0 else None

    def _forget_ended_modes(self) -> None:
        """Requires the lock."""
        now = self._clock()
        self._modes = {name: one for name, one in self._modes.items() if now < one[1]}

    def _living(self, name: str) -> list["CircuitBreaker"]:
        """The living breakers of a name, newest first. Requires the lock."""
        return [one for ref in self._chain(name) if (one := ref()) is not None]

    def _chain(self, name: str) -> list[_BreakerRef]:
        chain = []
        ref = self._newest.get(name)
        while ref is not None:
            chain.append(ref)
            ref = ref.older
        return chain

    def _by_name(self) -> dict[str, list["CircuitBreaker"]]:
        with self._lock:
            by_name = {name: self._living(name) for name in self._newest}
            # Only now: one that another thread frees between the two would be in neither.
            self._bury()
        return {name: breakers for name, breakers in by_name.items() if breakers}

    def _snapshot(self, name: str, breakers: list["CircuitBreaker"]) -> CircuitSnapshot:
        snapshot = reduce(CircuitSnapshot.plus, map(_snapshot_of, breakers))
        gone = self._retired.get(name)
        if gone is None:
            return snapshot
        with self._lock:
            return snapshot.plus(gone.snapshot(name))

    def _bury(self) -> None:
        """Take over the counters of breakers that were freed. Requires the lock."""
        while self._dead:
            name = self._dead.popleft().name
            living: _BreakerRef | None = None
            for ref in reversed(self._chain(name)):
                if ref() is not None:
                    ref.older = living
                    living = ref
                    continue
                retired = self._retired.get(name) or self._retired.setdefault(name, _Counts())
                retired.add(ref.machine.totals(), ref.machine.state_changes)
            if living is not None:
                self._newest[name] = living
            elif self._newest.pop(name, None) is not None:
                self._remembered[name] = self._retired.pop(name)
        while len(self._remembered) > REMEMBERED_NAMES:
            self._remembered.popitem(last=False)


def _snapshot_of(breaker: "CircuitBreaker") -> CircuitSnapshot:
    breaker._look()
    machine = breaker._machine
    with breaker._mutex:
        totals, mode = machine.totals(), machine.mode
        return CircuitSnapshot(
            breaker._name,
            machine.phase.state,
            totals.failures,
            totals.successes,
            totals.rejections,
            machine.in_flight(totals),
            machine.state_changes or {},
            None if mode is None else mode.mode,
            0 if mode is None else mode.would_have_rejected,
            totals.shadow_rejections,
        )


def configuration_key(name: str) -> str:
    """The name by which the configuration knows the breaker of that name.

    In lower case, with every character but letters and digits as an underscore.
    """
    return "".join(one if one.isalnum() else "_" for one in name.lower())


def add_up_metrics(metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the metrics of several breakers of one name add up to; of states and waits the worst."""
    if len(metrics) == 1:
        return metrics[0]
    worst = max(metrics, key=_badness)
    total = {
        key: sum(one[key] for one in metrics)
        for key in (
            "total_failures",
            "total_successes",
            "total_rejections",
            "opened_count",
            "in_flight",
        )
    }
    ended = total["total_failures"] + total["total_successes"]
    failed_at = [one["last_failure_time"] for one in metrics if one["last_failure_time"]]
    added_up = {
        **worst,
        **total,
        "last_failure_time": max(failed_at, default=None),
        "failure_rate": total["total_failures"] / ended if ended else 0.0,
    }
    if modes := [one["mode"] for one in metrics if "mode" in one]:
        # One set on any of them must be seen, however well the others are.
        passed = sum(mode["would_have_rejected"] for mode in modes)
        added_up["mode"] = {**worst.get("mode", modes[0]), "would_have_rejected": passed}
    return added_up


def _badness(metrics: dict[str, Any]) -> tuple[int, float]:
    """What is worse is larger: first by the state, then by the wait, of which one may not end."""
    wait = metrics["retry_after"]
    return _SEVERITY[CircuitState(metrics["state"])], math.inf if wait is None else wait


circuit_breaker_registry = CircuitBreakerRegistry()
