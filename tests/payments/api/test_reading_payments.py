"""Payments that are read again: one by its ID, or all of them page by page."""

from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from example_service.core.settings import Settings
from example_service.infra.database.database import open_database
from tests.payments.api.orders import PAYMENTS, Pay, problem


class TestWordsOfNewerVersions:
    """Words that a newer version stored, for example before a rollback."""

    @pytest.fixture
    async def payment_id(self, pay: Pay, settings: Settings) -> str:
        """A payment with a status that this version does not know."""
        payment_id: str = (await pay()).json()["id"]
        async with open_database(settings) as database, database.transaction() as session:
            change = "UPDATE payments SET status = 'refunded', charge_id = NULL"
            await session.execute(text(change))
        return payment_id

    async def test_they_are_shown_as_they_are(
        self, payment_id: str, client: httpx.AsyncClient
    ) -> None:
        """This applies to a single payment and to the list."""
        one = await client.get(f"{PAYMENTS}/{payment_id}")
        (listed,) = (await client.get(PAYMENTS)).json()["items"]

        assert (one.status_code, one.json()["status"]) == (200, "refunded")
        assert listed == one.json()

    async def test_a_repeated_order_gets_its_payment(self, payment_id: str, pay: Pay) -> None:
        """It is accepted with 202, because this version cannot say more."""
        response = await pay()

        assert (response.status_code, response.json()["status"]) == (202, "refunded")
        assert response.json()["id"] == payment_id

    async def test_an_unknown_reason_is_that_of_a_failure(
        self, pay: Pay, settings: Settings
    ) -> None:
        """The response is the problem of any failed payment."""
        await pay()
        async with open_database(settings) as database, database.transaction() as session:
            change = """
                UPDATE payments
                SET status = 'failed', failure_reason = 'sanctioned', charge_id = NULL
            """
            await session.execute(text(change))
        response = await pay()

        assert problem(response) == (502, "payment-failed")
        assert response.json()["failure_reason"] == "sanctioned"


class TestOnePayment:
    """`GET /api/v1/payments/{payment_id}`."""

    async def test_a_payment_is_shown_as_it_is(self, pay: Pay, client: httpx.AsyncClient) -> None:
        """It looks like the response to its order."""
        report = (await pay()).json()
        response = await client.get(f"{PAYMENTS}/{report['id']}")

        assert (response.status_code, response.json()) == (200, report)

    async def test_an_unknown_id_is_a_problem(self, client: httpx.AsyncClient) -> None:
        """Its type differs from that of a path that does not exist."""
        assert problem(await client.get(f"{PAYMENTS}/{uuid4()}")) == (404, "unknown-payment")

    async def test_an_invalid_id_is_a_problem(self, client: httpx.AsyncClient) -> None:
        """The database is not queried."""
        assert problem(await client.get(f"{PAYMENTS}/payment-7")) == (422, "validation-failed")


class TestPages:
    """`GET /api/v1/payments`."""

    async def test_payments_come_page_by_page(self, pay: Pay, client: httpx.AsyncClient) -> None:
        """They come newest first and once each, even if new ones arrive meanwhile."""
        ids = [(await pay(key=f"k{number}")).json()["id"] for number in range(5)]
        pages: list[list[str]] = []
        cursor: dict[str, str] = {}
        for number in range(3):
            page = (await client.get(PAYMENTS, params={"limit": 2, **cursor})).json()
            pages.append([item["id"] for item in page["items"]])
            cursor = {"cursor": page["next_cursor"]}
            await pay(key=f"new{number}")

        assert pages == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]
        assert cursor == {"cursor": None}

    async def test_a_page_that_ends_with_the_last_payment_is_the_last(
        self, pay: Pay, client: httpx.AsyncClient
    ) -> None:
        """There is no empty last page."""
        for key in ("a", "b"):
            await pay(key=key)
        page = (await client.get(PAYMENTS, params={"limit": 2})).json()

        assert (len(page["items"]), page["next_cursor"]) == (2, None)

    async def test_twenty_payments_are_on_a_page_unless_said_otherwise(
        self, pay: Pay, client: httpx.AsyncClient
    ) -> None:
        """Payments in all states are listed."""
        for number in range(21):
            await pay(key=f"k{number}")

        assert len((await client.get(PAYMENTS)).json()["items"]) == 20
        assert len((await client.get(PAYMENTS, params={"limit": 100})).json()["items"]) == 21

    async def test_no_payments_are_an_empty_page(self, client: httpx.AsyncClient) -> None:
        """An empty list is not an error."""
        assert (await client.get(PAYMENTS)).json() == {"items": [], "next_cursor": None}

    async def test_an_unknown_cursor_is_a_problem(self, client: httpx.AsyncClient) -> None:
        """The problem names the cursor."""
        response = await client.get(PAYMENTS, params={"cursor": str(uuid4())})

        assert problem(response) == (404, "unknown-payment")
        assert "cursor" in response.json()["detail"]

    @pytest.mark.parametrize(
        "query", [{"limit": "0"}, {"limit": "101"}, {"limit": "secret"}, {"cursor": "secret"}]
    )
    async def test_invalid_parameters_are_a_problem(
        self, query: dict[str, str], client: httpx.AsyncClient
    ) -> None:
        """The database is not queried."""
        response = await client.get(PAYMENTS, params=query)

        assert problem(response) == (422, "validation-failed")
        assert [error["location"] for error in response.json()["errors"]] == [["query", *query]]
