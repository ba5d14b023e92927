"""How clients of the chaos test read the ledger of the service."""

import asyncio
from uuid import UUID

import httpx
import pytest

from tests.chaos.clients import Clients
from tests.chaos.ledgers import Ledgers, Order

ORDER = Order(key="k", customer_id="c", amount=1250, currency="EUR")
PAYMENT = {
    "id": str(UUID(int=1)),
    "status": "succeeded",
    "amount": 1250,
    "currency": "EUR",
    "customer_id": "c",
    "failure_reason": None,
}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long clients have waited; they do not wait really."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return waits


def clients(*responses: httpx.Response) -> Clients:
    """Clients of a service with these responses, one after the other."""
    coming = iter(responses)
    clients = Clients(["http://test"], 1, 60.0, Ledgers(orders={"k": ORDER}))
    clients._http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: next(coming)))
    return clients


async def test_a_page_is_asked_for_again_when_the_service_says_so(waits: list[float]) -> None:
    """A circuit of the database that the last crash has opened is no fault."""
    later = httpx.Response(503, headers={"Retry-After": "3"})
    page = httpx.Response(200, json={"items": [PAYMENT], "next_cursor": None})

    [payment] = await clients(later, page).payments()

    assert payment.id == PAYMENT["id"]
    assert waits == [3.0]


async def test_a_page_with_another_error_ends_the_run() -> None:
    """Nothing can be said without the ledger."""
    with pytest.raises(httpx.HTTPStatusError):
        await clients(httpx.Response(500, request=httpx.Request("GET", "http://test"))).payments()


@pytest.mark.usefixtures("waits")
async def test_an_order_is_closed_with_a_definite_answer() -> None:
    """One that says to try again is none."""
    asked = clients(httpx.Response(503, json={}), httpx.Response(201, json=PAYMENT))

    await asked.repeat_all()

    assert asked._ledgers.closing_answers["k"].status == 201
