"""The errors that the service itself defines.

ExampleServiceError
├── SettingsError                   settings that cannot be used; the start is refused
├── StartError                      what the service needs before it serves cannot be had
└── CircuitBreakerOpenException     a circuit is open; over HTTP a 503 problem

Nothing in here knows a web framework: `api/problems/answers.py` turns these errors into RFC 9457
problems.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from example_service.core.table import aligned

_HEADER = ("VARIABLE", "PROBLEM", "EXAMPLE")


class ExampleServiceError(Exception):
    """The root of the tree above."""


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """One variable that cannot be used as it is.

    Attributes:
        variable: Name of the environment variable.
        problem: What is wrong with it, without the value that was given.
        example: A line for the environment that would do, empty where none helps.
    """

    variable: str
    problem: str
    example: str = ""


class SettingsError(ExampleServiceError):
    """Settings that cannot be used.

    The text is an aligned table with one line for each problem. It contains no submitted value,
    because that may be a secret.

    Attributes:
        problems: Every problem that was found, at least one.
    """

    def __init__(self, problems: Sequence[SettingProblem]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        count = len(self.problems)
        title = f"The settings cannot be used ({count} problem{'s' if count > 1 else ''}):"
        rows = [(p.variable, p.problem, p.example) for p in self.problems]
        return f"{title}\n\n{aligned([_HEADER, *rows])}"


class StartError(ExampleServiceError):
    """What the service needs before it serves cannot be had; the text says what and why."""


class CircuitBreakerOpenException(ExampleServiceError):  # noqa: N818 - the name is public
    """A call was refused because a circuit is open, as an answer for an HTTP client.

    Raise it where a route or a service has a message of its own; `CircuitOpenError`, which the
    breaker raises, is answered in the same way. Has the members of an RFC 9457 problem.

    Args:
        breaker_name: Name of the breaker, None where it is not known.
        detail: What happened, for the client; None words it from the name.
        retry_after: Seconds until a call may be admitted, None if unknown.
        state: State of the circuit (`"open"` or `"half_open"`), None where it is not known.
        reason: What opened the circuit, for the client; None where it is not known.

    Attributes:
        status_code: HTTP status of the answer, 503.
        slug: Last part of the problem's `type`: `/problems/circuit-breaker-open`.
        title: Short name of the problem, the same at each occurrence.
    """

    status_code: ClassVar[int] = 503
    slug: ClassVar[str] = "circuit-breaker-open"
    title: ClassVar[str] = "Circuit breaker open"

    def __init__(
        self,
        breaker_name: str | None = None,
        *,
        detail: str | None = None,
        retry_after: float | None = None,
        state: str | None = None,
        reason: str | None = None,
    ) -> None:
        # The name alone is the exception's argument, so that pickle and copy can call the class.
        super().__init__(breaker_name)
        self.breaker_name = breaker_name
        self.detail = _open_circuit_detail(breaker_name) if detail is None else detail
        self.retry_after = retry_after
        self.state = state
        self.reason = reason

    def __str__(self) -> str:
        return self.detail


def _open_circuit_detail(breaker_name: str | None) -> str:
    if breaker_name is None:
        return "A circuit breaker is open; the call was not made."
    return f"Circuit breaker '{breaker_name}' is open; the call was not made."
