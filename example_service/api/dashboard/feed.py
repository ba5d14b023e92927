"""One task that polls the circuits for any number of open pages.

While a page is open, the task reads the reports of all workers once a second, and within a tenth of
a second of a change of state in this process. While none is open, it polls every five seconds to
keep the history.

There are no queues, so a slow reader costs nothing. When a page can take more, its next message
contains the difference between what it has received and the current data. Pages that have received
the same messages share the same text.
"""

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from example_service import __version__
from example_service.api.breakers.all_workers import AllWorkers, ServiceReport
from example_service.api.dashboard.circuits import circuit_view, status_of
from example_service.api.dashboard.history import BUCKET_SECONDS, History, Status
from example_service.api.dashboard.timeline import Entry, timeline
from example_service.core.background import KeepGoing
from example_service.core.lifecycle import is_draining
from example_service.core.settings import Settings
from example_service.infra.resilience import circuit_breaker_registry

logger = logging.getLogger(__name__)

MAX_PAGES: Final = 200
"""Pages that one worker process serves at once."""

MAX_CIRCUITS: Final = 1_000
"""Circuits that a page shows. If there are more, those that need attention take precedence."""

_TICK_SECONDS: Final = 0.1
_WATCHED_SECONDS: Final = 1.0
_UNWATCHED_SECONDS: Final = float(BUCKET_SECONDS)
_MAX_SHARE: Final = 0.02
"""The share of time that polling several workers more often than once a second may take."""

_SEVERITY: Final = ("open", "half_open", "forced_open", "disabled", "shadow", "closed")


class Feed:
    """Polls the circuits and makes the messages for the pages.

    Args:
        settings: The settings of the service.
        workers: The source of reports on all workers.
        clock: Returns the wall-clock time in seconds since the epoch.
    """

    def __init__(
        self, settings: Settings, workers: AllWorkers, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._service = {
            "name": "Example service",
            "version": __version__,
            "environment": settings.environment,
            "instance": socket.gethostname(),
            "hasAdmin": settings.admin.token is not None,
        }
        self._workers = workers
        self._clock = clock
        self._history = History()
        self._pages: set[asyncio.Event] = set()
        self._wake = asyncio.Event()
        self._has_ended = False
        self._tick = 0
        self._at = 0.0
        self._head: dict[str, Any] = {}
        self._circuits: dict[str, str] = {}
        self._changed: dict[str, int] = {}
        self._statuses: dict[str, Status] = {}
        self._names: list[str] = []
        self._names_changed = 0
        self._timeline: list[Entry] = []
        self._timeline_changed = 0
        self._messages: dict[int, str] = {}

    @property
    def pages(self) -> int:
        """The number of open pages."""
        return len(self._pages)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll the circuits until the end of the block."""
        task = asyncio.create_task(self._run(), name="dashboard")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def messages(self) -> AsyncIterator[str]:
        """Yield the messages for one page as JSON: first all data, then the changes."""
        news = asyncio.Event()
        seen, seen_at = 0, 0.0
        self._pages.add(news)
        self._wake.set()
        try:
            while True:
                await news.wait()
                news.clear()
                if self._has_ended:
                    return
                # A message contains the last two buckets. A page that has missed more than those
                # needs all data again.
                if self._at - seen_at > BUCKET_SECONDS:
                    seen = 0
                text = self._message(seen)
                seen, seen_at = self._tick, self._at
                yield text
        finally:
            self._pages.discard(news)

    async def _run(self) -> None:
        keep_going = KeepGoing(logger, "The dashboard could not poll the circuits")
        while not is_draining():
            with keep_going:
                await self._pause(await self._poll())
                continue
            await asyncio.sleep(_WATCHED_SECONDS)
        self._has_ended = True
        self._publish()

    async def _poll(self) -> float:
        """Poll the circuits once and return the seconds until the next poll."""
        started = time.perf_counter()
        report = await self._workers.report()
        self._show(report)
        return self._seconds_until_next(report, time.perf_counter() - started)

    def _seconds_until_next(self, report: ServiceReport, took: float) -> float:
        """Return the seconds until the next poll, unless a change in this process causes one."""
        if not self._pages:
            return _UNWATCHED_SECONDS
        # Changes in other workers and the ends of waits are found only by polling.
        are_several = len(report.workers) + len(report.silent_workers) > 1
        seconds = took / _MAX_SHARE if are_several else _WATCHED_SECONDS
        ends = [
            breaker.retry_after for breaker in report.breakers.values() if breaker.retry_after
        ] + [mode.ends_in for mode in report.modes.values() if mode.ends_in]
        return max(_TICK_SECONDS, min([seconds, _WATCHED_SECONDS, *ends]))

    async def _pause(self, seconds: float) -> None:
        """Wait for some seconds, or until something changes here or a page opens."""
        before = _local_state()
        ends_at = time.monotonic() + seconds
        tick = _TICK_SECONDS if self._pages else _WATCHED_SECONDS
        while (left := ends_at - time.monotonic()) > 0 and not is_draining():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(left, tick))
                return
            if _local_state() != before:
                return

    def _show(self, report: ServiceReport) -> None:
        """Process one report, and publish it if something has changed or a second has passed."""
        now = self._clock()
        names = sorted(report.breakers.keys() | report.modes.keys())
        modes = {
            name: (report.breakers[name].mode if name in report.breakers else None)
            or report.modes.get(name)
            for name in names
        }
        statuses = {name: status_of(report.breakers.get(name), modes[name]) for name in names}
        if len(names) > MAX_CIRCUITS:
            names.sort(key=lambda name: _SEVERITY.index(statuses[name]))
        left_out = max(0, len(names) - MAX_CIRCUITS)
        names = names[:MAX_CIRCUITS]
        self._history.add(
            {name: (statuses[name], report.breakers.get(name)) for name in names},
            report.transitions,
            [] if report.silent_workers else report.workers,
            now,
        )
        entries = timeline(report.transitions, report.orders, now)
        has_news = statuses != self._statuses or entries != self._timeline
        is_due = (
            has_news
            or self._wake.is_set()
            or abs(now - self._at) >= _WATCHED_SECONDS - _TICK_SECONDS
        )
        if not self._pages or not is_due:
            return
        self._statuses = statuses
        tick = self._tick + 1
        for name, history in self._history.circuits.items():
            view = circuit_view(name, report.breakers.get(name), modes.get(name), history, now)
            head = json.dumps(view, separators=(",", ":"))
            tail = json.dumps(list(history.buckets)[-2:], separators=(",", ":"))
            text = f'{head[:-1]},"calls":{tail}}}'
            if self._circuits.get(name) != text:
                self._circuits[name] = text
                self._changed[name] = tick
        names = list(self._history.circuits)
        for name in self._circuits.keys() - names:
            del self._circuits[name], self._changed[name]
        if names != self._names:
            self._names = names
            self._names_changed = tick
        if entries != self._timeline:
            self._timeline = entries
            self._timeline_changed = tick
        self._tick, self._at = tick, now
        self._head = {
            "at": round(now, 2),
            "workers": report.workers,
            "silentWorkers": report.silent_workers,
            "leftOut": left_out,
        }
        self._publish()

    def _publish(self) -> None:
        self._wake.clear()
        self._messages.clear()
        for news in self._pages:
            news.set()

    def _message(self, seen: int) -> str:
        """Return the message for a page whose last message was that of tick `seen`, 0 for none."""
        if (text := self._messages.get(seen)) is None:
            text = self._messages[seen] = self._compose(seen)
        return text

    def _compose(self, seen: int) -> str:
        head = dict(self._head)
        if seen == 0:
            head["service"] = self._service
        if self._names_changed > seen:
            head["names"] = self._names
        if self._timeline_changed > seen:
            head["timeline"] = self._timeline
        circuits = [text for name, text in self._circuits.items() if self._changed[name] > seen]
        if seen == 0:
            circuits = [self._with_all_calls(name) for name in self._circuits]
        return f'{json.dumps(head)[:-1]},"circuits":[{",".join(circuits)}]}}'

    def _with_all_calls(self, name: str) -> str:
        shown, _, _ = self._circuits[name].rpartition(',"calls":')
        calls = list(self._history.circuits[name].buckets)
        return f'{shown},"calls":{json.dumps(calls, separators=(",", ":"))}}}'


def _local_state() -> object:
    """A value that changes with each change of state and each order in this process."""
    return (
        circuit_breaker_registry.recent_transitions()[:1],
        circuit_breaker_registry.recent_orders()[:1],
        tuple(circuit_breaker_registry.modes()),
    )
