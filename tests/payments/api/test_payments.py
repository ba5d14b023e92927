"""Payments through the whole application with a fake provider, on both databases."""

import json
import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
import respx
from fastapi import FastAPI

from example_service.core.settings import Settings
from example_service.infra.database.database import database_breaker
from example_service.infra.resilience import circuit_breaker_registry
from example_service.infra.resilience.testing import FakeClock, opened
from example_service.main import create_app
from example_service.payments.provider import payment_breaker
from example_service.payments.settings import PaymentProviderSettings
from tests.payments.api.orders import ORDER, PAYMENTS, PROVIDER_URL, Pay, charge_of, problem


def ending(status: int, word: str) -> Callable[[httpx.Request], httpx.Response]:
    """The response of a provider that will never make a charge."""

    def answer(request: httpx.Request) -> httpx.Response:
        key = request.headers["Idempotency-Key"]
        body = {"idempotency_key": key, "status": word, "reason": "secret"}
        return httpx.Response(status, json=body)

    return answer


class TestOrders:
    """`POST /api/v1/payments`."""

    async def test_an_order_is_paid(self, pay: Pay, provider: respx.Route) -> None:
        """The response is the payment with its location; the provider got the order and key."""
        response = await pay()

        report = response.json()
        assert response.status_code == 201
        assert report == {
            **ORDER,
            "id": report["id"],
            "status": "succeeded",
            "failure_reason": None,
            "created_at": report["created_at"],
            "finished_at": report["finished_at"],
        }
        assert response.headers["Location"] == f"{PAYMENTS}/{report['id']}"
        assert "Retry-After" not in response.headers
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", report["created_at"])
        assert report["created_at"] <= report["finished_at"]
        sent = provider.calls.last.request
        assert (sent.headers["Idempotency-Key"], json.loads(sent.content)) == (report["id"], ORDER)

    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(503),
            httpx.Response(200, text="?"),
            httpx.Response(402, html="<title>Please log in</title>"),
            httpx.Response(400, json={"error": "bad request"}),
            httpx.Response(404),
            httpx.ReadTimeout("late"),
        ],
        ids=["failing", "garbled", "portal", "gateway", "nothing", "hanging"],
    )
    async def test_an_order_stays_pending_while_the_provider_fails(
        self, answer: httpx.Response | Exception, pay: Pay, provider: respx.Route
    ) -> None:
        """It is accepted, and the client learns where and when to look again."""
        provider.mock(side_effect=[answer])
        response = await pay()

        report = response.json()
        assert response.status_code == 202
        assert (report["status"], report["failure_reason"], report["finished_at"]) == (
            "pending",
            None,
            None,
        )
        assert response.headers["Location"] == f"{PAYMENTS}/{report['id']}"
        assert response.headers["Retry-After"] == "2"

    async def test_an_order_stays_pending_while_the_circuit_is_open(
        self, pay: Pay, provider: respx.Route
    ) -> None:
        """The provider gets no request, and the client gets no error."""
        with opened(payment_breaker()):
            response = await pay()

        assert (response.status_code, response.json()["status"]) == (202, "pending")
        assert response.headers["Retry-After"] == "2"
        assert not provider.called

    async def test_a_decline_is_a_problem(
        self, pay: Pay, client: httpx.AsyncClient, provider: respx.Route
    ) -> None:
        """It names the payment, which can be read, and is no failure of the provider."""
        provider.mock(side_effect=ending(402, "declined"))
        response = await pay()

        assert problem(response) == (402, "payment-declined")
        body = response.json()
        assert body["failure_reason"] == "declined"
        report = (await client.get(f"{PAYMENTS}/{body['payment_id']}")).json()
        assert (report["status"], report["failure_reason"]) == ("failed", "declined")
        assert payment_breaker().total_failures == 0

    async def test_an_order_that_the_provider_refuses_is_a_problem(
        self, pay: Pay, provider: respx.Route
    ) -> None:
        """It will never be paid, and there is no further attempt."""
        provider.mock(side_effect=ending(422, "refused"))
        response = await pay()

        assert problem(response) == (502, "payment-failed")
        assert response.json()["failure_reason"] == "refused"

    @pytest.mark.parametrize("status", [201, 202, 402, 422])
    async def test_the_same_order_with_its_key_is_answered_alike(
        self, status: int, pay: Pay, provider: respx.Route
    ) -> None:
        """It is not paid a second time."""
        if status == 202:
            provider.respond(503)
        elif status != 201:
            provider.mock(side_effect=ending(status, "declined" if status == 402 else "refused"))
        first, again = [await pay() for _ in range(2)]

        assert first.status_code == again.status_code
        changing = {"request_id"}
        assert {k: v for k, v in first.json().items() if k not in changing} == {
            k: v for k, v in again.json().items() if k not in changing
        }
        assert first.headers.get("Location") == again.headers.get("Location")
        assert provider.call_count == 1

    async def test_another_order_with_a_used_key_is_a_problem(
        self, pay: Pay, provider: respx.Route
    ) -> None:
        """The problem does not reveal the first order."""
        await pay(customer_id="secret")
        response = await pay(amount=1)

        assert problem(response) == (409, "idempotency-key-reused")
        assert provider.call_count == 1

    @pytest.mark.parametrize(
        ("change", "loc"),
        [
            ({"amount": 0}, ["body", "amount"]),
            ({"amount": 12.5}, ["body", "amount"]),
            ({"amount": "secret"}, ["body", "amount"]),
            ({"amount": True}, ["body", "amount"]),
            ({"amount": 10**30}, ["body", "amount"]),
            ({"currency": "eur"}, ["body", "currency"]),
            ({"currency": "XXY"}, ["body", "currency"]),
            ({"customer_id": "secret\u0000"}, ["body", "customer_id"]),
            ({"customer_id": None}, ["body", "customer_id"]),
            ({"secret": 1}, ["body"]),
        ],
        ids=str,
    )
    async def test_an_invalid_order_is_refused(
        self, change: dict[str, Any], loc: list[str], pay: Pay, provider: respx.Route
    ) -> None:
        """Each error has its location but not the value, and nothing is stored."""
        response = await pay(**change)

        assert problem(response) == (422, "validation-failed")
        assert [error["location"] for error in response.json()["errors"]] == [loc]
        assert "secret" not in response.text
        assert not provider.called

    @pytest.mark.parametrize(
        "key", [None, "", "a b", "a" * 256, "ä".encode("latin-1")], ids=lambda key: repr(key)[:9]
    )
    async def test_an_order_needs_a_key(
        self, key: str | bytes | None, client: httpx.AsyncClient, provider: respx.Route
    ) -> None:
        """A key is 1 to 255 visible ASCII characters."""
        headers: Any = {} if key is None else {b"Idempotency-Key": key}
        response = await client.post(PAYMENTS, json=ORDER, headers=headers)

        assert problem(response) == (422, "validation-failed")
        assert not provider.called

    async def test_the_longest_key_is_accepted(self, pay: Pay) -> None:
        """The limit is inclusive."""
        assert (await pay(key="~" * 255)).status_code == 201

    async def test_a_body_that_is_not_json_is_a_problem(
        self, client: httpx.AsyncClient, provider: respx.Route
    ) -> None:
        """Nothing of the body is repeated."""
        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        response = await client.post(PAYMENTS, content=b'{"secret', headers=headers)

        assert problem(response) == (400, "malformed-json")
        assert not provider.called

    async def test_a_charge_id_that_cannot_be_stored_leaves_the_payment_pending(
        self, pay: Pay, provider: respx.Route
    ) -> None:
        """Such a response is unusable, but the next one may be valid."""
        answers = iter(["ch\0", "c" * 256])

        def charge(request: httpx.Request) -> httpx.Response:
            body = charge_of(request).json()
            return httpx.Response(201, json={**body, "id": next(answers)})

        provider.mock(side_effect=charge)
        for key in ("a", "b"):
            response = await pay(key=key)
            assert (response.status_code, response.json()["status"]) == (202, "pending")


class TestWithoutProvider:
    """A service without a configured provider."""

    @pytest.fixture
    def app(self, settings: Settings) -> FastAPI:
        """The application without a provider."""
        return create_app(settings)

    async def test_orders_are_refused_and_payments_are_shown(
        self, client: httpx.AsyncClient
    ) -> None:
        """An order that cannot be charged is not accepted."""
        headers = {"Idempotency-Key": "k"}
        response = await client.post(PAYMENTS, json=ORDER, headers=headers)

        assert problem(response) == (503, "provider-not-configured")
        assert (await client.get(PAYMENTS)).json()["items"] == []


class TestDatabaseOutages:
    """The database does not respond."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The clock of the database's breaker."""
        return FakeClock()

    async def ask_everything(self, client: httpx.AsyncClient, pay: Pay) -> list[httpx.Response]:
        """The responses of all three operations."""
        return [
            await pay(),
            await client.get(PAYMENTS),
            await client.get(f"{PAYMENTS}/{uuid4()}"),
        ]

    async def test_an_open_circuit_is_a_problem(
        self, client: httpx.AsyncClient, pay: Pay, provider: respx.Route, clock: FakeClock
    ) -> None:
        """It names the breaker and the wait, and the provider gets no request."""
        with opened(database_breaker(), retry_after=4.2, clock=clock):
            responses = await self.ask_everything(client, pay)

        assert [problem(response) for response in responses] == [(503, "circuit-breaker-open")] * 3
        assert [response.headers["Retry-After"] for response in responses] == ["5"] * 3
        assert {response.json()["breaker"] for response in responses} == {"database"}
        assert not provider.called

    async def test_a_database_that_fails_is_a_problem_until_the_circuit_opens(
        self, app: FastAPI, client: httpx.AsyncClient, pay: Pay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The client is asked to repeat the order with its key."""

        def refuse(*_: object, **__: object) -> None:
            raise ConnectionRefusedError("secret")

        await app.state.services.database.engine.dispose()
        monkeypatch.setattr(
            app.state.services.database.engine.dialect.loaded_dbapi, "connect", refuse
        )
        responses = [
            response for _ in range(2) for response in await self.ask_everything(client, pay)
        ]

        assert [problem(response) for response in responses] == [
            *[(503, "database-unavailable")] * 3,
            *[(503, "circuit-breaker-open")] * 3,
        ]
        assert responses[0].headers["Retry-After"] == "1"


async def test_the_worker_of_the_application_finishes_what_is_pending(
    settings: Settings, provider: respx.Route
) -> None:
    """No client has to ask for the payment again."""
    answers = iter([httpx.Response(503)])
    provider.mock(side_effect=lambda request: next(answers, None) or charge_of(request))
    changes = {
        "payment_provider": PaymentProviderSettings(base_url=PROVIDER_URL),
        "payments": settings.payments.model_copy(
            update={"worker": True, "poll_seconds": 0.01, "retry_seconds": 0.01}
        ),
    }
    app = create_app(settings.model_copy(update=changes))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service.test") as client,
    ):
        headers = {"Idempotency-Key": "k"}
        pending = (await client.post(PAYMENTS, json=ORDER, headers=headers)).json()
        report = pending
        while report["status"] == "pending":
            report = (await client.get(f"{PAYMENTS}/{pending['id']}")).json()

    assert (pending["status"], report["status"]) == ("pending", "succeeded")
    assert provider.call_count == 2
    assert "payment" in circuit_breaker_registry
