"""Limits on bodies and on concurrent requests."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import Body, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tests.unit.api.request.middleware.asgi import LEAVES, Headers, Service, logged


class TestBodyLimit:
    """`LIMITS__MAX_BODY_BYTES`."""

    @pytest.fixture
    def service(self) -> Service:
        """A service that accepts ten bytes."""
        service = Service(max_body_bytes=10)

        @service.app.post("/body")
        async def body(request: Request) -> int:
            return len(await request.body())

        @service.app.post("/json")
        async def read_json(value: Annotated[list[int], Body()]) -> int:
            return len(value)

        return service

    @pytest.mark.parametrize("length", [b"10", b"010"])
    async def test_the_limit_itself_is_allowed(self, service: Service, length: bytes) -> None:
        """A body of exactly ten bytes is accepted."""
        answer = await service.request(
            "/body", method="POST", headers=[(b"content-length", length)], body=[b"x" * 10]
        )
        assert (answer.status, answer.body) == (200, b"10")

    @pytest.mark.parametrize(
        "headers",
        [
            [(b"content-length", b"11")],
            [(b"content-length", b"999999999999999999")],
            [(b"content-length", b"9" * 19)],
            [(b"content-length", b"0" * 50 + b"9" * 5_000)],
            [(b"content-length", b"1"), (b"content-length", b"11")],
            [(b"content-length", b"11"), (b"content-length", b"1")],
        ],
    )
    async def test_a_declared_length_above_the_limit_is_refused(
        self, service: Service, headers: Headers
    ) -> None:
        """The body is not read."""
        answer = await service.request("/body", method="POST", headers=headers, body=())
        assert (answer.status, answer.problem) == (413, "body-too-large")
        assert answer.header(b"connection") == b"close"

    @pytest.mark.parametrize("path", ["/body", "/json"])
    @pytest.mark.parametrize(
        ("headers", "http_version"),
        [
            ([(b"transfer-encoding", b"chunked")], "1.1"),
            ([(b"content-length", b"lots")], "1.1"),
            ([(b"content-length", b"-5")], "1.1"),
            ([(b"content-length", b"3")], "1.1"),
            ([], "2"),
        ],
    )
    async def test_more_bytes_than_the_limit_are_refused(
        self, service: Service, path: str, headers: Headers, http_version: str
    ) -> None:
        """If the declared length is missing, wrong or invalid, the bytes are counted."""
        answer = await service.request(
            path,
            method="POST",
            headers=[*headers, (b"content-type", b"application/json")],
            body=[b"[1,", b"2,", b"3,4,5,6,7]", b""],
            http_version=http_version,
        )
        assert (answer.status, answer.problem) == (413, "body-too-large")

    async def test_a_mounted_application_is_limited(self, service: Service) -> None:
        """The limit belongs to the service, and applies to every mounted application."""

        async def drain(_scope: Scope, receive: Receive, _send: Send) -> None:
            while (await receive())["more_body"]:
                pass

        service.app.mount("/raw", drain)
        answer = await service.request(
            "/raw/", method="POST", headers=[(b"transfer-encoding", b"chunked")], body=[b"x" * 11]
        )
        assert (answer.status, answer.problem) == (413, "body-too-large")


class TestUnfinishedRequests:
    """A request does not count as in flight before its body has arrived."""

    @pytest.fixture
    def service(self) -> Service:
        """A service that handles two requests at a time."""
        service = Service(max_concurrent_requests=2)

        @service.app.post("/body")
        async def body(request: Request) -> int:
            return len(await request.body())

        return service

    async def test_missing_bodies_take_no_slot(self, service: Service) -> None:
        """Other requests are served in the meantime, with and without a body."""
        length = [(b"content-length", b"5")]
        unfinished = [
            asyncio.create_task(service.request("/body", method="POST", headers=length, body=()))
            for _ in range(2)
        ]
        await asyncio.sleep(0)

        answer = await service.request("/body", method="POST", headers=length, body=[b"x" * 5])

        assert (answer.status, answer.body) == (200, b"5")
        oldest, other = unfinished
        assert (await oldest).problem == "body-too-slow"
        assert not other.done()
        other.cancel()

    async def test_a_client_that_disconnects_before_its_body_has_arrived_is_logged_once(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is logged with status 499, without an answer and without an error."""
        answer = await service.request(
            "/body", method="POST", headers=[(b"content-length", b"5")], body=[b"x", LEAVES]
        )

        assert answer.messages == []
        assert service.metrics.finished_requests == [("POST", "unmatched", 499)]
        (line,) = logged(capsys)
        assert line["status"] == 499

    async def test_a_large_body_reaches_the_application_before_its_end(self) -> None:
        """This happens if bodies may be larger than what the middleware buffers."""
        service = Service(max_body_bytes=1_000_000)
        pieces = [b"x" * 50_000] * 4

        @service.app.post("/body")
        async def body(request: Request) -> list[int]:
            return [len(piece) async for piece in request.stream()]

        answer = await service.request(
            "/body", method="POST", headers=[(b"transfer-encoding", b"chunked")], body=pieces
        )

        assert json.loads(answer.body) == [100_000, 50_000, 50_000, 0]


class TestConcurrencyLimit:
    """`LIMITS__MAX_CONCURRENT_REQUESTS`."""

    async def test_one_request_too_many_is_refused_at_once(self) -> None:
        """The client may retry after a second; health and metrics are served at any load."""
        service = Service(max_concurrent_requests=2)
        entered, released = asyncio.Semaphore(0), asyncio.Event()

        @service.app.get("/waits")
        async def waits() -> str:
            entered.release()
            await released.wait()
            return "done"

        @service.app.get("/health/live")
        @service.app.get("/metrics")
        async def always() -> str:
            return "here"

        waiting = [asyncio.create_task(service.request("/waits")) for _ in range(2)]
        for _ in waiting:
            await entered.acquire()
        refused = await service.request("/waits")
        assert (refused.status, refused.problem) == (503, "overloaded")
        assert refused.header(b"retry-after") == b"1"
        assert (await service.request("/health/live")).status == 200
        assert (await service.request("/metrics")).status == 200
        released.set()
        assert [answer.status for answer in await asyncio.gather(*waiting)] == [200, 200]
        assert (await service.request("/waits")).status == 200

    async def test_a_response_that_has_started_takes_no_slot(self) -> None:
        """Otherwise clients that do not read their responses would keep all others out."""
        service = Service(max_concurrent_requests=2)
        started, released = asyncio.Semaphore(0), asyncio.Event()

        @service.app.get("/stream")
        async def stream() -> StreamingResponse:
            async def parts() -> AsyncIterator[str]:
                started.release()
                yield "first"
                await released.wait()

            return StreamingResponse(parts())

        @service.app.get("/quick")
        async def quick() -> str:
            return "done"

        streams = [asyncio.create_task(service.request("/stream")) for _ in range(2)]
        for _ in streams:
            await started.acquire()
        await asyncio.sleep(0)

        assert (await service.request("/quick")).status == 200
        released.set()
        assert [answer.status for answer in await asyncio.gather(*streams)] == [200] * 2
