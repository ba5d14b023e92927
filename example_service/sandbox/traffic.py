"""Generates calls at a steady rate, to show the payment provider's circuit at work in development.

The calls last as long as the request that starts them: closing the page, or Ctrl+C in curl, ends
them. They pass through the whole application, but not through the network.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Final

import httpx
from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from example_service.api.request.access_log import DASHBOARD
from example_service.api.request.callers import IN_PROCESS
from example_service.api.request.strict_route import StrictRoute
from example_service.core.lifecycle import is_draining

router = APIRouter(prefix="/sandbox", route_class=StrictRoute, include_in_schema=False)

_CALL: Final = "api/v1/exchange-rates/EUR"
_MAX_CONCURRENT: Final = 250
_REPORT_SECONDS: Final = 1.0


class Traffic(BaseModel):
    """The body of `POST /sandbox/traffic`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    calls_per_second: Annotated[int, Field(ge=1, le=100)] = 20


@router.post("/traffic", response_class=EventSourceResponse)
async def send_traffic(request: Request, traffic: Traffic) -> AsyncIterator[ServerSentEvent]:
    """Request an exchange rate repeatedly, and report once a second the responses by status."""
    transport = httpx.ASGITransport(
        partial(_call_as_dashboard, request.app), raise_app_exceptions=False, client=(DASHBOARD, 0)
    )
    async with httpx.AsyncClient(transport=transport, base_url=str(request.base_url)) as client:
        calls = _Calls(client)
        try:
            async for answers in calls.at_rate(traffic.calls_per_second):
                yield ServerSentEvent(raw_data=json.dumps({"answers": answers}))
        finally:
            await calls.cancel()


async def _call_as_dashboard(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a request to the application as one that does not need a key."""
    await app({**scope, IN_PROCESS: DASHBOARD}, receive, send)


class _Calls:
    """Concurrent calls."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._running: set[asyncio.Task[None]] = set()
        self._answers: Counter[int] = Counter()

    async def at_rate(self, calls_per_second: int) -> AsyncIterator[dict[int, int]]:
        """Start calls, and yield once a second the number of responses by status."""
        loop = asyncio.get_running_loop()
        next_call = next_report = loop.time()
        while not is_draining():
            now = loop.time()
            # If the process was paused, catch up on at most one second of calls.
            next_call = max(next_call, now - 1.0)
            while next_call <= now:
                next_call += 1.0 / calls_per_second
                if len(self._running) < _MAX_CONCURRENT:
                    task = asyncio.create_task(self._call())
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
            if now >= next_report:
                next_report = now + _REPORT_SECONDS
                answers, self._answers = self._answers, Counter()
                yield dict(answers)
            await asyncio.sleep(max(0.0, min(next_call, next_report) - loop.time()))

    async def cancel(self) -> None:
        """Cancel the calls in flight."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _call(self) -> None:
        with contextlib.suppress(httpx.HTTPError):
            response = await self._client.get(_CALL)
            self._answers[response.status_code] += 1
