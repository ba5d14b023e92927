"""What the dashboard shows of one circuit."""

from typing import Any

import pytest

from example_service.api.breakers.views import add_verdicts, breaker_metrics
from example_service.api.dashboard.circuits import circuit_view
from example_service.api.dashboard.history import CircuitHistory
from example_service.infra.fleet.record import Record
from example_service.infra.resilience import CircuitState, circuit_breaker_registry

OPEN = Record(version=1, is_open=True, opener="web-1-4711")


@pytest.mark.parametrize(
    ("record", "shown"),
    [(OPEN, ("fleet", "web-1-4711")), (Record(version=2), ("own", None))],
    ids=["of the fleet", "its own"],
)
def test_an_open_circuit_shows_whether_the_fleet_opened_it(
    record: Record, shown: tuple[str, str | None]
) -> None:
    """It also shows which process opened it for all."""
    circuit_breaker_registry.get_or_create("payment").follow(CircuitState.OPEN, "5 failures", 30.0)
    assert _verdict({"payment": record}) == shown


def test_a_process_outside_a_fleet_shows_no_verdict() -> None:
    """There is no fleet that could have opened the circuit."""
    circuit_breaker_registry.get_or_create("payment").follow(CircuitState.OPEN, "5 failures", 30.0)
    assert _verdict(None) == (None, None)


def _verdict(records: dict[str, Record] | None) -> tuple[Any, Any]:
    breakers = breaker_metrics()
    if records is not None:
        add_verdicts(breakers, records)
    history = CircuitHistory("open", 0.0, (0, 0, 0))
    view = circuit_view("payment", breakers["payment"], None, history, 0.0)
    return view["verdict"], view["openedBy"]
