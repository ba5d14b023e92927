"""Export metrics of circuit breakers from other libraries.

The breakers of `example_service.infra.resilience` are exported without this module. It is for
breakers of another library, or in another process that reports to this one. They are exported in
the same metric families. If a reported circuit has the same name as one of our breakers, their
counts are added and the worse state is exported.
"""

import logging
import threading
from collections import Counter
from typing import Final

from example_service.infra.resilience import CircuitSnapshot, CircuitState

logger = logging.getLogger(__name__)

MAX_TRACKED_NAMES: Final = 1000


class TrackedCircuits:
    """The metrics of reported circuits. Thread-safe.

    Args:
        max_names: The most names that are exported until the process ends. Reports under further
            names are dropped, and one warning is logged.
    """

    def __init__(self, *, max_names: int = MAX_TRACKED_NAMES) -> None:
        self._max_names = max_names
        self._circuits: dict[str, _TrackedCircuit] = {}
        self._lock = threading.Lock()
        self._warned = False

    def failure(self, name: str) -> None:
        """Count a failed call of the circuit `name`."""
        with self._lock:
            if circuit := self._circuit(name):
                circuit.failures += 1

    def success(self, name: str) -> None:
        """Count a successful call of the circuit `name`."""
        with self._lock:
            if circuit := self._circuit(name):
                circuit.successes += 1

    def state_change(self, name: str, from_state: CircuitState, to_state: CircuitState) -> None:
        """Count a state change of the circuit `name`, and export `to_state`."""
        with self._lock:
            if circuit := self._circuit(name):
                circuit.state_changes[from_state, to_state] += 1
                circuit.state = to_state

    def state(self, name: str, state: CircuitState) -> None:
        """Export `state` as the state of the circuit `name`."""
        with self._lock:
            if circuit := self._circuit(name):
                circuit.state = state

    def snapshots(self) -> list[CircuitSnapshot]:
        """The current metrics of each circuit."""
        with self._lock:
            return [
                CircuitSnapshot(
                    name=name,
                    state=circuit.state,
                    failures=circuit.failures,
                    successes=circuit.successes,
                    rejections=0,
                    in_flight=0,
                    state_changes=dict(circuit.state_changes),
                )
                for name, circuit in self._circuits.items()
            ]

    def _circuit(self, name: object) -> "_TrackedCircuit | None":
        """The circuit called `name`; None if there are too many names. Requires the lock."""
        if not (isinstance(name, str) and name):
            message = f"name must be a text that is not empty, not {name!r}"
            raise ValueError(message)
        circuit = self._circuits.get(name)
        if circuit is None and len(self._circuits) < self._max_names:
            circuit = self._circuits[name] = _TrackedCircuit()
        if circuit is None and not self._warned:
            self._warned = True
            logger.warning(
                "More than %d circuit breaker names were reported; further ones are not exported. "
                "Name breakers after dependencies, not after requests or users.",
                self._max_names,
            )
        return circuit


class _TrackedCircuit:
    """The reports on one circuit so far."""

    __slots__ = ("failures", "state", "state_changes", "successes")

    def __init__(self) -> None:
        self.state = CircuitState.CLOSED
        self.failures = 0
        self.successes = 0
        self.state_changes: Counter[tuple[CircuitState, CircuitState]] = Counter()


tracked_circuits = TrackedCircuits()


def track_circuit_breaker_failure(name: str) -> None:
    """Count a failed call of a circuit breaker that is not one of ours.

    Our own breakers are counted without this.

    Args:
        name: The `name` label, from a small fixed set.

    Raises:
        ValueError: `name` is empty or not a string.
    """
    tracked_circuits.failure(name)


def track_circuit_breaker_success(name: str) -> None:
    """Count a successful call of a circuit breaker that is not one of ours.

    Our own breakers are counted without this.

    Args:
        name: The `name` label, from a small fixed set.

    Raises:
        ValueError: `name` is empty or not a string.
    """
    tracked_circuits.success(name)


def track_circuit_breaker_state_change(
    name: str, from_state: CircuitState | str, to_state: CircuitState | str
) -> None:
    """Count a state change of a circuit breaker that is not one of ours, and export the new state.

    Our own breakers are counted without this.

    Args:
        name: The `name` label, from a small fixed set.
        from_state: The state before: `closed`, `open` or `half_open`.
        to_state: The state after.

    Raises:
        ValueError: `name` is empty or not a string, or a state is not one of the three.
    """
    tracked_circuits.state_change(
        name, _state("from_state", from_state), _state("to_state", to_state)
    )


def update_circuit_breaker_state(name: str, state: CircuitState | str) -> None:
    """Export the state of a circuit breaker that is not one of ours, without counting a change.

    Our own breakers are exported without this.

    Args:
        name: The `name` label, from a small fixed set.
        state: The state: `closed`, `open` or `half_open`.

    Raises:
        ValueError: `name` is empty or not a string, or `state` is not one of the three.
    """
    tracked_circuits.state(name, _state("state", state))


def _state(parameter: str, value: CircuitState | str) -> CircuitState:
    try:
        return CircuitState(value)
    except ValueError:
        known = ", ".join(repr(str(state)) for state in CircuitState)
        message = f"{parameter} must be one of {known}, not {value!r}"
        raise ValueError(message) from None
