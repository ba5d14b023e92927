"""The modes of the sandbox, and what each of them does to one call."""

import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

DEFAULT_LATENCY_SECONDS: Final = 1.0
LONGEST_LATENCY_SECONDS: Final = 60.0
LONGEST_DELAY_SECONDS: Final = 604_800.0
"""A week: longer than any limit of a client."""

DEFAULT_FAILURE_RATE: Final = 0.5
LARGEST_SEED: Final = 2**53 - 1
"""The largest integer that every JSON reader keeps exact."""


class SandboxMode(StrEnum):
    """What the provider does to the calls that reach it."""

    HEALTHY = auto()
    FAILING = auto()
    SLOW = auto()
    HANGING = auto()
    REFUSING = auto()
    GARBLED = auto()
    FLAKY = auto()
    LATE = auto()
    INTERCEPTED = auto()


class Damage(StrEnum):
    """How the body of a garbled answer is broken."""

    TRUNCATED = auto()
    """The connection ends before as many bytes as Content-Length announced have come."""
    INVALID_JSON = auto()
    """A whole body whose JSON stops in the middle."""
    NOT_JSON = auto()
    """The page of some proxy, sent as JSON."""
    WRONG_SHAPE = auto()
    """Valid JSON in which nothing is where the contract has it."""


class Impostor(StrEnum):
    """What answers an intercepted call in the provider's place."""

    PAGE = auto()
    """A gateway or a captive portal, with a page of HTML."""
    JSON = auto()
    """A gateway, with an error of its own in JSON."""
    NOTHING = auto()
    """A gateway, with a status and no body."""
    MISLABELLED = auto()
    """A cache, with a decline that names the key and is labelled as text."""
    ANOTHER_CHARGE = auto()
    """A cache, with the charge of another key."""
    ANOTHER_ORDER = auto()
    """A cache, with a charge that names the key, for another amount and customer."""
    ANOTHER_OUTCOME = auto()
    """A cache, with what became of another key, which was not charged."""


IMPOSTOR_STATUSES: Final = (200, 201, 400, 402, 403, 404, 409, 422)

_PARAMETER_MODES: Final = {
    "latency_seconds": (SandboxMode.SLOW, SandboxMode.FLAKY, SandboxMode.LATE),
    "failure_rate": (SandboxMode.FLAKY,),
    "seed": (SandboxMode.GARBLED, SandboxMode.FLAKY, SandboxMode.INTERCEPTED),
}


class ModeChange(BaseModel):
    """The body of `PUT /sandbox/mode`.

    A parameter that the mode does not use is refused, because it would have no effect.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    mode: SandboxMode
    latency_seconds: Annotated[
        float | None,
        Field(
            gt=0,
            le=LONGEST_DELAY_SECONDS,
            strict=True,
            allow_inf_nan=False,
            description="Seconds before a slow answer (with slow and flaky, at most 60), or before "
            "a late charge arrives (with late, at most a week). 1 unless given.",
        ),
    ] = None
    failure_rate: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            strict=True,
            allow_inf_nan=False,
            description="Share of the calls that meet a fault; with flaky. 0.5 unless given.",
        ),
    ] = None
    seed: Annotated[
        int | None,
        Field(
            ge=0,
            le=LARGEST_SEED,
            strict=True,
            description="The same seed gives the same faults in the same order; "
            "with garbled, flaky and intercepted.",
        ),
    ] = None

    @field_validator("latency_seconds")
    @classmethod
    def _bounded_answers(cls, value: float | None, info: ValidationInfo) -> float | None:
        is_late = info.data.get("mode") is SandboxMode.LATE
        if value is not None and not is_late and value > LONGEST_LATENCY_SECONDS:
            raise PydanticKnownError("less_than_equal", {"le": LONGEST_LATENCY_SECONDS})
        return value

    @field_validator("latency_seconds", "failure_rate", "seed")
    @classmethod
    def _only_where_it_works(cls, value: float | None, info: ValidationInfo) -> float | None:
        mode = info.data.get("mode")
        modes = _PARAMETER_MODES[info.field_name or ""]
        if value is not None and mode is not None and mode not in modes:
            allowed = " or ".join(f"'{each}'" for each in modes)
            expected = f"left out unless the mode is {allowed}"
            raise PydanticKnownError("literal_error", {"expected": expected})
        return value


class ModeReport(BaseModel):
    """The mode that holds, with the parameters in use; `None` where the mode has no such one."""

    mode: SandboxMode
    latency_seconds: float | None = None
    failure_rate: float | None = None
    seed: int | None = None

    @classmethod
    def of(cls, change: ModeChange, default_seed: int | None) -> Self:
        """Fill in what the change left open.

        Args:
            change: What was asked for.
            default_seed: Used where the change names none; `None` draws one, which the report
                shows so that the run can be repeated.
        """
        defaults: dict[str, float] = {
            "latency_seconds": DEFAULT_LATENCY_SECONDS,
            "failure_rate": DEFAULT_FAILURE_RATE,
            "seed": secrets.randbelow(LARGEST_SEED) if default_seed is None else default_seed,
        }
        values = change.model_dump()
        for parameter, modes in _PARAMETER_MODES.items():
            if change.mode in modes and values[parameter] is None:
                values[parameter] = defaults[parameter]
        return cls(**values)


class Act(StrEnum):
    """What is done to one call."""

    ANSWER = auto()
    FAIL = auto()
    ANSWER_LATE = auto()
    HANG = auto()
    CUT = auto()
    GARBLE = auto()
    DELAY = auto()
    INTERCEPT = auto()


_ACT_OF_MODE: Final = {
    SandboxMode.HEALTHY: Act.ANSWER,
    SandboxMode.FAILING: Act.FAIL,
    SandboxMode.SLOW: Act.ANSWER_LATE,
    SandboxMode.HANGING: Act.HANG,
    # A call may have been accepted in the instant before the port closed.
    SandboxMode.REFUSING: Act.CUT,
    SandboxMode.GARBLED: Act.GARBLE,
    SandboxMode.LATE: Act.DELAY,
    SandboxMode.INTERCEPTED: Act.INTERCEPT,
}
_FAULTS: Final = (Act.FAIL, Act.ANSWER_LATE, Act.HANG, Act.CUT, Act.GARBLE)
_DAMAGES: Final = tuple(Damage)
_IMPOSTORS: Final = tuple(Impostor)


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to one call, drawn when the call arrives."""

    act: Act
    records: bool
    """Whether a valid charge is recorded, by whatever way its answer is then lost."""
    damage: Damage | None = None
    """Only with `Act.GARBLE`."""
    latency_seconds: float | None = None
    """Only with `Act.ANSWER_LATE` and `Act.DELAY`."""
    impostor: Impostor | None = None
    """Only with `Act.INTERCEPT`."""
    status: int = 200
    """That of the impostor's answer."""


def steps(report: ModeReport) -> Iterator[Step]:
    """Draw what is done to the first, second, ... call of a mode, without end.

    Equal reports draw equal sequences. Concurrent calls take their steps in the order in which
    they arrive.
    """
    chance = random.Random(report.seed)  # noqa: S311  Repeatable, not secret.
    while True:
        act = _ACT_OF_MODE.get(report.mode)
        if act is None:
            faulty = chance.random() < (report.failure_rate or 0.0)
            act = chance.choice(_FAULTS) if faulty else Act.ANSWER
        if act is Act.GARBLE:
            yield Step(act, records=chance.choice((True, False)), damage=chance.choice(_DAMAGES))
        elif act is Act.INTERCEPT:
            yield Step(
                act,
                records=chance.choice((True, False)),
                impostor=chance.choice(_IMPOSTORS),
                status=chance.choice(IMPOSTOR_STATUSES),
            )
        elif act in {Act.ANSWER_LATE, Act.DELAY}:
            yield Step(act, records=True, latency_seconds=report.latency_seconds)
        else:
            yield Step(act, records=act not in {Act.FAIL, Act.CUT})
