"""Whether this instance can do its work, asked often and by many."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError

from example_service.core.exceptions import ExampleServiceError
from example_service.infra.database.failures import what_it_said
from example_service.infra.resilience import (
    CircuitBreakerRegistry,
    CircuitOpenError,
    CircuitState,
)
from example_service.infra.resilience.registry import configuration_key

LIMIT_SECONDS = 2.0
KEPT_SECONDS = 1.0

_log = structlog.get_logger("example_service.readiness")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the service cannot do without.

    Attributes:
        name: What is checked, in a word or two.
        fault: Tells what is wrong, None if nothing is. May raise: that is a fault, too.
    """

    name: str
    fault: Callable[[], Awaitable[str | None]]


class Readiness:
    """Runs the checks: all at once, once for everybody who asks meanwhile, and not too often.

    So neither a prober nor a crowd of them can overload what is checked.

    Args:
        checks: What must be in order.
        limit_seconds: How long one check may take before that is a fault.
        kept_seconds: How long an outcome stands before the checks are run again.
        clock: Where "now" comes from, in seconds.
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
        self._kept_seconds = kept_seconds
        self._clock = clock
        self._faults: Mapping[str, str] = {}
        self._known_until: float | None = None
        self._run: asyncio.Task[Mapping[str, str]] | None = None

    async def faults(self) -> Mapping[str, str]:
        """Tell what is wrong, by the name of the check; nothing if the service is ready."""
        if self._known_until is not None and self._clock() < self._known_until:
            return self._faults
        if self._run is None:
            self._run = asyncio.create_task(self._run_checks())
            self._run.add_done_callback(self._finish)
        # One who stops waiting must not take the outcome from the others.
        return await asyncio.shield(self._run)

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
        self._known_until = self._clock() + self._kept_seconds
        return faults

    async def _fault(self, check: Check) -> str | None:
        try:
            async with asyncio.timeout(self._limit_seconds):
                return await check.fault()
        except TimeoutError:
            return f"no answer within {self._limit_seconds:g} seconds"
        except (ExampleServiceError, CircuitOpenError) as error:
            return str(error)
        except SQLAlchemyError as error:
            return what_it_said(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the check has failed
            return f"{type(error).__name__}: {error}"

    def _finish(self, _: asyncio.Task[Mapping[str, str]]) -> None:
        self._run = None


def critical_breakers(registry: CircuitBreakerRegistry, names: frozenset[str]) -> Check:
    """Check that no circuit is open which the settings call critical.

    Args:
        registry: Where the breakers are.
        names: Names of the critical ones, as the settings have them; one that does not exist yet
            is not open.
    """

    async def fault() -> str | None:
        opened = [one.name for one in registry.snapshots() if one.state is CircuitState.OPEN]
        critical = sorted(name for name in opened if configuration_key(name) in names)
        return f"open: {', '.join(critical)}" if critical else None

    return Check("critical circuit breakers", fault)
