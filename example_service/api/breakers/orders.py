"""Orders of operators, which all processes of the fleet carry out."""

from dataclasses import dataclass

from example_service.api.breakers.all_workers import AllWorkers, ServiceReport
from example_service.api.problems import catalogue
from example_service.api.problems.answers import ProblemError
from example_service.infra.fleet.store import StoreError
from example_service.infra.resilience import (
    CircuitState,
    Mode,
    NamedMode,
    circuit_breaker_registry,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an order.

    Attributes:
        state: The worst state among the workers after the order. None if no worker has a breaker of
            that name.
        workers: Process ids of the workers that carried out the order.
        silent_workers: Process ids of the workers that did not confirm it in time.
        fault: Why the order applies to this process only. None if it applies to the whole fleet.
    """

    state: CircuitState | None
    workers: list[int]
    silent_workers: list[int]
    fault: str | None = None


async def carry_out(
    workers: AllWorkers, name: str, mode: NamedMode | None, reason: str | None
) -> Outcome:
    """Set the mode of the breakers of one name in the whole fleet, or reset them.

    If two orders are given at the same time, the one that is written last applies everywhere.

    Args:
        workers: All workers of the service on this machine.
        name: The name of the breakers.
        mode: The mode to set. None resets the breakers.
        reason: Why. None if a reset was given no reason.

    Raises:
        ProblemError: No worker has a breaker or a mode of that name.
    """
    if name not in circuit_breaker_registry:
        report = await workers.report()
        if name not in report.breakers and name not in report.modes:
            if report.silent_workers:
                return Outcome(None, [], report.silent_workers)
            raise ProblemError(catalogue.UNKNOWN_CIRCUIT_BREAKER)
    why = _why(mode, reason)
    if workers.member is None:
        await _apply(name, mode, why)
        return _outcome(name, await workers.own_report())
    try:
        version = await workers.member.order(
            name,
            None if mode is None else mode.mode,
            why,
            None if mode is None else mode.seconds,
            opens=mode is not None and mode.mode is Mode.FORCED_OPEN,
        )
    except StoreError as error:
        await _apply(name, mode, why)
        return _outcome(name, await workers.own_report(), fault=str(error))
    return _outcome(name, await workers.report_since(version))


def _outcome(name: str, report: ServiceReport, fault: str | None = None) -> Outcome:
    shown = report.breakers.get(name)
    state = None if shown is None else shown.state
    return Outcome(state, report.workers, report.silent_workers, fault)


def _why(mode: NamedMode | None, reason: str | None) -> str:
    """The reason that all processes remember with the order."""
    if mode is not None:
        return mode.reason
    return "reset by hand" if reason is None else f"reset by hand: {reason}"


async def _apply(name: str, mode: NamedMode | None, why: str) -> None:
    """Carry out an order in this process only."""
    if mode is None:
        await circuit_breaker_registry.reset(name, why)
    else:
        circuit_breaker_registry.set_mode(name, *mode)
