"""Bad input on real databases, and over a socket what no HTTP library would send."""

import http.client
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.payments.payment_api import (
    GOOD_ORDER,
    PATH,
    REFUSED_BODIES,
    REFUSED_KEYS,
    PaymentAPI,
    running_payment_api,
)
from tests.postgres import running_postgres
from tests.service_process import DEADLINE_SECONDS, Service

pytestmark = pytest.mark.integration

MARK = b"hunter2-und-mehr"
ORDER = b'{"amount": 1250, "currency": "EUR", "customer_id": "customer-7"}'
SECRET_ORDER = b'{"amount": 1250, "currency": "EUR", "customer_id": "%s"}' % MARK
LINE = b"POST /api/v1/payments HTTP/1.1"
TYPE = b"Content-Type: application/json"
KEY = b"Idempotency-Key: key"
CHUNKED = b"Transfer-Encoding: chunked"


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    """The bytes of a request that asks to close the connection."""
    lines = (line, b"Host: service.test", b"Connection: close", *headers, b"", body)
    return b"\r\n".join(lines)


def ordering(*headers: bytes, body: bytes = SECRET_ORDER) -> bytes:
    """The bytes of an order with a declared length."""
    return request(LINE, TYPE, b"Content-Length: %d" % len(body), *headers, body=body)


def ordering_at_length(length: bytes) -> bytes:
    """The bytes of an order with an invalid length."""
    return request(LINE, TYPE, KEY, b"Content-Length: " + length, body=SECRET_ORDER)


def ordering_in_chunks(body: bytes, *headers: bytes) -> bytes:
    """The bytes of an order with a chunked body."""
    return request(LINE, TYPE, KEY, CHUNKED, *headers, body=body)


REFUSED_REQUESTS = {
    "key with NUL": ordering(b"Idempotency-Key: k\0" + MARK),
    "key with a control character": ordering(b"Idempotency-Key: k\x01" + MARK),
    "key with delete": ordering(b"Idempotency-Key: k\x7f" + MARK),
    "key in Latin-1": ordering(b"Idempotency-Key: \xe9" + MARK),
    "key in UTF-8": ordering("Idempotency-Key: 💸".encode() + MARK),
    "key in bad UTF-8": ordering(b"Idempotency-Key: \xc0\x80" + MARK),
    "key on two lines": ordering(b"Idempotency-Key: k\r\n " + MARK),
    "key on the second line": ordering(b"Idempotency-Key:\r\n " + MARK),
    "key with a bare CR": ordering(b"Idempotency-Key: k\r" + MARK),
    "key with a bare LF": ordering(b"Idempotency-Key: k\n" + MARK),
    "empty key": ordering(b"Idempotency-Key:"),
    "blank key": ordering(b"Idempotency-Key: \t  "),
    "huge key": ordering(b"Idempotency-Key: " + b"k" * 200_000),
    "two keys": ordering(KEY, b"Idempotency-Key: " + MARK),
    "two keys in two cases": ordering(KEY, KEY.lower()),
    "key with an underscore": ordering(b"Idempotency_Key: " + MARK),
    "space before the colon": ordering(b"Idempotency-Key : " + MARK),
    "header without a colon": ordering(KEY, MARK),
    "header without a name": ordering(KEY, b": " + MARK),
    "header with NUL in its name": ordering(KEY, b"X-\0: " + MARK),
    "header with Latin-1 in its name": ordering(KEY, b"X-\xe9: " + MARK),
    "type with NUL": request(LINE, KEY, TYPE + b"\0", b"Content-Length: 2", body=b"{}"),
    "two lengths": ordering(KEY, b"Content-Length: 3"),
    "negative length": ordering_at_length(b"-1"),
    "length in words": ordering_at_length(b"ten"),
    "length with a sign": ordering_at_length(b"+10"),
    "length beyond 64 bits": ordering_at_length(b"9" * 30),
    "length beyond the limit": ordering_at_length(b"9" * 12),
    "length and chunks": ordering_in_chunks(b"0\r\n\r\n", b"Content-Length: 5"),
    "unknown coding": request(LINE, TYPE, KEY, b"Transfer-Encoding: x", body=b"0\r\n\r\n"),
    "chunk without a length": ordering_in_chunks(SECRET_ORDER),
    "chunk of a negative length": ordering_in_chunks(b"-1\r\n" + SECRET_ORDER),
    "chunk beyond 64 bits": ordering_in_chunks(b"F" * 30 + b"\r\n" + SECRET_ORDER),
    "chunk longer than its length": ordering_in_chunks(b"3\r\n" + SECRET_ORDER + b"\r\n0\r\n\r\n"),
    "chunks with bare LF": ordering_in_chunks(b"43\n" + SECRET_ORDER + b"\n0\n\n"),
    "NUL in the path": request(b"GET /api/v1/payments/\0 HTTP/1.1"),
    "bad UTF-8 in the path": request(b"GET /api/v1/payments/\xc0\x80 HTTP/1.1"),
    "UTF-8 in the path": request("GET /api/v1/payments/é HTTP/1.1".encode()),
    "space in the path": request(b"GET /api/v1/payments/a b HTTP/1.1"),
    "bad escapes": request(b"GET /api/v1/payments/%zz?cursor=%zz&limit=% HTTP/1.1"),
    "escaped NUL": request(b"GET /api/v1/payments/%00?cursor=%00 HTTP/1.1"),
    "overlong UTF-8, escaped": request(b"GET /api/v1/payments/%c0%80?cursor=%c0%80 HTTP/1.1"),
    "endless path": request(b"GET /" + b"x" * 200_000 + b" HTTP/1.1"),
    "no path": request(b"GET HTTP/1.1"),
    "no resource": request(b"GET * HTTP/1.1"),
    "tunnel": request(b"CONNECT service.test:80 HTTP/1.1"),
    "unknown method": request(b"PAY /api/v1/payments HTTP/1.1"),
    "method in lower case": request(b"post /api/v1/payments HTTP/1.1"),
    "TRACE": request(b"TRACE /api/v1/payments HTTP/1.1", b"Authorization: " + MARK),
    "unknown version": request(b"GET /api/v1/payments HTTP/9.9"),
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + MARK * 9,
    "SSH": b"SSH-2.0-" + MARK + b"\r\n",
    "host that is none": b"GET /api/v1/payments HTTP/1.1\r\nHost: \0" + MARK + b"\r\n\r\n",
}


@pytest.fixture(params=["sqlite", "postgresql"])
async def api(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PaymentAPI]:
    """The payment API on each database."""
    if request.param == "sqlite":
        async with running_payment_api() as api:
            yield api
        return
    with running_postgres() as postgres:
        monkeypatch.setenv("DATABASE_URL", postgres.url)
        async with running_payment_api() as api:
            yield api


async def test_no_bad_input_reaches_the_database(api: PaymentAPI) -> None:
    """PostgreSQL would refuse NUL and long or large values; SQLite accepts anything."""
    answers = [await api.order(body, b"key") for body in REFUSED_BODIES.values()]
    answers += [await api.order(GOOD_ORDER, key) for key in REFUSED_KEYS.values()]
    answers += [await api.client.get(f"{PATH}/{odd}") for odd in ("%00", "a%00", "%ed%a0%80")]
    answers += [await api.client.get(f"{PATH}?cursor={odd}") for odd in ("%00", "%ff")]
    assert {answer.status_code for answer in answers} == {400, 413, 422}
    assert await api.stored() == {}


async def test_the_limits_of_input_are_within_those_of_the_database(api: PaymentAPI) -> None:
    """Accepted values are stored as sent, up to the longest key and the largest amount."""
    largest = {"amount": 99_999_999, "currency": "EUR", "customer_id": "z" * 64}
    sent = dict.fromkeys(("k" * 255, "';DROP/**/TABLE/**/payments;--"), largest)
    for key in sent:
        assert (await api.order(largest, key.encode())).status_code == 201
    assert await api.stored() == sent


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The service as a process with its sandbox."""
    service = Service(tmp_path)
    yield service
    os.killpg(service.process.pid, signal.SIGKILL)
    service.process.wait()


def answer_to(sent: bytes, url: str) -> tuple[int, str, bytes]:
    """Send raw bytes, and return status, media type and body of the response."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), DEADLINE_SECONDS) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.headers["Content-Type"], response.read()


def test_whatever_bytes_come_the_answer_is_a_problem(service: Service) -> None:
    """It repeats nothing, nothing is stored, and the service keeps working."""
    url = service.url
    for name, sent in REFUSED_REQUESTS.items():
        status, media_type, body = answer_to(sent, url)
        assert status in {400, 404, 405, 413, 422, 431, 501, 505}, name
        assert media_type == "application/problem+json", name
        assert json.loads(body)["status"] == status, name
        assert MARK not in body, name
    assert httpx.get(url + PATH).json()["items"] == []
    status, _, body = answer_to(ordering(KEY, body=ORDER), url)
    assert (status, json.loads(body)["customer_id"]) == (201, "customer-7")
    assert "Traceback" not in service.text
    assert service.errors == ""


def test_an_order_in_chunks_is_an_order(service: Service) -> None:
    """However its chunks are decorated, it is the same order."""
    size = b"%x" % len(ORDER)
    plain = size + b"\r\n" + ORDER + b"\r\n0\r\n\r\n"
    extended = size + b';a="b"\r\n' + ORDER + b"\r\n0\r\n\r\n"
    answers = [answer_to(ordering_in_chunks(body), service.url) for body in (plain, extended)]
    assert [status for status, _, _ in answers] == [201, 201]
    assert answers[0] == answers[1]
