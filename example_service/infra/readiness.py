"""Readiness checks."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from example_service.infra.kept import KEPT_SECONDS, Kept
from example_service.infra.resilience import (
    CircuitBreakerRegistry,
    CircuitState,
)
from example_service.infra.resilience.parameters import configuration_key

LIMIT_SECONDS = 1.5
"""The time limit of one check, in seconds. The endpoint must reply within two seconds."""

_log = structlog.get_logger("example_service.readiness")


@dataclass(frozen=True, slots=True)
class Check:
    """A check of a dependency of the service.

    Attributes:
        name: A short name of the check, which is shown in the response.
        fault: Returns what is wrong, or None if nothing is. An exception counts as a fault.
    """

    name: str
    fault: Callable[[], Awaitable[str | None]]


class Readiness:
    """Runs all checks concurrently.

    Simultaneous callers share one run, and its result is kept for `kept_seconds`, so that frequent
    probes do not overload the dependencies. A check that exceeds the limit is cancelled and counts
    as failed. It is not started again until it has ended.

    Args:
        checks: The checks that must pass.
        limit_seconds: The time limit of each check, in seconds.
        kept_seconds: How long a result is kept, in seconds.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        checks: Sequence[Check],
        *,
        limit_seconds: float = LIMIT_SECONDS,
        kept_seconds: float = KEPT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = checks
        self._limit_seconds = limit_seconds
        self._faults: Mapping[str, str] = {}
        self._overdue: dict[str, asyncio.Task[str | None]] = {}
        self._kept = Kept(self._run_checks, seconds=kept_seconds, clock=clock)

    async def faults(self) -> Mapping[str, str]:
        """The faults by the name of their check; empty if the service is ready."""
        return await self._kept.get()

    async def _run_checks(self) -> Mapping[str, str]:
        outcomes = await asyncio.gather(*map(self._fault, self._checks))
        faults = {
            check.name: fault
            for check, fault in zip(self._checks, outcomes, strict=True)
            if fault is not None
        }
        # The texts may differ in every run, for example in how long a circuit stays open.
        if faults.keys() != self._faults.keys():
            _log.warning("readiness changed", faults=faults)
        self._faults = faults
        return faults

    async def _fault(self, check: Check) -> str | None:
        if (overdue := self._overdue.get(check.name)) is not None and not overdue.done():
            return "no response to an earlier check"
        # Wrapped in a coroutine, because `fault` may return any awaitable.
        task = asyncio.create_task(_ask(check))
        # asyncio.timeout() would wait until the cancelled check has cleaned up.
        await asyncio.wait([task], timeout=self._limit_seconds)
        if task.done():
            return task.result()
        task.cancel()
        self._overdue[check.name] = task
        return f"no response within {self._limit_seconds:g} seconds"


async def _ask(check: Check) -> str | None:
    try:
        return await check.fault()
    except Exception as error:  # noqa: BLE001 - any exception means that the check has failed
        return f"{type(error).__name__}: {error}"


def critical_breakers(registry: CircuitBreakerRegistry, names: frozenset[str]) -> Check:
    """Check that no critical circuit is open.

    A breaker that does not exist yet passes, and so does one whose open period has ended.

    Args:
        registry: The registry of the breakers.
        names: The names of the critical breakers, as in the settings.
    """

    async def fault() -> str | None:
        if not names:
            return None
        opened = [
            snapshot.name
            for snapshot in registry.snapshots()
            if snapshot.state is CircuitState.OPEN
        ]
        critical = sorted(name for name in opened if configuration_key(name) in names)
        if critical:
            # In a fleet, a circuit stays open until a call requests a probe. An instance that is
            # not ready gets no calls, so it must become ready when the open period has ended.
            metrics = registry.get_all_metrics()
            critical = [n for n in critical if n in metrics and metrics[n]["retry_after"] != 0]
        return f"open: {', '.join(critical)}" if critical else None

    return Check("critical circuit breakers", fault)
