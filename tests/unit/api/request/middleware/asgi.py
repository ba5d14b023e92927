"""An application behind the middleware, called through ASGI messages like by a server."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import Message, Scope

from example_service.api.problems.answers import install_problem_handlers
from example_service.api.request.access_log import AccessLog
from example_service.api.request.middleware import RequestMiddleware
from example_service.core.logging import configure_logging
from example_service.core.settings import Settings
from example_service.core.settings.model import LimitSettings
from example_service.infra.metrics import RequestMetrics

Headers = Iterable[tuple[bytes, bytes]]

LEAVES = b"the client leaves"


class RecordingMetrics(RequestMetrics):
    """Records the requests that are reported to it."""

    def __init__(self) -> None:
        super().__init__()
        self.in_flight = 0
        self.finished_requests: list[tuple[str, str, int]] = []
        self.durations: list[float] = []

    def started(self) -> None:
        """Count a request that starts."""
        self.in_flight += 1

    def finished(self, method: str, route: str, status: int, duration_seconds: float) -> None:
        """Record a finished request."""
        self.in_flight -= 1
        self.finished_requests.append((method, route, status))
        self.durations.append(duration_seconds)


class Service:
    """An application with the middleware around it, and a method to send requests like a server."""

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
        """Send a request; an empty `body` never ends, and `LEAVES` disconnects the client."""
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
        """The status code."""
        status: int = self.messages[0]["status"]
        return status

    @property
    def body(self) -> bytes:
        """All bytes of the body."""
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def problem(self) -> str:
        """The slug of the problem in this answer."""
        assert self.header(b"content-type") == b"application/problem+json"
        slug: str = json.loads(self.body)["type"].removeprefix("/problems/")
        return slug

    @property
    def is_complete(self) -> bool:
        """Whether the end of the body was sent."""
        return not self.messages[-1].get("more_body", False)

    def header(self, name: bytes) -> bytes:
        """The single value of a header."""
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


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines that were logged since the last time."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
