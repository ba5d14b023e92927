"""One circuit in one member: which openings it reports to the fleet."""

import tracemalloc

import pytest

from example_service.infra.fleet.gates import Gates
from example_service.infra.fleet.participant import Participant, Rules
from example_service.infra.fleet.record import Order, Record

RULES = Rules(recovery_timeout=60.0, success_threshold=2, half_open_max_calls=3, probe_timeout=60.0)
CLOSED_AT = 5_000_000
EARLIER = 2_000_000


@pytest.fixture
def participant() -> Participant:
    """A member that heard at second 10 of its own clock that the fleet has closed the circuit."""
    participant = Participant("a")
    participant.connected(0.0, 1_000, RULES)
    participant.receive(Record(2, closed_at=CLOSED_AT), 10.0, CLOSED_AT)
    return participant


def trip(participant: Participant, at: float, now: int) -> None:
    """A breaker opens at this time on the member's clock and on its estimate of the store's."""
    participant.opened(
        at, now, RULES, wait_seconds=60.0, reason="5 failures in a row", reopenings=0, lease_id=None
    )


@pytest.mark.parametrize("now", [CLOSED_AT - 3, CLOSED_AT, CLOSED_AT + 1])
def test_an_opening_right_after_a_close_opens_the_fleet(participant: Participant, now: int) -> None:
    """The estimate of the store's clock may be too early by the time that an answer takes."""
    trip(participant, 10.0004, now)

    change = participant.next_change(now)
    assert change is not None
    assert change.is_open


def test_an_opening_before_a_close_does_not_open_the_fleet(participant: Participant) -> None:
    """A process that was suspended may report it long after the others have recovered."""
    trip(participant, 9.9, CLOSED_AT - 100)

    assert participant.next_change(CLOSED_AT) is None


def test_an_opening_before_a_reconnection_is_dated_by_the_new_store(
    participant: Participant,
) -> None:
    """The store may have moved to a machine whose clock is behind."""
    trip(participant, 11.0, CLOSED_AT + 1_000)
    participant.disconnected()
    participant.receive(Record(3), 12.0, EARLIER)
    participant.connected(12.0, EARLIER, RULES)

    change = participant.next_change(EARLIER)
    assert change is not None
    assert change.opened_at == EARLIER - 1_000


def test_a_record_that_was_not_written_back_is_not_forgotten(participant: Participant) -> None:
    """A store may lose its data, and fail again before a process has written the record back."""
    order = Order("1", "forced_open", "maintenance", None)
    known = Record(3, is_open=True, until=None, order=order)
    participant.receive(known, 11.0, CLOSED_AT + 1)

    participant.restore(known, Record())
    participant.disconnected()
    assert participant.record == known


def test_a_circuit_needs_less_than_a_kilobyte() -> None:
    """A process may take part with ten thousand circuits."""
    names = [f"{number}" for number in range(1000)]
    gates = Gates(lambda _: None, lambda *_: None)
    tracemalloc.start()
    circuits = [(Participant("a"), gates.get_or_create(name)) for name in names]
    needed, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert needed / len(circuits) < 1024
