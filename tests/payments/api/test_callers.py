"""Payments of several callers: which of them a caller sees, and whose keys are whose."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import respx
from sqlalchemy import text

from example_service.core.digests import digest
from example_service.core.settings import Settings
from example_service.core.settings.model import APISettings
from example_service.infra.database.database import open_database
from example_service.main import create_app
from example_service.payments.settings import PaymentProviderSettings
from tests.application import Serve
from tests.docs.pages import ROOT
from tests.payments.api.orders import ORDER, PAYMENTS, PROVIDER_URL, charge_of

KEYS = {"shop": "the-key-of-the-shop", "market": "the-key-of-the-market"}
ENTRIES = [f"{name}:{digest(key.encode()).hex()}" for name, key in KEYS.items()]

Start = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
def start(settings: Settings, serve: Serve) -> Start:
    """Start the application with the keys of two callers or none, as one of them."""

    async def start(caller: str | None) -> httpx.AsyncClient:
        provider = PaymentProviderSettings(base_url=PROVIDER_URL)
        changes: dict[str, Any] = {"payment_provider": provider}
        if caller is not None:
            changes["api"] = APISettings(keys=ENTRIES)
        client = await serve(create_app(settings.model_copy(update=changes)))
        if caller is not None:
            client.headers["Authorization"] = f"Bearer {KEYS[caller]}"
        return client

    return start


async def pay(client: httpx.AsyncClient, key: str = "k", **changes: Any) -> httpx.Response:
    """Send an order with a key to a healthy provider."""
    with respx.mock(base_url=PROVIDER_URL, assert_all_called=False) as provider:
        provider.post("/v1/charges").mock(side_effect=charge_of)
        return await client.post(
            PAYMENTS, json={**ORDER, **changes}, headers={"Idempotency-Key": key}
        )


async def ids(client: httpx.AsyncClient) -> list[str]:
    """The payments that a caller sees, newest first."""
    page = (await client.get(PAYMENTS)).json()
    return [payment["id"] for payment in page["items"]]


async def test_a_key_belongs_to_its_caller(start: Start) -> None:
    """If two callers use the same key, each gets its own payment."""
    shop, market = await start("shop"), await start("market")

    first, other = await pay(shop), await pay(market, amount=99)
    again = await pay(shop)

    assert (first.status_code, other.status_code, again.status_code) == (201, 201, 201)
    assert again.json() == first.json() != other.json()
    assert (await pay(shop, amount=99)).status_code == 409


async def test_a_payment_does_not_exist_for_another_caller(start: Start) -> None:
    """It can be neither read nor listed, nor used as a cursor."""
    shop, market = await start("shop"), await start("market")
    mine, foreign = (await pay(shop)).json()["id"], (await pay(market)).json()["id"]

    read = await market.get(f"{PAYMENTS}/{mine}")
    page = await market.get(PAYMENTS, params={"cursor": mine})

    assert (read.status_code, read.json()["type"]) == (404, "/problems/unknown-payment")
    assert (page.status_code, page.json()["type"]) == (404, "/problems/unknown-payment")
    assert (await ids(shop), await ids(market)) == ([mine], [foreign])


async def test_an_order_from_before_there_were_keys_is_not_paid_twice(start: Start) -> None:
    """Repeated with an API key, it stays one payment, which then belongs to the caller."""
    nobody = await start(None)
    before = (await pay(nobody)).json()

    shop, market = await start("shop"), await start("market")
    unseen = await ids(shop)
    repeated = (await pay(shop)).json()

    assert unseen == []
    assert repeated == before
    assert await ids(shop) == [before["id"]]
    assert (await pay(market)).json()["id"] != before["id"]


async def test_another_order_with_a_key_without_a_caller_is_a_new_payment(start: Start) -> None:
    """The keys match by coincidence, and the old payment still has no caller."""
    before = (await pay(await start(None))).json()
    shop = await start("shop")

    other = await pay(shop, amount=99)
    own = await pay(shop)

    assert other.status_code == 201
    assert own.status_code == 409
    assert await ids(shop) == [other.json()["id"]] != [before["id"]]


async def test_payments_without_a_caller_can_be_given_to_one(
    start: Start, settings: Settings
) -> None:
    """The statement in docs/payments.md assigns them."""
    before = (await pay(await start(None))).json()
    page = (ROOT / "docs" / "payments.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("`UPDATE payments ")
    async with open_database(settings) as database, database.transaction() as session:
        await session.execute(text("UPDATE payments " + rest.partition("`")[0]))

    assert await ids(await start("shop")) == [before["id"]]
