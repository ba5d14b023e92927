"""The payment API as clients reach it, and input that it must refuse."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import respx
from sqlalchemy import select

from example_service.core.settings import Settings
from example_service.core.settings.breakers import CircuitBreakerSettings
from example_service.core.settings.model import DatabaseSettings, LogSettings
from example_service.infra.database.database import Database
from example_service.main import create_app
from example_service.migrations import upgrade
from example_service.payments.models import Payment
from example_service.payments.settings import PaymentProviderSettings

PATH: Final = "/api/v1/payments"
KEY: Final = b"Idempotency-Key"
JSON: Final = b"application/json"
PROVIDER_URL: Final = "http://provider.test"
GOOD_ORDER: Final = {"amount": 1250, "currency": "EUR", "customer_id": "customer-7"}

REFUSED_KEYS: Final = {
    "empty": b"",
    "blank": b"   ",
    "too long": b"k" * 256,
    "space inside": b"two words",
    "tab": b"two\twords",
    "NUL": b"key\0",
    "control character": b"key\x1b[31m",
    "delete": b"key\x7f",
    "line break at its end": b"key\n",
    "Latin-1": b"cl\xe9",
    "no-break space": b"key\xa0",
    "emoji": "key💸".encode(),
    "bad UTF-8": b"key\xc0\x80",
}
_REFUSED_AMOUNTS: Final = (
    *("0", "-0", "-1", "100000000", "1" + "0" * 30, "-1" + "0" * 30, "1" * 5000),
    *("1.0", "1.5", "1e2", "1E400", "-1e400", "NaN", "Infinity", "-Infinity"),
    *(
        '"5"',
        '""',
        "true",
        "false",
        "null",
        "[]",
        "[5]",
        "{}",
        "01",
        "+1",
        "0x10",
        "1_000",
        "\u0665",
    ),
)
_REFUSED_CURRENCIES: Final = (
    *("eur", "EU", "EURO", "", " EUR", "EUR ", "EUR\n", "EUR\0", "\0\0\0"),
    # Codes of metals, test codes and codes that are no longer used.
    *("XAU", "XTS", "XXX", "DEM"),
    # Cyrillic, fullwidth and combining look-alikes.
    *("\u0415UR", "\uff25\uff35\uff32", "E\u0301UR"),
)
_REFUSED_CUSTOMERS: Final = (
    *("", " ", "a b", "a\0b", "\0", "a\n", "\ta", "a" * 65, "a" * 100_000, "-a", "_a", "."),
    *("' OR 1=1 --", "a; DROP TABLE payments", "${jndi:ldap://a}", "../a", "a/b", "<b>", "%00"),
    # Direction overrides, zero-width, byte order mark, combining, fullwidth and other scripts.
    *("a\u202eb", "a\u200db", "\ufeffa", "e\u0301", "\uff41", "\u0130", "\ufdfa"),
    *("a\u00ad", "💸", "\U000e0061"),
)


def _body(**members: str) -> bytes:
    """An order with the given JSON members."""
    whole = {name: json.dumps(value) for name, value in GOOD_ORDER.items()} | members
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in whole.items()) + "}").encode()


_GOOD: Final = _body()

REFUSED_BODIES: Final = {
    **{f"amount {text[:12]}": _body(amount=text) for text in _REFUSED_AMOUNTS},
    **{f"currency {text!a}": _body(currency=json.dumps(text)) for text in _REFUSED_CURRENCIES},
    **{
        f"customer {text[:24]!a}": _body(customer_id=json.dumps(text))
        for text in _REFUSED_CUSTOMERS
    },
    "lone surrogate": _body(customer_id='"a\\ud800"'),
    "surrogates in reverse": _body(customer_id='"\\ude00\\ud83d"'),
    "surrogate in UTF-8": b'{"amount": 1, "currency": "EUR", "customer_id": "\xed\xa0\x80"}',
    "overlong UTF-8": b'{"amount": 1, "currency": "EUR", "customer_id": "\xc0\x80"}',
    "bare NUL": b'{"amount": 1, "currency": "EUR", "customer_id": "a\0"}',
    "bare line break": b'{"amount": 1, "currency": "EUR", "customer_id": "a\n"}',
    "null as a member": _body(currency="null"),
    "member of another type": _body(customer_id='{"$gt": ""}'),
    "unknown member": _body(status='"succeeded"'),
    "unknown member without a name": _body(**{"": "1"}),
    "prototype": _body(__proto__="{}"),
    "member with another case": _body(Amount="1"),
    "missing member": b'{"amount": 1, "currency": "EUR"}',
    "last of two members": b'{"amount": 1, "currency": "EUR", "customer_id": "a", "amount": 0}',
    "nothing": b"",
    "blanks": b" \t ",
    "null": b"null",
    "a list": b"[" + _GOOD + b"]",
    "text": b'"order"',
    "NaN": b"NaN",
    "twice": _GOOD + _GOOD,
    "more after it": _GOOD + b"\0",
    "half of it": _GOOD[:-9],
    "a comment": b"/* */" + _GOOD,
    "a form": b"amount=1250&currency=EUR&customer_id=customer-7",
    "deep list": b"[" * 100_000,
    "deep member": _body(amount="[" * 50_000 + "]" * 50_000),
    "deep unknown member": _body(more='{"a":' * 50_000 + "1" + "}" * 50_000),
    "compressed": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "Latin-1": '{"amount": 1, "currency": "EUR", "customer_id": "é"}'.encode("latin-1"),
}
"""Bodies that are no acceptable order, sent as JSON."""


class PaymentAPI:
    """The whole application in this process, with a provider that charges everything.

    Attributes:
        client: A client that sends header values unchanged.
        charged: The charges of the provider.
    """

    def __init__(self, client: httpx.AsyncClient, database: Database) -> None:
        self.client = client
        self.charged: list[dict[str, Any]] = []
        self._database = database

    async def order(
        self,
        body: bytes | dict[str, Any],
        *keys: bytes,
        content_type: bytes | None = JSON,
    ) -> httpx.Response:
        """Send an order with any number of keys."""
        headers = [(KEY, key) for key in keys]
        if content_type is not None:
            headers.append((b"Content-Type", content_type))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(PATH, content=content, headers=headers)

    async def stored(self) -> dict[str, dict[str, Any]]:
        """The orders in the database, by their idempotency key."""
        async with self._database.transaction() as session:
            payments = await session.scalars(select(Payment))
            return {payment.idempotency_key: payment.order.model_dump() for payment in payments}

    def charge(self, request: httpx.Request) -> httpx.Response:
        """The provider's response to a charge."""
        order = json.loads(request.content)
        key = request.headers["Idempotency-Key"]
        self.charged.append(order)
        charged = {"id": "ch_1", "idempotency_key": key, "status": "succeeded", **order}
        return httpx.Response(201, json=charged)


@asynccontextmanager
async def running_payment_api() -> AsyncIterator[PaymentAPI]:
    """The payment API on the database of `DATABASE_URL`, with or without a schema."""
    settings = Settings(
        environment="test",
        log=LogSettings(access=False),
        payment_provider=PaymentProviderSettings(base_url=PROVIDER_URL),
        # On a busy machine, many orders at once take long.
        database=DatabaseSettings(pool_timeout_seconds=60.0, connect_timeout_seconds=60.0),
        circuit_breakers={"database": CircuitBreakerSettings(slow_call_duration=60.0)},
    )
    await upgrade(settings)
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service.test") as client,
    ):
        api = PaymentAPI(client, app.state.services.database)
        with respx.mock(base_url=PROVIDER_URL, assert_all_called=False) as provider:
            provider.post("/v1/charges").mock(side_effect=api.charge)
            yield api
