"""Refusals based on a request's head, HEAD requests, and mounted applications."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from example_service.api.request.exchange import MAX_HEADERS, MAX_QUERY_BYTES
from tests.unit.api.request.middleware.asgi import LEAVES, Headers, Service


class TestHeads:
    """Request heads, and requests with the method HEAD."""

    @pytest.mark.parametrize(
        ("headers", "path", "status"),
        [
            ([(b"content-encoding", b"gzip")], "/known", 415),
            ([(b"content-encoding", b"gzip, identity")], "/known", 415),
            ([(b"content-encoding", b"identity")], "/known", 200),
            ([(b"expect", b"200-ok")], "/known", 417),
            ([(b"expect", b"100-continue, 200-ok")], "/known", 417),
            ([(b"expect", b"100-Continue")], "/known", 200),
            ([(b"a", b"b")] * MAX_HEADERS, "/known", 431),
            ([(b"a", b"b")] * (MAX_HEADERS - 1), "/known", 200),
            ([], "/known?" + "a&" * MAX_QUERY_BYTES, 414),
        ],
    )
    async def test_unsupported_requests_are_refused(
        self, service: Service, headers: Headers, path: str, status: int
    ) -> None:
        """They are refused before their bodies are read."""
        answer = await service.request(path, headers=headers)
        assert answer.status == status
        if status != 200:
            assert answer.problem == f"http-{status}"
            assert answer.header(b"connection") == b"close"

    async def test_head_is_answered_wherever_get_is(self, service: Service) -> None:
        """The answer has the headers of GET and no body; metrics and log show the method."""
        get, head = [await service.request("/known", method=method) for method in ("GET", "HEAD")]
        assert (head.status, head.body, head.is_complete) == (200, b"", True)
        assert head.header(b"content-length") == get.header(b"content-length")
        assert service.metrics.finished_requests[1] == ("HEAD", "/known", 200)

    async def test_head_of_a_stream_ends(self, service: Service) -> None:
        """The stream itself may be endless, but its server reports a disconnected client."""
        ended = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x"
                    await asyncio.sleep(0)
            finally:
                ended.set()

        @service.app.get("/stream")
        async def stream() -> StreamingResponse:
            return StreamingResponse(chunks())

        answer = await service.request("/stream", method="HEAD", body=[b"", LEAVES])
        assert (answer.status, answer.body, answer.is_complete) == (200, b"", True)
        assert len(answer.messages) == 2
        assert ended.is_set()

    async def test_head_of_an_error_is_an_error(self, service: Service) -> None:
        """The answer has the status of the error, and no body."""
        answer = await service.request("/nowhere", method="HEAD")
        assert (answer.status, answer.body) == (404, b"")


class TestMountedApplications:
    """Applications mounted below the service."""

    async def test_they_are_labelled_with_their_mount_path(self, service: Service) -> None:
        """The routes within a mounted application are unknown to the service."""

        async def endpoint(_: Request) -> PlainTextResponse:
            return PlainTextResponse("here")

        service.app.mount("/below", Starlette(routes=[Route("/{a}/{b}", endpoint)]))
        statuses = [(await service.request(path)).status for path in ("/below/1/2", "/below/no")]
        assert statuses == [200, 404]
        assert {route for _, route, _ in service.metrics.finished_requests} == {"/below"}
