"""Errors and cancellations in the application."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from anyio import BrokenResourceError
from fastapi import BackgroundTasks
from fastapi.responses import StreamingResponse
from starlette.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from tests.unit.api.request.middleware.asgi import LEAVES, Service, logged


class TestFailures:
    """Whatever the application does, there is one answer, one log line and one count."""

    async def test_a_failure_after_the_start_of_the_answer_ends_the_connection(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """No second answer is sent, the first stays incomplete, and it counts as failed."""

        async def chunks() -> AsyncIterator[bytes]:
            yield b"half"
            raise LookupError("of a book")

        @service.app.get("/stream")
        async def stream() -> StreamingResponse:
            return StreamingResponse(chunks())

        answer = await service.request("/stream")
        assert [message["type"] for message in answer.messages].count("http.response.start") == 1
        assert answer.body == b"half"
        assert not answer.is_complete
        assert service.metrics.finished_requests == [("GET", "/stream", 500)]
        error, access = logged(capsys)
        assert "LookupError" in error["exception"]
        assert error["answer_had_begun"] is True
        assert access["status"] == 500

    async def test_a_failure_after_the_end_of_the_answer_is_logged(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The client has its answer, and the error appears in the log."""

        @service.app.get("/background")
        async def background(tasks: BackgroundTasks) -> None:
            async def fail() -> None:
                raise LookupError("of a book")

            tasks.add_task(fail)

        answer = await service.request("/background")
        assert (answer.status, answer.is_complete) == (200, True)
        assert service.metrics.finished_requests == [("GET", "/background", 200)]
        error, _ = logged(capsys)
        assert "LookupError" in error["exception"]

    async def test_a_cancelled_request_stays_cancelled(self, service: Service) -> None:
        """A server that stops is not delayed, and the request counts as closed."""
        entered = asyncio.Event()

        @service.app.get("/waits")
        async def waits() -> None:
            entered.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(service.request("/waits"))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert service.metrics.finished_requests == [("GET", "/waits", 499)]
        assert service.metrics.in_flight == 0

    async def test_a_request_that_awaits_a_cancelled_task_gets_a_problem(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Its own task was not cancelled, so the client still waits for an answer."""

        @service.app.get("/awaits")
        async def awaits() -> None:
            other = asyncio.create_task(asyncio.Event().wait())
            other.cancel()
            await other

        answer = await service.request("/awaits")

        assert answer.status == 500
        assert answer.header(b"content-type") == b"application/problem+json"
        assert service.metrics.finished_requests == [("GET", "/awaits", 500)]
        error, _ = logged(capsys)
        assert "CancelledError" in error["exception"]

    async def test_an_error_that_is_no_exception_gets_a_problem(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Extensions that are written in Rust raise such errors when they panic."""

        class PanicError(BaseException):
            pass

        @service.app.get("/panics")
        async def panics() -> None:
            raise PanicError

        answer = await service.request("/panics")

        assert answer.status == 500
        assert answer.header(b"content-type") == b"application/problem+json"
        assert service.metrics.finished_requests == [("GET", "/panics", 500)]
        error, _ = logged(capsys)
        assert "PanicError" in error["exception"]

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
    async def test_what_stops_the_process_is_passed_on(
        self, service: Service, stop: type[BaseException]
    ) -> None:
        """It is not meant for the client."""

        @service.app.get("/stops")
        async def stops() -> None:
            raise stop

        with pytest.raises(stop):
            await service.request("/stops")

    @pytest.mark.parametrize(
        ("error", "status"), [(BrokenResourceError(), 200), (RuntimeError("A bug."), 500)]
    )
    async def test_a_client_that_leaves_a_stream_causes_no_error(
        self,
        service: Service,
        capsys: pytest.CaptureFixture[str],
        error: Exception,
        status: int,
    ) -> None:
        """FastAPI raises one if an event waits for the client. Other errors are logged."""

        async def stream(_scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while (await receive())["type"] != "http.disconnect":
                pass
            raise ExceptionGroup("unhandled errors in a TaskGroup", [error])

        service.app.mount("/raw", stream)
        await service.request("/raw/", body=[LEAVES])

        lines = logged(capsys)
        assert [line["status"] for line in lines if line["event"] == "request"] == [status]
        assert [line["level"] for line in lines] == ["error"] * (status == 500) + ["info"]

    async def test_a_plain_text_error_in_pieces_is_joined(self, service: Service) -> None:
        """The detail of the problem is the whole text."""

        async def refuse(_scope: Scope, _receive: Receive, send: Send) -> None:
            headers = [(b"Content-Type", b"text/plain"), (b"Content-Length", b"9"), (b"x-a", b"b")]
            await send({"type": "http.response.start", "status": 400, "headers": headers})
            await send({"type": "http.response.body", "body": b"Not ", "more_body": True})
            await send({"type": "http.response.body", "body": b"to\xffday"})

        service.app.mount("/raw", refuse)
        answer = await service.request("/raw/")
        assert answer.problem == "http-400"
        assert json.loads(answer.body)["detail"] == "Not to\ufffdday"
        assert answer.header(b"x-a") == b"b"
        assert int(answer.header(b"content-length")) == len(answer.body)

    async def test_a_refused_range_comes_with_the_size(
        self, service: Service, tmp_path: Path
    ) -> None:
        """A client needs the size to choose another range (RFC 9110, section 15.5.17)."""
        (tmp_path / "text").write_text("ten bytes!")
        service.app.mount("/files", StaticFiles(directory=tmp_path))
        answer = await service.request("/files/text", headers=[(b"range", b"bytes=100-")])
        assert (answer.status, answer.problem) == (416, "http-416")
        assert answer.header(b"content-range") == b"bytes */10"

    async def test_plain_text_that_is_not_an_error_is_unchanged(self, service: Service) -> None:
        """Only errors are turned into problems."""
        service.app.add_route("/text", lambda _: PlainTextResponse("fine", 203))
        answer = await service.request("/text")
        assert (answer.status, answer.body) == (203, b"fine")
