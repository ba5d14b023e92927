"""Input that the payment API refuses, and odd input that it accepts."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from example_service.payments.currencies import CURRENCIES
from tests.payments.payment_api import (
    GOOD_ORDER,
    PATH,
    REFUSED_BODIES,
    REFUSED_KEYS,
    PaymentAPI,
    running_payment_api,
)

MARK = "hunter2-und-mehr"
NOWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def api() -> AsyncIterator[PaymentAPI]:
    """The payment API with an empty database."""
    async with running_payment_api() as api:
        yield api


def refusal(response: httpx.Response, *statuses: int) -> dict[str, Any]:
    """Check that a response is a problem with one of the statuses, and return its body."""
    assert response.status_code in statuses, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.text.isascii()
    problem: dict[str, Any] = response.json()
    assert problem["status"] == response.status_code
    kinds = {400: "malformed-json", 413: "body-too-large", 422: "validation-failed"}
    assert problem["type"] == f"/problems/{kinds[response.status_code]}"
    return problem


async def test_a_bad_body_is_refused_and_nothing_is_stored(api: PaymentAPI) -> None:
    """This covers values, types, encoding, syntax and nesting."""
    for name, body in REFUSED_BODIES.items():
        problem = refusal(await api.order(body, b"key"), 400, 413, 422)
        assert len(json.dumps(problem)) < 1_000, name
    assert (await api.stored(), api.charged) == ({}, [])


async def test_a_bad_key_is_refused_and_nothing_is_stored(api: PaymentAPI) -> None:
    """The problem names the header."""
    for name, key in REFUSED_KEYS.items():
        problem = refusal(await api.order(GOOD_ORDER, key), 422)
        assert problem["errors"][0]["location"] == ["header", "Idempotency-Key"], name
    refusal(await api.order(GOOD_ORDER), 422)
    assert (await api.stored(), api.charged) == ({}, [])


@pytest.mark.parametrize("keys", [(b"one", b"two"), (b"one", b"one"), (b"one", b""), (b"a",) * 9])
async def test_two_keys_are_refused(api: PaymentAPI, keys: tuple[bytes, ...]) -> None:
    """It would be unclear which key counts, so even two equal ones are refused."""
    problem = refusal(await api.order(GOOD_ORDER, *keys), 422)
    assert problem["errors"] == [
        {
            "location": ["header", "Idempotency-Key"],
            "message": "Value must not be repeated",
            "type": "repeated",
        }
    ]
    assert await api.stored() == {}


@pytest.mark.parametrize(
    "order",
    [
        {"amount": MARK, "currency": MARK, "customer_id": [MARK]},
        {"amount": {MARK: MARK}, "currency": [MARK], "customer_id": f"\0{MARK}"},
        {MARK: MARK},
        [MARK],
        MARK,
    ],
)
async def test_nothing_of_what_was_sent_comes_back(api: PaymentAPI, order: object) -> None:
    """Names and values of the body, key, path and query are never repeated."""
    body = json.dumps(order).encode()
    answers = [
        await api.order(body, f"{MARK} {MARK}".encode()),
        await api.order(body[:-1] + MARK.encode(), b"key"),
        await api.order(body, b"key", content_type=f"text/{MARK}".encode()),
        await api.client.get(f"{PATH}?limit={MARK}&cursor={MARK}&{MARK}={MARK}"),
    ]
    for answer in answers:
        refusal(answer, 400, 422)
        assert MARK not in answer.text


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        b"",
        b"text/plain",
        b"text/json",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=x",
        b"application/xml",
        b"application/jsonp",
        b"application/json, text/plain",
        b"application/json\0",
        b"\xff\xfe",
    ],
)
async def test_an_order_that_is_not_declared_as_json_is_refused(
    api: PaymentAPI, content_type: bytes | None
) -> None:
    """A form on another site can only send text, so it cannot order a payment."""
    refusal(await api.order(GOOD_ORDER, b"key", content_type=content_type), 422)
    assert await api.stored() == {}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32-le"])
async def test_an_order_in_another_encoding_than_utf8_is_refused(
    api: PaymentAPI, encoding: str
) -> None:
    """JSON must be UTF-8 without a byte order mark (RFC 8259, section 8.1)."""
    refusal(await api.order(json.dumps(GOOD_ORDER).encode(encoding), b"key"), 400)
    assert await api.stored() == {}


async def test_an_order_that_names_a_member_twice_is_refused(api: PaymentAPI) -> None:
    """Another reader might take the other amount for the one that is paid."""
    body = b'{"amount": 1, "currency": "EUR", "customer_id": "a", "amount": 7}'
    refusal(await api.order(body, b"key"), 400)
    assert (await api.stored(), api.charged) == ({}, [])


async def test_an_order_at_the_limits_is_stored_as_it_was_sent(api: PaymentAPI) -> None:
    """This covers every character of a key, and the longest and largest values."""
    keys = ["".join(map(chr, range(0x21, 0x7F))), "k" * 255, "'", '"', "\\0", "a,b", "%00", "null"]
    orders = [
        {"amount": 1, "currency": "JPY", "customer_id": "0"},
        {"amount": 99_999_999, "currency": "EUR", "customer_id": "z" * 64},
        {"amount": 5, "currency": "USD", "customer_id": "A.b_c:d@e-f"},
    ]
    sent = {key: orders[number % len(orders)] for number, key in enumerate(keys)}
    for key, order in sent.items():
        response = await api.order(order, key.encode())
        assert response.status_code == 201
        answered = response.json()
        assert {name: answered[name] for name in order} == order
    assert await api.stored() == sent
    assert api.charged == list(sent.values())


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
MEMBERS = {
    "amount": st.integers(1, 99_999_999) | st.integers() | ANY_JSON,
    "currency": st.sampled_from(sorted(CURRENCIES)) | st.text(max_size=4) | ANY_JSON,
    "customer_id": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,63}", fullmatch=True) | ANY_JSON,
}
HEADER_BYTES = st.binary(min_size=1, max_size=40) | st.from_regex(rb"[!-~]{1,255}", fullmatch=True)


@settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(order=st.fixed_dictionaries(MEMBERS), key=HEADER_BYTES)
@example(order=GOOD_ORDER, key=b"a-good-key")
@example(order={**GOOD_ORDER, "amount": 1}, key=b"a-good-key")
@example(order=dict(reversed(GOOD_ORDER.items())), key=b"a-good-key")
async def test_an_order_is_stored_exactly_as_sent_or_not_at_all(
    api: PaymentAPI, order: dict[str, Any], key: bytes
) -> None:
    """Whatever the members and the key are, a refused order leaves nothing behind."""
    before = await api.stored()
    response = await api.order(order, key)
    after = await api.stored()
    if response.status_code == 201:
        # Compared as text, in which True is not 1; members may come in any order.
        stored = json.dumps(after.pop(key.decode("ascii")), sort_keys=True)
        assert stored == json.dumps(order, sort_keys=True)
        before.pop(key.decode("ascii"), None)
    elif response.status_code == 409:
        assert before[key.decode("ascii")] != order
    else:
        refusal(response, 400, 422)
    assert after == before


async def test_a_payment_has_one_address(api: PaymentAPI) -> None:
    """Only the standard form of a UUID is accepted, in upper or lower case."""
    payment_id: str = (await api.order(GOOD_ORDER, b"key")).json()["id"]
    for same in (payment_id, payment_id.upper(), payment_id.replace("-", "%2d")):
        assert (await api.client.get(f"{PATH}/{same}")).json()["id"] == payment_id
        assert (await api.client.get(f"{PATH}?cursor={same}")).status_code == 200
    bare = payment_id.replace("-", "")
    for other in (
        *(bare, f"{{{payment_id}}}", f"%7B{payment_id}%7D", f"urn:uuid:{payment_id}"),
        *(f"%20{payment_id}", f"{payment_id}%20", f"{payment_id}%00", f"{payment_id}%0a"),
        *(
            "1",
            "%00",
            "%c0%80",
            "%ff",
            "%ed%a0%80",
            "null",
            "' OR 1=1",
            "x" * 5_000,
            bare[:-1] + "\u0663",
        ),
    ):
        for path in (f"{PATH}/{other}", f"{PATH}?cursor={other}"):
            problem = refusal(await api.client.get(path), 422)
            assert [error["type"] for error in problem["errors"]] == ["uuid_parsing"]


@pytest.mark.parametrize("path", [f"{PATH}/{NOWHERE}", f"{PATH}?cursor={NOWHERE}"])
async def test_an_id_of_no_payment_is_unknown(api: PaymentAPI, path: str) -> None:
    """This applies to the path and to the cursor."""
    response = await api.client.get(path)
    assert (response.status_code, response.json()["type"]) == (404, "/problems/unknown-payment")


@pytest.mark.parametrize(
    "limit",
    [
        *("0", "-1", "101", "1e3", "1.5", "0x1", "", "%00", "1%00", "true", "null", "NaN"),
        *("\u0663", "1,2", "9" * 5_000, "[]", "%ff", "%c0%b1"),
    ],
)
async def test_a_bad_limit_is_refused(api: PaymentAPI, limit: str) -> None:
    """The problem names the parameter."""
    problem = refusal(await api.client.get(f"{PATH}?limit={limit}"), 422)
    assert [error["location"] for error in problem["errors"]] == [["query", "limit"]]


@pytest.mark.parametrize(
    "query", ["%00=%00", "a" * 5_000, "&" * 2_000, "%", "=", "limit[]=1", "%ff"]
)
async def test_unknown_parameters_are_ignored(api: PaymentAPI, query: str) -> None:
    """Parameters that others add to a URL on the way do no harm."""
    response = await api.client.get(f"{PATH}?{query}")
    assert (response.status_code, response.json()["items"]) == (200, [])
