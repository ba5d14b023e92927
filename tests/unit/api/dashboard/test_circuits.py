"""What the page is sent of one circuit."""

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
def test_an_open_circuit_shows_whose_verdict_it_is(
    record: Record, shown: tuple[str, str | None]
) -> None:
    """And which process opened it for all."""
    circuit_breaker_registry.get_or_create("payment").follow(CircuitState.OPEN, "5 failures", 30.0)
    assert _verdict({"payment": record}) == shown


def test_a_process_that_is_alone_shows_no_verdict() -> None:
    """There is nobody whose it could be."""
    circuit_breaker_registry.get_or_create("payment").follow(CircuitState.OPEN, "5 failures", 30.0)
    assert _verdict(None) == (None, None)


def _verdict(records: dict[str, Record] | None) -> tuple[Any, Any]:
    breakers = breaker_metrics()
    if records is not None:
        add_verdicts(breakers, records)
    history = CircuitHistory("open", 0.0, (0, 0, 0))
    view = circuit_view("payment", breakers["payment"], None, history, 0.0)
    return view["verdict"], view["openedBy"]
