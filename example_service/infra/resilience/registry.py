"""The guards of a process by name. It does not keep them alive, but keeps their counters."""

import os
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import reduce
from threading import RLock
from typing import Any, Generic, Protocol, TypeVar

from example_service.infra.resilience.events import (
    CircuitListener,
    StateChanged,
    StateChangeListener,
)
from example_service.infra.resilience.metrics import (
    CircuitSnapshot,
    add_up_metrics,
    snapshot_of,
)
from example_service.infra.resilience.named_modes import NamedMode, NamedModes, Order
from example_service.infra.resilience.parameters import combined, configuration_key
from example_service.infra.resilience.rules.circuit_state import CircuitStateMachine
from example_service.infra.resilience.rules.states import Mode
from example_service.infra.resilience.validation import check_mode, check_name

# Counters must not go down when a breaker is freed and another one with its name is created, for
# example by a client that exists for one request. So the counters of this many names without a
# living breaker are remembered.
REMEMBERED_NAMES = 256

# Enough to see what led to an incident.
REMEMBERED_TRANSITIONS = 20


class Registrable(Protocol):
    """What a registry needs from a breaker."""

    machine: CircuitStateMachine
    observer: StateChangeListener | None

    @property
    def name(self) -> str:
        """The name given at construction."""
        ...

    def report_to(self, observer: StateChangeListener | None) -> None:
        """Report changes of state to `observer`, and to no other registry."""
        ...

    def snapshot(self) -> CircuitSnapshot:
        """What monitoring sees of this breaker."""
        ...

    def get_metrics(self) -> dict[str, Any]:
        """All metrics, as values that JSON can represent."""
        ...

    def begin_reset(self) -> Callable[[], None]:
        """Reset, and return a function that notifies; call it outside every lock."""
        ...

    def begin_mode(self, mode: Mode, reason: str, seconds: float | None) -> Callable[[], None]:
        """Set a mode, and return a function that notifies; call it outside every lock."""
        ...

    def start_in_mode(self, mode: Mode, reason: str, seconds: float | None) -> None:
        """Start in the mode already set for this name, without notifying."""
        ...

    def start_open(self, reason: str, wait_seconds: float, reopenings: int) -> None:
        """Start open, like the other processes of the fleet, without notifying."""
        ...


G = TypeVar("G", bound=Registrable)


class FleetHooks(StateChangeListener, Protocol):
    """Connects the breakers of a registry to those of other processes."""

    def join(self, breaker: Registrable) -> None:
        """A breaker was created."""
        ...


class _Ref(weakref.ref[G]):
    """A weak reference to a breaker, with its name and counters, which must outlive it.

    References of one name form a chain, from the newest to the oldest.
    """

    __slots__ = ("machine", "name", "older")

    name: str
    machine: CircuitStateMachine
    older: "_Ref[G] | None"


class Registry(Generic[G]):
    """The breakers of a process, by name.

    Safe to use from any thread, in a finalizer, and after `os.fork`.

    Args:
        clock: Returns the current time in seconds; decides when modes end.

    Attributes:
        fleet: Notified of new breakers and of state changes; None without a fleet.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = RLock()
        self._modes = NamedModes(clock)
        self._newest: dict[str, _Ref[G]] = {}
        self._registered: dict[str, G] = {}
        # The counters of freed breakers: of names with a living breaker, and of other names.
        self._retired: dict[str, CircuitSnapshot] = {}
        self._remembered: OrderedDict[str, CircuitSnapshot] = OrderedDict()
        self._parameters: dict[str, dict[str, Any]] = {}
        self._listeners: tuple[CircuitListener, ...] = ()
        self._recent: deque[tuple[float, StateChanged]] = deque(maxlen=REMEMBERED_TRANSITIONS)
        # A breaker may be freed at any moment, even while this thread has the lock. So its
        # reference is only stored here, and processed by the next operation.
        self._freed: deque[_Ref[G]] = deque()
        self._note_freed = self._freed.append
        self._is_collecting = False
        self.fleet: FleetHooks | None = None
        _registries.add(self)

    def add(self, breaker: G) -> None:
        """Add a breaker without keeping it alive; every new breaker calls this.

        From now on the breaker notifies this registry of state changes, and no other.
        """
        ref = _Ref(breaker, self._note_freed)
        name = ref.name = breaker.name
        ref.machine = breaker.machine
        breaker.report_to(self)
        # `with` would take longer.
        lock = self._lock
        lock.acquire()
        try:
            if self._freed:
                self._keep_counters()
            ref.older = self._newest.get(name)
            self._newest[name] = ref
            if self._remembered and name in self._remembered:
                self._retired[name] = self._remembered.pop(name)
            if self._modes.given and (mode := self._modes.get(name)) is not None:
                breaker.start_in_mode(*mode)
            if self.fleet is not None:
                self.fleet.join(breaker)
        finally:
            lock.release()

    def register(self, breaker: G) -> None:
        """Keep a breaker until it is unregistered; `get` finds it before others of its name.

        It replaces the breaker that was registered under this name before, if any.
        """
        with self._lock:
            if breaker not in self._living(breaker.name):
                self.add(breaker)
            self._registered[breaker.name] = breaker

    def unregister(self, name: str) -> None:
        """Remove all breakers of a name; they continue to work, but are no longer listed.

        Raises:
            KeyError: There is no breaker of that name.
        """
        with self._lock:
            self.get(name)
            for breaker in self._living(name):
                if breaker.observer is self:
                    breaker.report_to(None)
            self._registered.pop(name, None)
            self._newest.pop(name)
            if name in self._retired:
                self._remembered[name] = self._retired.pop(name)
            self._modes.remove(name)

    def get(self, name: str) -> G:
        """The breaker of a name: the registered one, otherwise the oldest that is alive.

        Raises:
            KeyError: There is none; the message lists the known names.
        """
        with self._lock:
            held = self._registered.get(name)
            if held is not None:
                return held
            living = self._living(name)
            if living:
                return living[-1]
            self._keep_counters()
            known = ", ".join(sorted(self._newest)) or "none"
        raise KeyError(f"no circuit breaker named {name!r}; known: {known}")

    def living(self, name: str) -> list[G]:
        """The breakers of a name that are alive, newest first."""
        with self._lock:
            return self._living(name)

    def get_or_create(self, name: str, **defaults: Any) -> G:
        """The breaker of a name, created if there is none, and kept from now on.

        Args:
            name: The breaker's name.
            defaults: Parameters for creating it. Parameters that `configure` has set for the name
                take precedence.

        Raises:
            ValueError: A parameter's value is out of range, or a configured one contradicts one of
                the defaults.
            TypeError: A parameter's value is of the wrong type, or there is no such parameter.
        """
        held = self._registered.get(name)
        if held is not None:
            return held
        check_name("name", name)
        with self._lock:
            living = self._living(name)
            if living:
                breaker = self._registered.get(name, living[-1])
            else:
                configured = self._parameters.get(configuration_key(name), {})
                parameters = combined(name, defaults, configured)
                if self._listeners:
                    parameters["listeners"] = (*parameters.get("listeners", ()), *self._listeners)
                breaker = self._create(name, parameters)
            self._registered[name] = breaker
            return breaker

    def _create(self, name: str, parameters: dict[str, Any]) -> G:
        raise NotImplementedError

    def configure(
        self,
        parameters: Mapping[str, Mapping[str, Any]],
        *,
        listeners: Iterable[CircuitListener] = (),
    ) -> None:
        """Set the parameters with which `get_or_create` creates breakers from now on.

        Args:
            parameters: For each name, the parameters that differ from the defaults. Names are
                compared in lower case, with an underscore for every character other than letters
                and digits, so `payment_api` also matches `Payment-API`. For `failure_rate` and
                `backoff`, a mapping of some fields leaves the others to the code.
            listeners: Listeners of every breaker, in addition to its own.
        """
        with self._lock:
            self._listeners = tuple(listeners)
            self._parameters = {
                configuration_key(name): dict(given) for name, given in parameters.items()
            }

    def get_all_metrics(self) -> dict[str, dict[str, Any]]:
        """`CircuitBreaker.get_metrics()` for every name, summed over breakers of the same name."""
        return {
            name: add_up_metrics([breaker.get_metrics() for breaker in breakers])
            for name, breakers in self._by_name().items()
        }

    def snapshots(self) -> list[CircuitSnapshot]:
        """One snapshot for each name that has a living breaker, in order of first appearance."""
        return [self._snapshot(name, breakers) for name, breakers in self._by_name().items()]

    def on_state_change(self, event: StateChanged, /) -> None:
        """Add a state change to the recent ones; every breaker calls this."""
        self._recent.append((time.time(), event))
        if self.fleet is not None:
            self.fleet.on_state_change(event)

    def recent_transitions(self) -> list[tuple[datetime, StateChanged]]:
        """The most recent state changes of all breakers, newest first.

        At most `REMEMBERED_TRANSITIONS`, including those of breakers that were freed. Each has the
        wall-clock time in UTC at which it was noticed. No timer runs, so a change may be noticed
        after it was due.
        """
        return [
            (datetime.fromtimestamp(at, UTC), event) for at, event in reversed(self._recent.copy())
        ]

    def set_mode(self, name: str, mode: Mode, reason: str, seconds: float | None = None) -> None:
        """Set a mode on every breaker of a name, including those created before it ends.

        Args:
            name: Name of the breakers; there may be none yet.
            mode: What `CircuitBreaker.force_open`, `disable` or `shadow` would set.
            reason: Why, for logs, metrics and errors: printable, 1 to 500 characters.
            seconds: How long. None means until `reset` or `reset_all`.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range.
        """
        check_name("name", name)
        check_mode(reason, seconds)
        given = NamedMode(Mode(mode), reason, seconds)
        with self._lock:
            self._modes.set(name, given)
            notify = [breaker.begin_mode(*given) for breaker in self._living(name)]
        for each in notify:
            each()

    def modes(self) -> dict[str, NamedMode]:
        """The modes that apply to every breaker of a name, by name."""
        with self._lock:
            return self._modes.all()

    def recent_orders(self) -> list[Order]:
        """The last 20 modes and resets ordered for a name here, newest first."""
        with self._lock:
            return list(reversed(self._modes.orders))

    async def reset(self, name: str, reason: str = "reset by hand") -> None:
        """Reset every breaker of a name, and end its mode; `recent_orders` gives the reason."""
        self.reset_sync(name, reason)

    def reset_sync(self, name: str, reason: str = "reset by hand") -> None:
        """The same for synchronous code."""
        with self._lock:
            self._modes.reset(name, reason)
            notify = [breaker.begin_reset() for breaker in self._living(name)]
        for each in notify:
            each()

    async def reset_all(self) -> None:
        """Reset every breaker, and end every mode that applies to a name."""
        for name in dict.fromkeys([*self._by_name(), *self.modes()]):
            await self.reset(name)

    def __iter__(self) -> Iterator[G]:
        return iter([breaker for breakers in self._by_name().values() for breaker in breakers])

    def __len__(self) -> int:
        return sum(map(len, self._by_name().values()))

    def __contains__(self, name: object) -> bool:
        with self._lock:
            return isinstance(name, str) and bool(self._living(name))

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Undo all changes of a block to this registry at its end; for tests.

        The block starts without modes. Breakers that it adds are removed at its end.
        """
        with self._lock:
            # This list keeps them alive, so that the references in the registry stay valid.
            existing = list(self)
            newest = {breaker.name: self._newest[breaker.name] for breaker in existing}
            held, parameters = dict(self._registered), self._parameters
            retired, remembered = dict(self._retired), OrderedDict(self._remembered)
            recent = list(self._recent)
            self._modes.clear()
        try:
            yield
        finally:
            with self._lock:
                self._modes.clear()
                self._newest, self._registered, self._parameters = newest, held, parameters
                self._retired, self._remembered = retired, remembered
                self._recent.clear()
                self._recent.extend(recent)
            for breaker in existing:
                breaker.report_to(self)

    def renew_lock(self) -> None:
        """Replace the lock after a fork, because a thread of the parent may hold it."""
        self._lock = RLock()
        self._is_collecting = False

    def _living(self, name: str) -> list[G]:
        """The living breakers of a name, newest first. Requires the lock."""
        return [breaker for ref in self._chain(name) if (breaker := ref()) is not None]

    def _chain(self, name: str) -> list[_Ref[G]]:
        chain = []
        ref = self._newest.get(name)
        while ref is not None:
            chain.append(ref)
            ref = ref.older
        return chain

    def _by_name(self) -> dict[str, list[G]]:
        with self._lock:
            # A list of the names, because a finalizer may create a breaker in the meantime.
            by_name = {name: self._living(name) for name in list(self._newest)}
            # After that: a breaker that is freed in between is missing from `by_name`, but counted.
            self._keep_counters()
        return {name: breakers for name, breakers in by_name.items() if breakers}

    def _snapshot(self, name: str, breakers: list[G]) -> CircuitSnapshot:
        snapshot = reduce(CircuitSnapshot.plus, [breaker.snapshot() for breaker in breakers])
        retired = self._retired.get(name)
        return snapshot if retired is None else snapshot.plus(retired)

    def _keep_counters(self) -> None:
        """Add up the counters of breakers that were freed. Requires the lock."""
        if self._is_collecting:
            return  # A finalizer has interrupted this method in the same thread.
        self._is_collecting = True
        try:
            while self._freed:
                self._keep_counters_of(self._freed.popleft().name)
        finally:
            self._is_collecting = False
        while len(self._remembered) > REMEMBERED_NAMES:
            self._remembered.popitem(last=False)

    def _keep_counters_of(self, name: str) -> None:
        living: _Ref[G] | None = None
        for ref in reversed(self._chain(name)):
            if ref() is not None:
                ref.older = living
                living = ref
                continue
            counts = snapshot_of(name, ref.machine, 0.0).lifetime_counts()
            retired = self._retired.get(name)
            self._retired[name] = counts if retired is None else retired.plus(counts)
        if living is not None:
            self._newest[name] = living
        elif self._newest.pop(name, None) is not None:
            self._remembered[name] = self._retired.pop(name)


_registries: "weakref.WeakSet[Registry[Any]]" = weakref.WeakSet()


def all_registries() -> list[Registry[Any]]:
    """Every registry of the process that is in use."""
    return list(_registries)


def _renew_locks() -> None:
    for registry in all_registries():
        registry.renew_lock()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not have it.
    os.register_at_fork(after_in_child=_renew_locks)
