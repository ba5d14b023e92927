"""The time limit of a request, and the end of the drain."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from fastapi import Request
from fastapi.responses import StreamingResponse

from example_service.core.lifecycle import begin_draining, end_draining
from tests.unit.api.request.middleware.asgi import Answer, Service
from tests.virtual_loop import run_virtually


class TestTimeLimit:
    """`LIMITS__REQUEST_TIMEOUT_SECONDS`."""

    @pytest.fixture
    def service(self) -> Service:
        """A service with very short time limits."""
        return Service(request_timeout_seconds=0.001, receive_timeout_seconds=0.001)

    async def test_an_answer_that_does_not_begin_in_time_is_abandoned(
        self, service: Service
    ) -> None:
        """The work is cancelled and cleans up; the client learns that the outcome is unknown."""
        cleaned_up = False

        @service.app.get("/waits")
        async def waits() -> None:
            nonlocal cleaned_up
            try:
                await asyncio.Event().wait()
            finally:
                cleaned_up = True

        answer = await service.request("/waits")
        assert (answer.status, answer.problem) == (504, "request-timeout")
        assert cleaned_up
        assert service.metrics.finished_requests == [("GET", "/waits", 504)]
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    async def test_a_thread_does_not_delay_the_answer(self, service: Service) -> None:
        """A thread cannot be stopped, but the client does not have to wait for it."""
        released = threading.Event()

        @service.app.get("/thread")
        def thread() -> None:
            released.wait(10)

        try:
            answer = await service.request("/thread")
        finally:
            released.set()
        assert (answer.status, answer.problem) == (504, "request-timeout")

    async def test_a_missing_body_is_the_clients_fault(self, service: Service) -> None:
        """The answer is 408, and the connection is closed."""

        @service.app.post("/body")
        async def body(request: Request) -> int:
            return len(await request.body())

        answer = await service.request(
            "/body", method="POST", headers=[(b"content-length", b"5")], body=()
        )
        assert (answer.status, answer.problem) == (408, "body-too-slow")
        assert answer.header(b"connection") == b"close"

    def test_an_answer_that_has_begun_takes_as_long_as_it_needs(self, service: Service) -> None:
        """A stream is not cut off, however long it takes."""

        async def chunks() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.sleep(3600)
            yield b"y"

        @service.app.get("/stream")
        async def stream() -> StreamingResponse:
            return StreamingResponse(chunks())

        # In virtual time, the answer always begins within the limit.
        answer = run_virtually(service.request("/stream"))
        assert (answer.status, answer.body, answer.is_complete) == (200, b"xy", True)

    async def test_another_cancellation_at_the_same_time_wins(self, service: Service) -> None:
        """A server that stops takes precedence, even if the time limit has passed as well."""
        task: asyncio.Task[Answer] | None = None

        @service.app.get("/waits")
        async def waits() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert task is not None
                task.cancel()
                raise

        task = asyncio.create_task(service.request("/waits"))
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_an_error_during_clean_up_does_not_change_the_answer(
        self, service: Service
    ) -> None:
        """The timeout came first, whatever failed afterwards."""

        @service.app.get("/waits")
        async def waits() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise LookupError("of a book")

        answer = await service.request("/waits")
        assert (answer.status, answer.problem) == (504, "request-timeout")

    async def test_requests_that_are_late_at_the_same_time_are_cancelled_once(self) -> None:
        """Each of them finishes its clean-up, and gets a problem."""
        service = Service(request_timeout_seconds=0.01)
        cleaned_up = 0

        @service.app.get("/waits")
        async def waits() -> None:
            nonlocal cleaned_up
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                cleaned_up += 1

        async def request_later(seconds: float) -> Answer:
            await asyncio.sleep(seconds)
            return await service.request("/waits")

        answers = await asyncio.gather(*(request_later(0.003 * number) for number in range(8)))

        assert {(answer.status, answer.problem) for answer in answers} == {(504, "request-timeout")}
        assert {answer.header(b"retry-after") for answer in answers} == {b"1"}
        assert cleaned_up == 8

    async def test_the_end_of_the_drain_gives_a_problem(self, service: Service) -> None:
        """The server cancels unfinished requests; the client learns that the outcome is unknown."""
        service = Service()
        entered = asyncio.Event()

        @service.app.get("/waits")
        async def waits() -> None:
            entered.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(service.request("/waits"))
        await entered.wait()
        begin_draining()
        try:
            task.cancel()
            answer = await task
        finally:
            end_draining()

        assert (answer.status, answer.problem) == (504, "request-timeout")
        assert service.metrics.finished_requests == [("GET", "/waits", 504)]

    async def test_an_error_during_the_drain_is_an_error(self, service: Service) -> None:
        """Only a cancelled request counts as timed out."""

        @service.app.get("/fails")
        async def fails() -> None:
            raise LookupError("of a book")

        begin_draining()
        try:
            answer = await service.request("/fails")
        finally:
            end_draining()

        assert answer.problem == "internal-error"
