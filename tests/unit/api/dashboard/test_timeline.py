"""The entries of the timeline."""

from datetime import UTC, datetime

import pytest

from example_service.api.breakers.views import Transition
from example_service.api.dashboard.timeline import Entry, timeline
from example_service.infra.resilience import CircuitState, Mode, Order
from example_service.infra.resilience.rules.states import CausedBy

START = datetime(2026, 1, 2, 3, 4, tzinfo=UTC).timestamp()


def order(second: float, mode: Mode | None, seconds: float | None = None) -> Order:
    """An order for the circuit `payment`."""
    at = datetime.fromtimestamp(START + second, UTC)
    return Order(at, "payment", mode, "maintenance", seconds)


def change(
    second: float, caused_by: CausedBy, name: str = "payment", worker: int = 1
) -> Transition:
    """A change of state."""
    return Transition(
        at=datetime.fromtimestamp(START + second, UTC).isoformat(),
        worker=worker,
        breaker_name=name,
        from_state=CircuitState.CLOSED,
        to_state=CircuitState.OPEN,
        reason="a reason of any words",
        caused_by=caused_by,
        wait_seconds=30.0,
        failure_count=5,
        rejections=0,
    )


def shown(entries: list[Entry]) -> list[tuple[float, str, str | None]]:
    """When each entry happened, what it is, and its mode or new state."""
    return [
        (entry["at"] - START, entry.get("order", "change"), entry.get("mode") or entry.get("to"))
        for entry in entries
    ]


@pytest.mark.parametrize("mode", list(Mode))
def test_each_mode_and_its_end_and_each_reset_has_an_entry(mode: Mode) -> None:
    """The end of a mode that was set for some time has one too, at the time when it ended."""
    orders = [order(30, None), order(10, mode, 5)]

    assert shown(timeline([], orders, START + 12)) == [(30, "reset", None), (10, "set", mode.value)]
    assert shown(timeline([], orders, START + 60)) == [
        (30, "reset", None),
        (15, "ended", mode.value),
        (10, "set", mode.value),
    ]


def test_a_mode_that_was_replaced_or_reset_has_no_end_of_its_own() -> None:
    """The entry of the later order says that it has ended."""
    orders = [order(9, None), order(5, Mode.SHADOW, 60), order(0, Mode.DISABLED, 60)]

    assert shown(timeline([], orders, START + 100)) == [
        (9, "reset", None),
        (5, "set", "shadow"),
        (0, "set", "disabled"),
    ]


def test_an_order_that_several_workers_carry_out_has_one_entry() -> None:
    """Also if one of them has started since, and carries out what still applies."""
    orders = [
        order(0, Mode.FORCED_OPEN, 60),
        order(0.3, Mode.FORCED_OPEN, 59.7),
        order(40, Mode.FORCED_OPEN, 20),
        order(50, None),
        order(50.2, None),
        order(70, Mode.SHADOW),
        order(99, Mode.SHADOW),
    ]

    assert shown(timeline([], orders, START + 100)) == [
        (70, "set", "shadow"),
        (50, "reset", None),
        (0, "set", "forced_open"),
    ]


def test_an_order_that_is_given_again_has_another_entry() -> None:
    """It prolongs the mode, or follows a reset."""
    orders = [order(0, Mode.DISABLED, 60), order(9, Mode.DISABLED, 60), order(20, None)]
    orders += [order(30, Mode.DISABLED), order(40, None), order(50, Mode.DISABLED)]

    assert [at for at, *_ in shown(timeline([], orders, START + 60))] == [50, 40, 30, 20, 9, 0]


def test_a_change_of_state_by_an_order_has_no_entry_beside_that_of_the_order() -> None:
    """Each worker reports such a change, so there would be several of them."""
    orders = [order(10, Mode.FORCED_OPEN)]
    transitions = [
        change(10.1, "operator", worker=2),
        change(10.0, "operator", worker=1),
    ]

    assert shown(timeline(transitions, orders, START + 20)) == [(10, "set", "forced_open")]


@pytest.mark.parametrize(
    "transition",
    [
        change(10, "rules"),
        change(10, "operator", name="search"),
        change(60, "operator"),
    ],
)
def test_other_changes_of_state_keep_their_entries(transition: Transition) -> None:
    """Also those that code has caused by hand, which is no order."""
    entries = timeline([transition], [order(10, Mode.FORCED_OPEN)], START + 70)

    assert sorted(what for _, what, _ in shown(entries)) == ["change", "set"]
