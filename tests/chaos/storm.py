"""What befalls the service: which strikes, in which order and at which distance."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

PROVIDER_TIMEOUT_SECONDS: Final = 0.5
"""What the service is told; a slow provider takes longer than that."""

GIVE_UP_SECONDS: Final = 8.0
"""The age at which the service gives a payment up."""

CLAIM_SECONDS: Final = 3.0
"""How long a payment belongs to the process that has taken it up."""

_PAUSE_SECONDS: Final = (0.1, 1.7)
_DOWN_SECONDS: Final = (0.1, 1.5)
_DELAY_SECONDS: Final = (1.1 * PROVIDER_TIMEOUT_SECONDS, 20 * GIVE_UP_SECONDS)
"""How late a charge arrives: after every limit, most of the time."""
_LATENCY_SECONDS: Final = (1.1 * PROVIDER_TIMEOUT_SECONDS, 3 * PROVIDER_TIMEOUT_SECONDS)
_FAILURE_RATE: Final = (0.3, 0.8)
_SHARE_OF_WHOLE_SERVICE: Final = 0.25
_SUSPENDED_SECONDS: Final = (1.1 * CLAIM_SECONDS, 1.6 * CLAIM_SECONDS)
"""Beyond every claim, and below the time limit of a request."""
_KILLS_FOR_A_RESTART: Final = 12
_KILLS_FOR_A_SUSPENSION: Final = 6
# Well several times, or there would be little left to interrupt.
_MODES: Final = (
    *("healthy", "healthy", "healthy", "failing", "slow", "hanging", "refusing", "garbled"),
    *("flaky", "late", "intercepted"),
)
LATE_SECONDS: Final = 1.25 * GIVE_UP_SECONDS
"""How long charges are late: some payments are given up meanwhile."""


class Blow(Enum):
    """What happens."""

    KILL_WORKER = auto()
    KILL_SERVICE = auto()
    RESTART = auto()
    SUSPEND_SERVICE = auto()
    CRASH_DATABASE = auto()
    TURN_PROVIDER = auto()


@dataclass(frozen=True, slots=True)
class Strike:
    """One thing that happens.

    Attributes:
        blow: What.
        pause_seconds: How long after the one before.
        down_seconds: How long the database stays away, or the service is suspended.
        mode: What the provider is told.
        lasts_seconds: How long nothing else happens then.
    """

    blow: Blow
    pause_seconds: float
    down_seconds: float = 0.0
    mode: dict[str, object] = field(default_factory=dict)
    lasts_seconds: float = 0.0


def plan(seed: int, kills: int, crashes: int, workers: int) -> list[Strike]:
    """Draw a storm; the same seed and numbers draw the same one.

    Args:
        seed: Any number.
        kills: How often a process is killed or, with one worker always, the whole service.
        crashes: How often the database crashes.
        workers: How many processes serve.
    """
    chance = random.Random(f"{seed}/storm")
    blows = [Blow.CRASH_DATABASE] * crashes + [Blow.RESTART] * (kills // _KILLS_FOR_A_RESTART)
    blows += [Blow.SUSPEND_SERVICE] * (kills // _KILLS_FOR_A_SUSPENSION)
    blows += [Blow.TURN_PROVIDER] * (kills + crashes)
    for _ in range(kills):
        whole = workers == 1 or chance.random() < _SHARE_OF_WHOLE_SERVICE
        blows.append(Blow.KILL_SERVICE if whole else Blow.KILL_WORKER)
    chance.shuffle(blows)
    modes = _modes(chance)
    return [_strike(blow, chance, modes) for blow in blows]


def _modes(chance: random.Random) -> Iterator[str]:
    """Draw all modes before one comes again."""
    while True:
        yield from chance.sample(_MODES, len(_MODES))


def _strike(blow: Blow, chance: random.Random, modes: Iterator[str]) -> Strike:
    pause = chance.uniform(*_PAUSE_SECONDS)
    if blow is Blow.CRASH_DATABASE:
        return Strike(blow, pause, down_seconds=chance.uniform(*_DOWN_SECONDS))
    if blow is Blow.SUSPEND_SERVICE:
        return Strike(blow, pause, down_seconds=chance.uniform(*_SUSPENDED_SECONDS))
    if blow is Blow.TURN_PROVIDER:
        mode = next(modes)
        lasts_seconds = LATE_SECONDS if mode == "late" else 0.0
        return Strike(blow, pause, mode=_change(mode, chance), lasts_seconds=lasts_seconds)
    return Strike(blow, pause)


def _change(mode: str, chance: random.Random) -> dict[str, object]:
    change: dict[str, object] = {"mode": mode}
    if mode in ("slow", "flaky"):
        change["latency_seconds"] = chance.uniform(*_LATENCY_SECONDS)
    if mode == "late":
        change["latency_seconds"] = chance.uniform(*_DELAY_SECONDS)
    if mode == "flaky":
        change["failure_rate"] = chance.uniform(*_FAILURE_RATE)
    return change
