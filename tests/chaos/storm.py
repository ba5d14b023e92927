"""The events of a storm: what happens to the service, in which order and when."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

PROVIDER_TIMEOUT_SECONDS: Final = 0.5
"""The service's timeout; a slow provider takes longer than that."""

GIVE_UP_SECONDS: Final = 8.0
"""The age at which the service gives up a payment."""

CLAIM_SECONDS: Final = 3.0
"""How long a payment belongs to the process that claimed it."""

_PAUSE_SECONDS: Final = (0.1, 1.7)
_DOWN_SECONDS: Final = (0.1, 1.5)
_DELAY_SECONDS: Final = (1.1 * PROVIDER_TIMEOUT_SECONDS, 20 * GIVE_UP_SECONDS)
"""The delay of late charges, most of which arrive after every limit."""
_LATENCY_SECONDS: Final = (1.1 * PROVIDER_TIMEOUT_SECONDS, 3 * PROVIDER_TIMEOUT_SECONDS)
_FAILURE_RATE: Final = (0.3, 0.8)
_SHARE_OF_WHOLE_SERVICE: Final = 0.25
_SUSPENDED_SECONDS: Final = (1.1 * CLAIM_SECONDS, 1.6 * CLAIM_SECONDS)
"""Longer than a claim and shorter than the time limit of a request."""
_KILLS_FOR_A_RESTART: Final = 12
_KILLS_FOR_A_SUSPENSION: Final = 6
# Healthy appears more often; otherwise there would be little to interrupt.
_MODES: Final = (
    *("healthy", "healthy", "healthy", "failing", "slow", "hanging", "refusing", "garbled"),
    *("flaky", "late", "intercepted"),
)
LATE_SECONDS: Final = 1.25 * GIVE_UP_SECONDS
"""How long charges are delayed in a late phase; some payments are given up meanwhile."""


class Disruption(Enum):
    """The kinds of events."""

    KILL_WORKER = auto()
    KILL_SERVICE = auto()
    RESTART = auto()
    SUSPEND_SERVICE = auto()
    CRASH_DATABASE = auto()
    TURN_PROVIDER = auto()


@dataclass(frozen=True, slots=True)
class StormEvent:
    """One event of a storm.

    Attributes:
        disruption: The kind of event.
        pause_seconds: The pause after the previous event.
        down_seconds: How long the database is down or the service suspended.
        mode: The new mode of the provider.
        lasts_seconds: How long no other event follows.
    """

    disruption: Disruption
    pause_seconds: float
    down_seconds: float = 0.0
    mode: dict[str, object] = field(default_factory=dict)
    lasts_seconds: float = 0.0


def plan(seed: int, kills: int, crashes: int, workers: int) -> list[StormEvent]:
    """Draw a storm; the same arguments draw the same one.

    Args:
        seed: Any number.
        kills: How often a worker or the whole service (with one worker, always that) is killed.
        crashes: How often the database crashes.
        workers: The number of workers.
    """
    chance = random.Random(f"{seed}/storm")
    disruptions = [Disruption.CRASH_DATABASE] * crashes + [Disruption.RESTART] * (
        kills // _KILLS_FOR_A_RESTART
    )
    disruptions += [Disruption.SUSPEND_SERVICE] * (kills // _KILLS_FOR_A_SUSPENSION)
    disruptions += [Disruption.TURN_PROVIDER] * (kills + crashes)
    for _ in range(kills):
        whole = workers == 1 or chance.random() < _SHARE_OF_WHOLE_SERVICE
        disruptions.append(Disruption.KILL_SERVICE if whole else Disruption.KILL_WORKER)
    chance.shuffle(disruptions)
    modes = _modes(chance)
    return [_event(disruption, chance, modes) for disruption in disruptions]


def _modes(chance: random.Random) -> Iterator[str]:
    """Draw each mode once before one is repeated."""
    while True:
        yield from chance.sample(_MODES, len(_MODES))


def _event(disruption: Disruption, chance: random.Random, modes: Iterator[str]) -> StormEvent:
    pause = chance.uniform(*_PAUSE_SECONDS)
    if disruption is Disruption.CRASH_DATABASE:
        return StormEvent(disruption, pause, down_seconds=chance.uniform(*_DOWN_SECONDS))
    if disruption is Disruption.SUSPEND_SERVICE:
        return StormEvent(disruption, pause, down_seconds=chance.uniform(*_SUSPENDED_SECONDS))
    if disruption is Disruption.TURN_PROVIDER:
        mode = next(modes)
        lasts_seconds = LATE_SECONDS if mode == "late" else 0.0
        return StormEvent(
            disruption, pause, mode=_change(mode, chance), lasts_seconds=lasts_seconds
        )
    return StormEvent(disruption, pause)


def _change(mode: str, chance: random.Random) -> dict[str, object]:
    change: dict[str, object] = {"mode": mode}
    if mode in ("slow", "flaky"):
        change["latency_seconds"] = chance.uniform(*_LATENCY_SECONDS)
    if mode == "late":
        change["latency_seconds"] = chance.uniform(*_DELAY_SECONDS)
    if mode == "flaky":
        change["failure_rate"] = chance.uniform(*_FAILURE_RATE)
    return change
