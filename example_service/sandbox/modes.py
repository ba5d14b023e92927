"""The modes of the sandbox, and their effect on each call."""

import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

DEFAULT_LATENCY_SECONDS: Final = 1.0
MAX_LATENCY_SECONDS: Final = 60.0
MAX_DELAY_SECONDS: Final = 604_800.0
"""A week, which is longer than any time limit of a client."""

DEFAULT_FAILURE_RATE: Final = 0.5
MAX_SEED: Final = 2**53 - 1
"""The largest integer that every JSON parser represents exactly."""


class SandboxMode(StrEnum):
    """How the provider treats calls."""

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
    """How the body of a garbled response is broken."""

    TRUNCATED = auto()
    """The connection is closed before the whole body has been sent."""
    INVALID_JSON = auto()
    """The body is complete, but its JSON ends in the middle."""
    NOT_JSON = auto()
    """The body is the HTML page of a proxy, labelled as JSON."""
    WRONG_SHAPE = auto()
    """The body is valid JSON, but does not match the schema."""


class Impostor(StrEnum):
    """What responds to an intercepted call instead of the provider."""

    PAGE = auto()
    """A gateway or captive portal, with an HTML page."""
    JSON = auto()
    """A gateway, with its own error in JSON."""
    NOTHING = auto()
    """A gateway, with a status and an empty body."""
    MISLABELLED = auto()
    """A cache, with the outcome of an uncharged key, the right key, and the type of plain text."""
    ANOTHER_CHARGE = auto()
    """A cache, with a charge for another key."""
    ANOTHER_ORDER = auto()
    """A cache, with a charge for the right key but another amount and customer."""
    ANOTHER_OUTCOME = auto()
    """A cache, with the outcome of another key, which was not charged."""


IMPOSTOR_STATUSES: Final = (200, 201, 400, 402, 403, 404, 409, 422)

_PARAMETER_MODES: Final = {
    "latency_seconds": (SandboxMode.SLOW, SandboxMode.FLAKY, SandboxMode.LATE),
    "failure_rate": (SandboxMode.FLAKY,),
    "seed": (SandboxMode.GARBLED, SandboxMode.FLAKY, SandboxMode.INTERCEPTED),
}


class ModeChange(BaseModel):
    """The body of `PUT /sandbox/mode`.

    A parameter that the mode does not use is an error, because it would have no effect.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    mode: SandboxMode
    latency_seconds: Annotated[
        float | None,
        Field(
            gt=0,
            le=MAX_DELAY_SECONDS,
            strict=True,
            allow_inf_nan=False,
            description="Seconds until a slow response (slow and flaky, at most 60) or until a "
            "late charge arrives (late, at most a week). Default: 1.",
        ),
    ] = None
    failure_rate: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            strict=True,
            allow_inf_nan=False,
            description="Share of calls with a fault (flaky). Default: 0.5.",
        ),
    ] = None
    seed: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_SEED,
            strict=True,
            description="The same seed gives the same faults in the same order "
            "(garbled, flaky and intercepted). Default: random.",
        ),
    ] = None

    @field_validator("latency_seconds")
    @classmethod
    def _bounded_answers(cls, value: float | None, info: ValidationInfo) -> float | None:
        is_late = info.data.get("mode") is SandboxMode.LATE
        if value is not None and not is_late and value > MAX_LATENCY_SECONDS:
            raise PydanticKnownError("less_than_equal", {"le": MAX_LATENCY_SECONDS})
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
    """The current mode with its parameters. Those that the mode does not use are None."""

    mode: SandboxMode
    latency_seconds: float | None = None
    failure_rate: float | None = None
    seed: int | None = None

    @classmethod
    def of(cls, change: ModeChange, default_seed: int | None) -> Self:
        """Complete a change with default values.

        Args:
            change: The requested mode and parameters.
            default_seed: The seed if the change has none. None chooses a random seed; the report
                contains it, so that the run can be repeated.
        """
        defaults: dict[str, float] = {
            "latency_seconds": DEFAULT_LATENCY_SECONDS,
            "failure_rate": DEFAULT_FAILURE_RATE,
            "seed": secrets.randbelow(MAX_SEED) if default_seed is None else default_seed,
        }
        values = change.model_dump()
        for parameter, modes in _PARAMETER_MODES.items():
            if change.mode in modes and values[parameter] is None:
                values[parameter] = defaults[parameter]
        return cls(**values)


class Act(StrEnum):
    """The treatment of a call."""

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
    # A call may have been accepted just before the port stopped listening.
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
    """The treatment of a call with its parameters, chosen when the call arrives."""

    act: Act
    records: bool
    """Whether a valid charge is recorded, even if its response is then lost."""
    damage: Damage | None = None
    """Only with `Act.GARBLE`."""
    latency_seconds: float | None = None
    """Only with `Act.ANSWER_LATE` and `Act.DELAY`."""
    impostor: Impostor | None = None
    """Only with `Act.INTERCEPT`."""
    status: int = 200
    """The status of the impostor's response."""


def steps(report: ModeReport) -> Iterator[Step]:
    """Generate the steps for the calls of a mode, in the order in which the calls arrive.

    Equal reports generate equal sequences. They are infinite.
    """
    chance = random.Random(report.seed)  # noqa: S311  It must be repeatable, not secret.
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
