"""Readiness checks, shared by concurrent callers."""

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
from example_service.infra.resilience.registry import configuration_key

LIMIT_SECONDS = 1.5
"""How long a check may take; the answer has to be there within two seconds."""

_log = structlog.get_logger("example_service.readiness")


@dataclass(frozen=True, slots=True)
class Check:
    """A check of something that the service needs.

    Attributes:
        name: What is checked, in a word or two.
        fault: Returns what is wrong, None if nothing is. An exception is a fault, too.
    """

    name: str
    fault: Callable[[], Awaitable[str | None]]


class Readiness:
    """Runs the checks concurrently, once for all who ask meanwhile, and not too often.

    So neither a prober nor a crowd of them can overload what is checked. An answer comes within the
    limit, whatever the checks do: one that takes longer is cancelled, and not started again before
    it has ended.

    Args:
        checks: What must be in order.
        limit_seconds: How long one check may take before that is a fault.
        kept_seconds: How long a result is kept before the checks run again.
        clock: The current time in seconds.
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
        """What is wrong, by the name of the check; empty if the service is ready."""
        return await self._kept.get()

    async def _run_checks(self) -> Mapping[str, str]:
        outcomes = await asyncio.gather(*map(self._fault, self._checks))
        faults = {
            check.name: fault
            for check, fault in zip(self._checks, outcomes, strict=True)
            if fault is not None
        }
        # What a reason says may change from second to second, as how long a circuit stays open.
        if faults.keys() != self._faults.keys():
            _log.warning("readiness changed", faults=faults)
        self._faults = faults
        return faults

    async def _fault(self, check: Check) -> str | None:
        if (overdue := self._overdue.get(check.name)) is not None and not overdue.done():
            return "no answer to an earlier check"
        # A coroutine of its own, because `fault` may be any awaitable.
        task = asyncio.create_task(_ask(check))
        # Not asyncio.timeout(), which would wait for the clean-up of what it cancels.
        await asyncio.wait([task], timeout=self._limit_seconds)
        if task.done():
            return task.result()
        task.cancel()
        self._overdue[check.name] = task
        return f"no answer within {self._limit_seconds:g} seconds"


async def _ask(check: Check) -> str | None:
    try:
        return await check.fault()
    except Exception as error:  # noqa: BLE001 - whatever it is, the check has failed
        return f"{type(error).__name__}: {error}"


def critical_breakers(registry: CircuitBreakerRegistry, names: frozenset[str]) -> Check:
    """Check that no circuit is open that the settings mark as critical.

    Args:
        registry: The breakers.
        names: Names of the critical ones, as in the settings. A breaker that does not exist yet is
            not open, and neither is one that only waits for a probe.
    """

    async def fault() -> str | None:
        if not names:
            return None
        opened = [one.name for one in registry.snapshots() if one.state is CircuitState.OPEN]
        critical = sorted(name for name in opened if configuration_key(name) in names)
        if critical:
            # In a fleet, a circuit stays open until a call asks for a probe. Without requests there
            # would be none.
            metrics = registry.get_all_metrics()
            critical = [n for n in critical if n in metrics and metrics[n]["retry_after"] != 0]
        return f"open: {', '.join(critical)}" if critical else None

    return Check("critical circuit breakers", fault)
