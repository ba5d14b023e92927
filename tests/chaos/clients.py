"""The load: clients that order payments and repeat each order until it is settled."""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import httpx

from example_service.sandbox.charges import DECLINED_CUSTOMER_ID
from tests.chaos.ledgers import PAYMENTS, Answer, Ledgers, Order, Payment

_PATH: Final = "/api/v1/payments"
_CURRENCIES: Final = ("EUR", "GBP", "JPY", "USD")
_SHARE_DECLINED: Final = 0.1
_SHARE_SENT_TWICE: Final = 0.15
_SHARE_REPEATED: Final = 0.1
_SHARE_ALTERED: Final = 0.1
_DEFINITE: Final = frozenset({201, 202, 402, 409, 502})
_THINKING_SECONDS: Final = (0.1, 0.9)
_WAITING_SECONDS: Final = (0.1, 0.6)
_PAGE: Final = 100
_CLOSING_CLIENTS: Final = 8
_CLOSING_ATTEMPTS: Final = 60


class Clients:
    """Order payments over real HTTP, and record every answer.

    A client that gets no answer, or is asked to try again, sends the same order with the same key
    until it has a definite answer. Some orders are sent twice at once, some are repeated after
    their answer, and some keys are reused for another amount.

    Args:
        urls: The URLs of the replicas, which get the requests in turn.
        seed: Decides what is ordered, but not when.
        limit_seconds: The time after which a client gives a request up.
        ledgers: Receives the orders and the answers.
    """

    def __init__(
        self, urls: Sequence[str], seed: int, limit_seconds: float, ledgers: Ledgers
    ) -> None:
        self.in_flight = 0
        self._seed = seed
        self._limit_seconds = limit_seconds
        self._ledgers = ledgers
        self._requests = itertools.count(1)
        self._urls = itertools.cycle(urls)
        self._http = httpx.AsyncClient(
            trust_env=False,
            timeout=limit_seconds,
            limits=httpx.Limits(max_connections=None),
        )

    async def run(self, count: int, stopped: asyncio.Event) -> None:
        """Let that many clients order until the event is set, and then settle their orders."""
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._order_on(number, stopped))

    async def repeat_all(self) -> None:
        """Send every order one more time."""
        orders = iter(list(self._ledgers.orders.values()))

        async def repeat() -> None:
            for order in orders:
                self._ledgers.closing_answers[order.key] = await self._send_until_definite(order)

        async with asyncio.TaskGroup() as group:
            for _ in range(_CLOSING_CLIENTS):
                group.create_task(repeat())

    async def payments(self) -> list[Payment]:
        """List all payments of the service, page by page."""
        payments: list[Payment] = []
        parameters: dict[str, str | int] = {"limit": _PAGE}
        while True:
            page = (await self._get(parameters)).json()
            payments += PAYMENTS.validate_python(page["items"])
            if page["next_cursor"] is None:
                return payments
            parameters["cursor"] = page["next_cursor"]

    async def _get(self, parameters: dict[str, str | int]) -> httpx.Response:
        """Request a page, and retry whenever the service asks for that."""
        for _ in range(_CLOSING_ATTEMPTS):
            response = await self._http.get(next(self._urls) + _PATH, params=parameters)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            await asyncio.sleep(float(response.headers["Retry-After"]))
        return response.raise_for_status()

    async def _send_until_definite(self, order: Order) -> Answer:
        for _ in range(_CLOSING_ATTEMPTS):
            answer = await self._send(order)
            if answer.status in _DEFINITE:
                break
            await asyncio.sleep(_WAITING_SECONDS[1])
        return answer

    async def aclose(self) -> None:
        """Close their connections."""
        await self._http.aclose()

    async def _order_on(self, number: int, stopped: asyncio.Event) -> None:
        chance = random.Random(f"{self._seed}/client/{number}")
        for count in itertools.count(1):
            if stopped.is_set():
                return
            order = _draw(f"{self._seed}-{number}-{count}", chance)
            self._ledgers.orders[order.key] = order
            await self._have_paid(order, chance)
            await asyncio.sleep(chance.uniform(*_THINKING_SECONDS))

    async def _have_paid(self, order: Order, chance: random.Random) -> None:
        twice = chance.random() < _SHARE_SENT_TWICE
        repeated = chance.random() < _SHARE_REPEATED
        altered = chance.random() < _SHARE_ALTERED
        attempts = [self._settle(order, chance) for _ in range(2 if twice else 1)]
        await asyncio.gather(*attempts)
        if repeated:
            await self._settle(order, chance)
        if altered:
            await self._settle(replace(order, amount=order.amount + 1), chance, is_altered=True)

    async def _settle(
        self, order: Order, chance: random.Random, *, is_altered: bool = False
    ) -> None:
        """Send an order until there is a definite answer."""
        while True:
            answer = await self._send(order, is_altered=is_altered)
            self._ledgers.answers.append(answer)
            if answer.status in _DEFINITE:
                return
            await asyncio.sleep(chance.uniform(*_WAITING_SECONDS))

    async def _send(self, order: Order, *, is_altered: bool = False) -> Answer:
        request_id = f"chaos-{next(self._requests)}"
        began = time.monotonic()
        status, payment_id, error = None, None, ""
        self.in_flight += 1
        try:
            async with asyncio.timeout(self._limit_seconds):
                response = await self._http.post(
                    next(self._urls) + _PATH,
                    json={
                        "customer_id": order.customer_id,
                        "amount": order.amount,
                        "currency": order.currency,
                    },
                    headers={"Idempotency-Key": order.key, "X-Request-ID": request_id},
                )
            status, payment_id = response.status_code, _payment_id(response.json())
        except (TimeoutError, httpx.TimeoutException):
            error = "gave up"
        except httpx.TransportError as broken:
            error = type(broken).__name__
        finally:
            self.in_flight -= 1
        seconds = time.monotonic() - began
        return Answer(order.key, request_id, status, seconds, payment_id, is_altered, error)


def _draw(key: str, chance: random.Random) -> Order:
    declined = chance.random() < _SHARE_DECLINED
    return Order(
        key=key,
        customer_id=DECLINED_CUSTOMER_ID if declined else f"customer-{key}",
        amount=chance.randrange(100, 1_000_000),
        currency=chance.choice(_CURRENCIES),
    )


def _payment_id(body: dict[str, Any]) -> str | None:
    """The payment that an answer or a problem refers to."""
    return body.get("payment_id") or body.get("id")
