"""How clients of the chaos test read the service's list of payments."""

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
    """The waits of clients, which do not really sleep."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return waits


def clients(*responses: httpx.Response) -> Clients:
    """Clients of a service that sends these responses in turn."""
    coming = iter(responses)
    clients = Clients(["http://test"], 1, 60.0, Ledgers(orders={"k": ORDER}))
    clients._http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: next(coming)))
    return clients


async def test_a_page_is_retried_when_the_service_asks_for_that(waits: list[float]) -> None:
    """A database circuit may still be open after the last crash."""
    later = httpx.Response(503, headers={"Retry-After": "3"})
    page = httpx.Response(200, json={"items": [PAYMENT], "next_cursor": None})

    [payment] = await clients(later, page).payments()

    assert payment.id == PAYMENT["id"]
    assert waits == [3.0]


async def test_a_page_with_another_error_ends_the_run() -> None:
    """Without the list of payments there can be no verdict."""
    with pytest.raises(httpx.HTTPStatusError):
        await clients(httpx.Response(500, request=httpx.Request("GET", "http://test"))).payments()


@pytest.mark.usefixtures("waits")
async def test_an_order_is_closed_with_a_definite_answer() -> None:
    """An answer that asks to try again is not definite."""
    asked = clients(httpx.Response(503, json={}), httpx.Response(201, json=PAYMENT))

    await asked.repeat_all()

    assert asked._ledgers.closing_answers["k"].status == 201
