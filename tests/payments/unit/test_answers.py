"""Responses about charges: which come from the provider, and what they mean."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias
from uuid import UUID

import httpx
import pytest

from example_service.infra.database.database import Database
from example_service.infra.resilience import CircuitBreaker, CircuitOpenError
from example_service.payments.answers import Charged, NotCharged
from example_service.payments.exceptions import (
    ChargeInProgressError,
    InvalidProviderAnswerError,
    ProviderUnavailableError,
)
from example_service.payments.models import FailureReason
from example_service.payments.provider import PaymentProvider
from example_service.payments.repository import PaymentRepository
from tests.payments.unit.fakes import (
    BASE_URL,
    ORDER,
    Answering,
    answering,
    found,
    pending_payment,
    stored,
)

PAYMENT_ID = UUID("8c1e7f0a-2c43-4a57-9d0b-6f5a7e1b3c9d")
CHARGE = {
    "id": "ch_1",
    "idempotency_key": str(PAYMENT_ID),
    "amount": 1250,
    "currency": "EUR",
    "customer_id": "customer-7",
    "status": "succeeded",
}


@pytest.fixture(params=["charge", "find_charge", "cancel"])
def method(request: pytest.FixtureRequest) -> str:
    """One of the methods about a charge."""
    return str(request.param)


@pytest.fixture
async def settle(breaker: CircuitBreaker) -> AsyncIterator[Callable[..., Any]]:
    """Call a method of a provider that responds as its argument says."""
    clients = []

    async def settle(method: str, answer: Answering) -> Any:
        client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        clients.append(client)
        provider = PaymentProvider(client, BASE_URL, breaker)
        return await getattr(provider, method)(PAYMENT_ID, ORDER)

    yield settle
    for client in clients:
        await client.aclose()


async def test_a_charge_is_sent_with_the_payment_as_its_key(settle: Any) -> None:
    """The provider can recognize repeated charges of the same payment."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(201, json=CHARGE)

    assert await settle("charge", answer) == Charged("ch_1")

    (request,) = requests
    assert (request.method, str(request.url)) == ("POST", f"{BASE_URL}/v1/charges")
    assert request.headers["Idempotency-Key"] == str(PAYMENT_ID)
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.content) == ORDER.model_dump()


async def test_a_charge_is_looked_for_by_the_payment(settle: Any) -> None:
    """A lookup moves no money."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json=CHARGE)

    assert await settle("find_charge", answer) == Charged("ch_1")

    (request,) = requests
    assert (request.method, str(request.url)) == ("GET", f"{BASE_URL}/v1/charges/{PAYMENT_ID}")


async def test_a_repeated_charge_may_be_answered_with_200(settle: Any) -> None:
    """Additional members in the response are ignored."""
    answer = answering(200, json={**CHARGE, "created": "today"})
    assert await settle("charge", answer) == Charged("ch_1")


KEY = str(PAYMENT_ID)
OTHER_KEY = "0f7f0f0e-0000-4000-8000-000000000000"

DECLINED = {"idempotency_key": KEY, "status": "declined", "reason": "secret"}
REFUSED = {**DECLINED, "status": "refused"}
CANCELLED = {"idempotency_key": KEY, "status": "cancelled"}
UNKNOWN = {"idempotency_key": KEY, "status": "unknown"}
IN_PROGRESS = {"idempotency_key": KEY, "status": "in_progress"}

CHARGED = Charged("ch_1")
NEVER_CHARGED = {
    "declined": NotCharged(FailureReason.DECLINED),
    "refused": NotCharged(FailureReason.REFUSED),
    "cancelled": NotCharged(FailureReason.CANCELLED),
}

Row: TypeAlias = tuple[str, int, dict[str, Any], object]

# Every response in the contract: the method, the status, the body and its meaning.
CONTRACT: list[Row] = [
    ("charge", 200, CHARGE, CHARGED),
    ("charge", 201, CHARGE, CHARGED),
    ("charge", 402, DECLINED, NEVER_CHARGED["declined"]),
    ("charge", 400, REFUSED, NEVER_CHARGED["refused"]),
    ("charge", 422, REFUSED, NEVER_CHARGED["refused"]),
    ("charge", 409, CANCELLED, NEVER_CHARGED["cancelled"]),
    ("charge", 409, IN_PROGRESS, ChargeInProgressError),
    ("find_charge", 200, CHARGE, CHARGED),
    ("find_charge", 200, DECLINED, NEVER_CHARGED["declined"]),
    ("find_charge", 200, REFUSED, NEVER_CHARGED["refused"]),
    ("find_charge", 200, CANCELLED, NEVER_CHARGED["cancelled"]),
    ("find_charge", 404, UNKNOWN, None),
    ("cancel", 200, CHARGE, CHARGED),
    ("cancel", 200, DECLINED, NEVER_CHARGED["declined"]),
    ("cancel", 200, REFUSED, NEVER_CHARGED["refused"]),
    ("cancel", 200, CANCELLED, NEVER_CHARGED["cancelled"]),
    ("cancel", 409, IN_PROGRESS, ChargeInProgressError),
]
ROWS = {(method, status, body["status"]) for method, status, body, _ in CONTRACT}
BODIES = [CHARGE, DECLINED, REFUSED, CANCELLED, UNKNOWN, IN_PROGRESS]
STATUSES = [200, 201, 202, 204, 302, 400, 401, 402, 403, 404, 405, 409, 410, 418, 422]


async def test_a_cancellation_names_the_payment(settle: Any) -> None:
    """Its path has the key, and its body is empty."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json=CANCELLED)

    assert await settle("cancel", answer) == NEVER_CHARGED["cancelled"]

    (request,) = requests
    assert (request.method, str(request.url), request.content) == (
        "POST",
        f"{BASE_URL}/v1/charges/{PAYMENT_ID}/cancel",
        b"",
    )


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
@pytest.mark.parametrize("row", CONTRACT, ids=str)
async def test_an_answer_of_the_contract_is_understood(
    row: Row, content_type: str, settle: Any, breaker: CircuitBreaker
) -> None:
    """Each counts as a success of the provider, and additional members are ignored."""
    method, status, body, meaning = row
    content = json.dumps({**body, "created": "today"})
    answer = answering(status, content=content, headers={"Content-Type": content_type})
    if meaning is ChargeInProgressError:
        with pytest.raises(ChargeInProgressError, match="another request"):
            await settle(method, answer)
    else:
        assert await settle(method, answer) == meaning
        assert breaker.total_successes == 1
    assert breaker.total_failures == 0


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body["status"])
async def test_no_other_answer_is_one(
    status: int, body: dict[str, Any], method: str, settle: Any, breaker: CircuitBreaker
) -> None:
    """A status and a body are only valid together, as in the contract."""
    if (method, status, body["status"]) in ROWS:
        return
    with pytest.raises(InvalidProviderAnswerError):
        await settle(method, answering(status, json=body))
    assert breaker.total_failures == 1


@pytest.mark.parametrize(
    "disguise",
    [
        lambda _: {"html": "<title>Please log in</title>"},
        lambda body: {"text": json.dumps(body)},
        lambda body: {"content": json.dumps(body)},
        lambda body: {"html": json.dumps(body)},
        lambda body: {
            "content": json.dumps(body),
            "headers": {"Content-Type": "application/problem+json"},
        },
        lambda body: {
            "content": json.dumps(body),
            "headers": [("Content-Type", "application/json"), ("Content-Type", "text/html")],
        },
        lambda _: {"content": b"", "headers": {"Content-Type": "application/json"}},
        lambda body: {"json": {**body, "idempotency_key": OTHER_KEY}},
        lambda body: {"json": {**body, "idempotency_key": KEY.upper()}},
        lambda body: {"json": {**body, "idempotency_key": [KEY]}},
        lambda body: {"json": {key: body[key] for key in body if key != "idempotency_key"}},
        lambda body: {"json": {key: body[key] for key in body if key != "status"}},
        lambda body: {"json": {**body, "status": body["status"].upper()}},
        lambda _: {"json": {"status": 404, "error": "Not Found"}},
        lambda body: {"json": [body]},
        lambda body: {"json": {"data": body}},
        lambda body: {"json": json.dumps(body)},
        lambda body: {
            "content": json.dumps(body)[:-1],
            "headers": {"Content-Type": "application/json"},
        },
        # Of two members with the same name, another parser may use the first.
        lambda body: {
            "content": f'{{"idempotency_key": "{OTHER_KEY}", {json.dumps(body)[1:]}',
            "headers": {"Content-Type": "application/json"},
        },
        lambda body: {
            "content": f'{{"status": "unknown", {json.dumps(body)[1:]}',
            "headers": {"Content-Type": "application/json"},
        },
        lambda body: {
            "content": f'{json.dumps(body)[:-1]}, "more": NaN}}',
            "headers": {"Content-Type": "application/json"},
        },
    ],
)
@pytest.mark.parametrize("row", CONTRACT, ids=str)
async def test_an_answer_from_elsewhere_is_not_an_answer(
    row: Row,
    disguise: Callable[[dict[str, Any]], dict[str, Any]],
    settle: Any,
    breaker: CircuitBreaker,
) -> None:
    """A gateway's page or JSON, or a response about another key, is a failure."""
    method, status, body, _ = row
    with pytest.raises(InvalidProviderAnswerError) as caught:
        await settle(method, answering(status, **disguise(body)))
    assert "secret" not in str(caught.value)
    assert breaker.total_failures == 1


@pytest.mark.parametrize("reason", [{}, {"reason": None}, {"reason": 7}], ids=str)
@pytest.mark.parametrize("status", [400, 402, 422])
async def test_a_charge_that_is_declined_or_refused_has_a_reason(
    status: int, reason: dict[str, Any], settle: Any
) -> None:
    """The contract requires one."""
    word = "declined" if status == 402 else "refused"
    body = {"idempotency_key": KEY, "status": word, **reason}
    with pytest.raises(InvalidProviderAnswerError):
        await settle("charge", answering(status, json=body))


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": "c" * 256},
        {"id": "ch\x001"},
        {"id": "\x00"},
        {"id": None},
        {"id": 7},
        {"amount": 1251},
        {"amount": "1250"},
        {"amount": 1250.5},
        {"amount": True},
        {"currency": "USD"},
        {"currency": "eur"},
        {"customer_id": "another"},
        {"customer_id": None},
    ],
    ids=str,
)
async def test_a_charge_for_something_else_or_without_a_usable_id_is_not_an_answer(
    change: dict[str, Any], method: str, settle: Any, breaker: CircuitBreaker
) -> None:
    """A payment is only paid if its order matches and its charge ID can be stored."""
    with pytest.raises(InvalidProviderAnswerError):
        await settle(method, answering(200, json={**CHARGE, **change}))
    assert breaker.total_failures == 1


@pytest.mark.parametrize("escape", [r"\ud800", r"\udfff", r"\udc00\ud800"])
async def test_a_charge_id_that_is_not_text_is_not_an_answer(
    escape: str, method: str, settle: Any
) -> None:
    """JSON can have a lone surrogate, which no database can store."""
    content = json.dumps(CHARGE).replace("ch_1", f"ch_{escape}")
    headers = {"Content-Type": "application/json"}
    with pytest.raises(InvalidProviderAnswerError):
        await settle(method, answering(200, content=content, headers=headers))


@pytest.mark.parametrize("charge_id", ["c" * 255, "é" * 255, "\U0001f4b6", " ", "\x01\n"])
async def test_every_charge_id_that_can_be_stored_is_usable(
    charge_id: str, settle: Any, database: Database
) -> None:
    """However odd the ID is, the money has moved."""
    charged = await settle("charge", answering(201, json={**CHARGE, "id": charge_id}))
    assert charged == Charged(charge_id)
    payment = pending_payment()
    await stored(database, payment)
    async with database.transaction() as session:
        await PaymentRepository(session).succeed(payment, charged.charge_id)
    assert (await found(database, payment)).charge_id == charge_id


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_charges_at_a_provider_that_cannot_serve_count_as_failures(
    status: int, method: str, settle: Any, breaker: CircuitBreaker
) -> None:
    """It is unknown whether the provider has charged."""
    with pytest.raises(ProviderUnavailableError):
        await settle(method, answering(status))
    assert breaker.total_failures == 1


async def test_no_charge_is_sent_while_the_circuit_is_open(
    method: str, settle: Any, breaker: CircuitBreaker
) -> None:
    """Lookups are refused, too."""
    breaker.force_open("maintenance")
    with pytest.raises(CircuitOpenError):
        await settle(method, lambda _: pytest.fail("the provider was asked"))
