"""Metrics and log lines of a request."""

import pytest
import structlog
from fastapi import BackgroundTasks
from starlette.types import Message

from example_service.core.settings import Settings
from example_service.core.settings.model import LogSettings
from example_service.infra.resilience.testing import FakeClock
from tests.unit.api.request.middleware.asgi import Service, logged


class TestRecords:
    """Each request is counted and logged once."""

    async def test_a_request_is_counted_and_logged(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The metrics and the log line agree."""
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

    async def test_fields_that_routes_bind_are_on_the_line(
        self, service: Service, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Fields bound to the context while serving appear on the access line, escaped."""

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
        """A path is never logged, and an unusual method is escaped."""
        await service.request('/x"\n{"event":"forged"}', method='GE"T\n')
        (line,) = logged(capsys)
        assert (line["method"], line["route"]) == ('GE"T\n', "unmatched")

    @pytest.mark.parametrize("log", [LogSettings(access=False), LogSettings(level="WARNING")])
    async def test_the_line_can_be_switched_off(
        self, log: LogSettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A setting of its own switches it off, and so does a higher log level."""
        service = Service(settings=Settings(environment="test", log=log))
        await service.request("/nowhere")
        assert logged(capsys) == []
        assert service.metrics.finished_requests == [("GET", "unmatched", 404)]

    async def test_the_duration_ends_with_the_answer(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Background tasks that run afterwards do not count."""
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
        """The lifespan protocol is not a request."""
        messages: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent: list[str] = []

        async def receive() -> Message:
            return messages.pop(0)

        async def send(message: Message) -> None:
            sent.append(message["type"])

        await service.app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert service.metrics.finished_requests == []
