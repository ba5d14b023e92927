"""The pass around every request, seen as a server sees it: by ASGI messages."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any

import pytest
import structlog
from fastapi import BackgroundTasks, Body, FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from example_service.api.problems.answers import install_problem_handlers
from example_service.api.request.access_log import AccessLog
from example_service.api.request.exchange import LONGEST_QUERY, MOST_HEADERS
from example_service.api.request.middleware import RequestMiddleware
from example_service.core import context
from example_service.core.lifecycle import begin_draining, end_draining
from example_service.core.logging import configure_logging
from example_service.core.settings import Settings
from example_service.core.settings.model import LimitSettings, LogSettings
from example_service.infra.metrics import RequestMetrics
from example_service.infra.resilience.testing import FakeClock

Headers = Iterable[tuple[bytes, bytes]]


LEAVES = b"the client leaves"


class RecordingMetrics(RequestMetrics):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.in_flight = 0
        self.finished_requests: list[tuple[str, str, int]] = []
        self.durations: list[float] = []

    def started(self) -> None:
        """Count a request."""
        self.in_flight += 1

    def finished(self, method: str, route: str, status: int, duration_seconds: float) -> None:
        """Keep a request."""
        self.in_flight -= 1
        self.finished_requests.append((method, route, status))
        self.durations.append(duration_seconds)


class Service:
    """An application with the pass around it, and a server's end to send requests by."""

    def __init__(self, *, settings: Settings | None = None, **limits: float) -> None:
        settings = settings or Settings(environment="test", limits=LimitSettings(**limits))
        configure_logging(settings)
        self.metrics = RecordingMetrics()
        self.app = FastAPI(
            middleware=[
                Middleware(
                    RequestMiddleware,
                    limits=settings.limits,
                    metrics=self.metrics,
                    access_log=AccessLog(settings),
                )
            ]
        )
        install_problem_handlers(self.app)

    async def request(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Headers = (),
        body: Iterable[bytes] = (b"",),
        http_version: str = "1.1",
    ) -> "Answer":
        """Send a request; without a body it never ends, and `LEAVES` is the client's end."""
        answer = Answer()
        chunks = list(body)

        async def receive() -> Message:
            if not chunks:
                await asyncio.Event().wait()
            chunk = chunks.pop(0)
            if chunk is LEAVES:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

        async def send(message: Message) -> None:
            answer.messages.append(message)

        await self.app(_scope(path, method, headers, http_version), receive, send)
        return answer


class Answer:
    """The messages of one answer."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    @property
    def status(self) -> int:
        """The status."""
        status: int = self.messages[0]["status"]
        return status

    @property
    def body(self) -> bytes:
        """All bytes that came."""
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def problem(self) -> str:
        """The slug of the problem that it is."""
        assert self.header(b"content-type") == b"application/problem+json"
        slug: str = json.loads(self.body)["type"].removeprefix("/problems/")
        return slug

    @property
    def is_complete(self) -> bool:
        """Whether the end of the body was announced."""
        return not self.messages[-1].get("more_body", False)

    def header(self, name: bytes) -> bytes:
        """The one value of a header."""
        (value,) = [v for n, v in self.messages[0]["headers"] if n == name]
        return bytes(value)


def _scope(path: str, method: str, headers: Headers, http_version: str) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": http_version,
        "method": method,
        "scheme": "http",
        "path": path.partition("?")[0],
        "raw_path": path.partition("?")[0].encode(),
        "query_string": path.partition("?")[2].encode(),
        "root_path": "",
        "headers": [(b"host", b"service.test"), *headers],
        "client": ("192.0.2.1", 50000),
        "server": ("service.test", 80),
    }


@pytest.fixture
def service() -> Service:
    """A service with a route that tells what it knows of the request."""
    service = Service()

    @service.app.get("/known")
    async def known() -> list[str | None]:
        return [context.request_id(), context.traceparent()]

    return service


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines that were logged since the last time."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


class TestRequestId:
    """`X-Request-ID` is taken over if it is sane."""

    @pytest.mark.parametrize(
        "given",
        [
            b"a",
            b"0b6f5a4e-8a3b-4b4c-9d36-6a4f7d2f8f10",
            b"01ARZ3NDEKTSV4RRFFQ69G5FAV",
            b"Root=1-67891233-abcdef012345678912345678",
            b"a.b_c~d:e+f/g=h@i-j",
            b"x" * 128,
        ],
    )
    async def test_a_sane_id_is_taken_over(self, service: Service, given: bytes) -> None:
        """The caller finds its own id in the answer, and code finds it in the context."""
        answer = await service.request("/known", headers=[(b"x-request-id", given)])
        assert answer.header(b"x-request-id") == given
        assert json.loads(answer.body)[0] == given.decode()

    @pytest.mark.parametrize(
        "headers",
        [
            [],
            [(b"x-request-id", b"")],
            [(b"x-request-id", b"x" * 129)],
            [(b"x-request-id", b"x" * 100_000)],
            [(b"x-request-id", b"a b")],
            [(b"x-request-id", b"a\x00b")],
            [(b"x-request-id", b"a\r\nSet-Cookie: b")],
            [(b"x-request-id", b"a\n")],
            [(b"x-request-id", b'a"b')],
            [(b"x-request-id", b"a\\b")],
            [(b"x-request-id", b"\x1b[31m")],
            [(b"x-request-id", "ä".encode("latin-1"))],
            [(b"x-request-id", "ä".encode())],
            [(b"x-request-id", b"one"), (b"x-request-id", b"two")],
            [(b"x-request-id", b"one"), (b"x-request-id", b"one"), (b"x-request-id", b"one")],
        ],
    )
    async def test_another_id_is_replaced(self, service: Service, headers: Headers) -> None:
        """What is too long, unsafe or ambiguous is not used, and a new id takes its place."""
        answer = await service.request("/known", headers=headers)
        made = answer.header(b"x-request-id").decode()
        assert len(made) == 32
        assert int(made, 16)

    async def test_made_ids_differ(self, service: Service) -> None:
        """No two requests get the same id, trace or span."""
        answers = [await service.request("/known") for _ in range(500)]
        traces = [answer.header(b"traceparent").split(b"-") for answer in answers]
        assert len({answer.header(b"x-request-id") for answer in answers}) == 500
        assert len({trace[1] for trace in traces}) == 500
        assert len({trace[2] for trace in traces}) == 500

    async def test_the_context_is_put_back(self, service: Service) -> None:
        """After the request nothing of it is left in the context of the caller."""
        await service.request("/known", headers=[(b"x-request-id", b"mine")])
        assert context.request_id() is None
        assert context.traceparent() is None

    async def test_threads_know_the_request(self, service: Service) -> None:
        """A plain function, which runs in a thread, sees the same ids."""

        @service.app.get("/thread")
        def thread() -> str | None:
            assert threading.current_thread() is not threading.main_thread()
            return context.request_id()

        answer = await service.request("/thread", headers=[(b"x-request-id", b"mine")])
        assert json.loads(answer.body) == "mine"


class TestTraceContext:
    """`traceparent` is read and written as W3C Trace Context has it."""

    TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
    SPAN = b"00f067aa0ba902b7"

    @pytest.mark.parametrize(
        ("given", "flags"),
        [
            (b"00-%b-%b-01", b"01"),
            (b"00-%b-%b-00", b"00"),
            (b"00-%b-%b-ff", b"01"),
            (b"00-%b-%b-02", b"00"),
            (b"cc-%b-%b-01", b"01"),
            (b"cc-%b-%b-01-what-the-future-will-be-like", b"01"),
            (b"01-%b-%b-00-", b"00"),
        ],
    )
    async def test_a_valid_trace_is_continued(
        self, service: Service, given: bytes, flags: bytes
    ) -> None:
        """The trace goes on with a span of our own, in version 00, and only known flags."""
        answer = await service.request(
            "/known", headers=[(b"traceparent", given % (self.TRACE, self.SPAN))]
        )
        version, trace, span, sent_flags = answer.header(b"traceparent").split(b"-")
        assert (version, trace, sent_flags) == (b"00", self.TRACE, flags)
        assert span != self.SPAN
        assert len(span) == 16
        assert int(span, 16)
        assert json.loads(answer.body)[1] == answer.header(b"traceparent").decode()

    @pytest.mark.parametrize(
        "given",
        [
            b"",
            b"00",
            b"00-%b-%b" % (TRACE, SPAN),
            b"00-%b-%b-01-extra" % (TRACE, SPAN),
            b"00-%b-%b-01-" % (TRACE, SPAN),
            b"00-%b-%b-01 " % (TRACE, SPAN),
            b"00-%b-%b-01\n" % (TRACE, SPAN),
            b"00-%b-%b-1" % (TRACE, SPAN),
            b"00-%b-%b-0x" % (TRACE, SPAN),
            b"0-%b-%b-01" % (TRACE, SPAN),
            b"ff-%b-%b-01" % (TRACE, SPAN),
            b"cc-%b-%b-01.what-the-future" % (TRACE, SPAN),
            b"00-%b-%b-01" % (TRACE.upper(), SPAN),
            b"00-%b-%b-01" % (TRACE, SPAN.upper()),
            b"00-%b-%b-01" % (b"0" * 32, SPAN),
            b"00-%b-%b-01" % (TRACE, b"0" * 16),
            b"00-%b-%b-01" % (TRACE[:-1], SPAN),
            b"00-%b-%b-01" % (TRACE + b"a", SPAN),
            b"00-%b-%b-01" % (b"g" * 32, SPAN),
            b"00_%b_%b_01" % (TRACE, SPAN),
            b"x" * 100_000,
            "ä".encode("latin-1") * 55,
        ],
    )
    async def test_an_invalid_trace_is_replaced(self, service: Service, given: bytes) -> None:
        """A new trace begins that says nothing of being sampled."""
        answer = await service.request("/known", headers=[(b"traceparent", given)])
        version, trace, span, flags = answer.header(b"traceparent").split(b"-")
        assert (version, flags) == (b"00", b"00")
        assert trace.lower() != self.TRACE
        assert (len(trace), len(span)) == (32, 16)

    async def test_two_traces_are_none(self, service: Service) -> None:
        """A header that comes twice cannot be trusted, even where both say the same."""
        given = b"00-%b-%b-01" % (self.TRACE, self.SPAN)
        answer = await service.request("/known", headers=[(b"traceparent", given)] * 2)
        assert answer.header(b"traceparent").split(b"-")[1] != self.TRACE

    async def test_a_trace_is_continued_beside_a_made_id(self, service: Service) -> None:
        """Either header works without the other."""
        given = b"00-%b-%b-01" % (self.TRACE, self.SPAN)
        answer = await service.request("/known", headers=[(b"traceparent", given)])
        assert len(answer.header(b"x-request-id")) == 32


class TestRecords:
    """Each request is counted and logged once."""

    async def test_a_request_is_counted_and_logged(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Figures and line agree."""
        answer = await service.request("/known", headers=[(b"x-request-id", b"mine")])
        assert service.metrics.finished_requests == [("GET", "/known", 200)]
        assert service.metrics.in_flight == 0
        (line,) = logged(capsys)
        assert line.pop("timestamp").endswith("+00:00")
        assert line.pop("duration_seconds") == pytest.approx(service.metrics.durations[0], abs=1e-6)
        assert line == {
            "level": "info",
            "logger": "example_service.access",
            "event": "request",
            "request_id": "mine",
            "trace_id": answer.header(b"traceparent").decode()[3:35],
            "method": "GET",
            "route": "/known",
            "status": 200,
            "client": "192.0.2.1",
        }

    async def test_what_routes_bind_is_on_the_line(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Context bound while serving reaches the access line, escaped."""

        @service.app.get("/bound")
        async def bound() -> None:
            structlog.contextvars.bind_contextvars(customer='7"\n')

        await service.request("/bound")
        structlog.contextvars.clear_contextvars()
        (line,) = logged(capsys)
        assert (line["customer"], line["route"], line["status"]) == ('7"\n', "/bound", 200)

    async def test_no_input_reaches_the_line_unescaped(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A path is not logged at all, and a method that a server let through is escaped."""
        await service.request('/x"\n{"event":"forged"}', method='GE"T\n')
        (line,) = logged(capsys)
        assert (line["method"], line["route"]) == ('GE"T\n', "unmatched")

    @pytest.mark.parametrize("log", [LogSettings(access=False), LogSettings(level="WARNING")])
    async def test_the_line_can_be_switched_off(
        self, log: LogSettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """By its own setting, and by a level above its own."""
        service = Service(settings=Settings(environment="test", log=log))
        await service.request("/nowhere")
        assert logged(capsys) == []
        assert service.metrics.finished_requests == [("GET", "unmatched", 404)]

    async def test_the_duration_ends_with_the_answer(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is done in the background afterwards does not count as answering."""
        clock = FakeClock()
        monkeypatch.setattr("example_service.api.request.exchange.perf_counter", clock)

        @service.app.get("/background")
        async def background(tasks: BackgroundTasks) -> None:
            async def work() -> None:
                clock.advance(100)

            clock.advance(2)
            tasks.add_task(work)

        await service.request("/background")
        assert service.metrics.durations == [2]

    async def test_other_protocols_pass_through(self, service: Service) -> None:
        """The lifespan is no request."""
        messages: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent: list[str] = []

        async def receive() -> Message:
            return messages.pop(0)

        async def send(message: Message) -> None:
            sent.append(message["type"])

        await service.app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert service.metrics.finished_requests == []


class TestFailures:
    """Whatever the application does, there is one answer, one line and one figure."""

    async def test_a_failure_after_the_answer_began_ends_the_connection(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """No second answer is sent, the first is not ended, and it counts as failed."""

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

    async def test_a_failure_after_the_answer_ended_is_logged(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The client has its answer; the log has the fault."""

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
        """Who ends the task, a server that stops, is not held up; the request counts as closed."""
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

    async def test_a_request_that_awaits_what_was_cancelled_gets_a_problem(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Its own task is not, so its client waits for an answer."""

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

    async def test_a_plain_text_error_in_pieces_is_put_together(self, service: Service) -> None:
        """The detail is the whole text of a refusal, however it was sent."""

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

    async def test_plain_text_that_is_no_error_is_left_alone(self, service: Service) -> None:
        """Only errors are turned into problems."""
        service.app.add_route("/text", lambda _: PlainTextResponse("fine", 203))
        answer = await service.request("/text")
        assert (answer.status, answer.body) == (203, b"fine")


class TestBodyLimit:
    """`LIMITS__MAX_BODY_BYTES`."""

    @pytest.fixture
    def service(self) -> Service:
        """A service that takes ten bytes."""
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
        """Ten bytes are not more than ten."""
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
    async def test_a_declared_length_above_it_is_refused(
        self, service: Service, headers: Headers
    ) -> None:
        """Nothing of the body is read."""
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
    async def test_more_bytes_than_that_are_refused(
        self, service: Service, path: str, headers: Headers, http_version: str
    ) -> None:
        """Where the declared length is missing, false or nonsense, the bytes are counted."""
        answer = await service.request(
            path,
            method="POST",
            headers=[*headers, (b"content-type", b"application/json")],
            body=[b"[1,", b"2,", b"3,4,5,6,7]", b""],
            http_version=http_version,
        )
        assert (answer.status, answer.problem) == (413, "body-too-large")

    async def test_an_application_that_knows_no_handlers_is_limited(self, service: Service) -> None:
        """The limit is the service's own, and holds for whatever is mounted."""

        async def drain(_scope: Scope, receive: Receive, _send: Send) -> None:
            while (await receive())["more_body"]:
                pass

        service.app.mount("/raw", drain)
        answer = await service.request(
            "/raw/", method="POST", headers=[(b"transfer-encoding", b"chunked")], body=[b"x" * 11]
        )
        assert (answer.status, answer.problem) == (413, "body-too-large")


class TestTimeLimit:
    """`LIMITS__REQUEST_TIMEOUT_SECONDS`."""

    @pytest.fixture
    def service(self) -> Service:
        """A service without patience."""
        return Service(request_timeout_seconds=0.001, receive_timeout_seconds=0.001)

    async def test_an_answer_that_does_not_begin_in_time_is_given_up(
        self, service: Service
    ) -> None:
        """The work is cancelled, cleans up, and the client learns that the outcome is open."""
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

    async def test_a_thread_does_not_hold_the_answer_up(self, service: Service) -> None:
        """What runs in a thread cannot be stopped, but its client does not wait for it."""
        released = threading.Event()

        @service.app.get("/thread")
        def thread() -> None:
            released.wait(10)

        try:
            answer = await service.request("/thread")
        finally:
            released.set()
        assert (answer.status, answer.problem) == (504, "request-timeout")

    async def test_a_body_that_does_not_come_is_the_clients_fault(self, service: Service) -> None:
        """The client is told that it was too slow, and the connection is given up."""

        @service.app.post("/body")
        async def body(request: Request) -> int:
            return len(await request.body())

        answer = await service.request(
            "/body", method="POST", headers=[(b"content-length", b"5")], body=()
        )
        assert (answer.status, answer.problem) == (408, "body-too-slow")
        assert answer.header(b"connection") == b"close"

    async def test_an_answer_that_has_begun_takes_as_long_as_it_needs(
        self, service: Service
    ) -> None:
        """A stream is not cut, however long after the limit it ends."""
        long_after_the_limit = asyncio.Event()
        asyncio.get_running_loop().call_later(0.02, long_after_the_limit.set)

        async def chunks() -> AsyncIterator[bytes]:
            yield b"x"
            await long_after_the_limit.wait()
            yield b"y"

        @service.app.get("/stream")
        async def stream() -> StreamingResponse:
            return StreamingResponse(chunks())

        answer = await service.request("/stream")
        assert (answer.status, answer.body, answer.is_complete) == (200, b"xy", True)

    async def test_another_cancellation_at_the_same_time_wins(self, service: Service) -> None:
        """A server that stops is obeyed, even if the time was over as well."""
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

    async def test_an_error_in_the_cleaning_up_does_not_change_the_answer(
        self, service: Service
    ) -> None:
        """The request was late first, whatever went wrong then."""

        @service.app.get("/waits")
        async def waits() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise LookupError("of a book")

        answer = await service.request("/waits")
        assert (answer.status, answer.problem) == (504, "request-timeout")

    async def test_requests_that_are_late_together_are_cancelled_once(self) -> None:
        """Each of them cleans up to its end, and gets a problem."""
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
        """The server cancels what has not finished; its client learns that the outcome is open."""
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
        """Only what was cancelled has timed out."""

        @service.app.get("/fails")
        async def fails() -> None:
            raise LookupError("of a book")

        begin_draining()
        try:
            answer = await service.request("/fails")
        finally:
            end_draining()

        assert answer.problem == "internal-error"


class TestUnfinishedRequests:
    """A request whose body has not arrived does not count as one in flight."""

    @pytest.fixture
    def service(self) -> Service:
        """A service that works on two requests at once."""
        service = Service(max_concurrent_requests=2)

        @service.app.post("/body")
        async def body(request: Request) -> int:
            return len(await request.body())

        return service

    async def test_bodies_that_do_not_come_take_no_slot(self, service: Service) -> None:
        """Others are served meanwhile, with a body and without."""
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

    async def test_a_client_that_leaves_before_its_body_is_there_is_logged_once(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As 499, without an answer and without an error."""
        answer = await service.request(
            "/body", method="POST", headers=[(b"content-length", b"5")], body=[b"x", LEAVES]
        )

        assert answer.messages == []
        assert service.metrics.finished_requests == [("POST", "unmatched", 499)]
        (line,) = logged(capsys)
        assert line["status"] == 499

    async def test_a_large_body_begins_before_its_end(self) -> None:
        """Where the service takes bodies that are larger than what is kept."""
        service = Service(max_body_bytes=1_000_000)
        pieces = [b"x" * 50_000] * 4

        @service.app.post("/body")
        async def body(request: Request) -> list[int]:
            return [len(piece) async for piece in request.stream()]

        answer = await service.request(
            "/body", method="POST", headers=[(b"transfer-encoding", b"chunked")], body=pieces
        )

        assert json.loads(answer.body) == [100_000, 50_000, 50_000, 0]


class TestHeads:
    """What a request's head may be."""

    @pytest.mark.parametrize(
        ("headers", "path", "status"),
        [
            ([(b"content-encoding", b"gzip")], "/known", 415),
            ([(b"content-encoding", b"gzip, identity")], "/known", 415),
            ([(b"content-encoding", b"identity")], "/known", 200),
            ([(b"a", b"b")] * MOST_HEADERS, "/known", 431),
            ([(b"a", b"b")] * (MOST_HEADERS - 1), "/known", 200),
            ([], "/known?" + "a&" * LONGEST_QUERY, 414),
        ],
    )
    async def test_what_is_not_supported_is_refused(
        self, service: Service, headers: Headers, path: str, status: int
    ) -> None:
        """Before anything of it is read."""
        answer = await service.request(path, headers=headers)
        assert answer.status == status
        if status != 200:
            assert answer.problem == f"http-{status}"
            assert answer.header(b"connection") == b"close"

    async def test_head_is_answered_wherever_get_is(self, service: Service) -> None:
        """With the headers of GET and without its body; metrics and log name the method."""
        get, head = [await service.request("/known", method=method) for method in ("GET", "HEAD")]
        assert (head.status, head.body, head.is_complete) == (200, b"", True)
        assert head.header(b"content-length") == get.header(b"content-length")
        assert service.metrics.finished_requests[1] == ("HEAD", "/known", 200)

    async def test_head_of_a_stream_ends(self, service: Service) -> None:
        """The stream itself may have no end: the server says that its client has left."""
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
        """Without its body, whatever it would be."""
        answer = await service.request("/nowhere", method="HEAD")
        assert (answer.status, answer.body) == (404, b"")


class TestConcurrencyLimit:
    """`LIMITS__MAX_CONCURRENT_REQUESTS`."""

    async def test_one_request_too_many_is_refused_at_once(self) -> None:
        """It may come back after a second; health and metrics are answered at any load."""
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


class TestMountedApplications:
    """Applications below the service."""

    async def test_they_are_labelled_by_their_mount(self, service: Service) -> None:
        """What a mounted application makes of a path is its own affair."""

        async def endpoint(_: Request) -> PlainTextResponse:
            return PlainTextResponse("here")

        service.app.mount("/below", Starlette(routes=[Route("/{a}/{b}", endpoint)]))
        statuses = [(await service.request(path)).status for path in ("/below/1/2", "/below/no")]
        assert statuses == [200, 404]
        assert {route for _, route, _ in service.metrics.finished_requests} == {"/below"}
