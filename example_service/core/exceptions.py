"""The exceptions of the service.

ExampleServiceError
├── SettingsError                   invalid settings; the service does not start
├── StartError                      the service could not start something that it needs
└── CircuitBreakerOpenException     a circuit is open; a 503 problem over HTTP

This module does not depend on a web framework: `api/problems/answers.py` converts these exceptions
to RFC 9457 problems.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from example_service.core.table import aligned

_HEADER = ("VARIABLE", "PROBLEM", "EXAMPLE")


class ExampleServiceError(Exception):
    """The base class of all exceptions of the service."""


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """A problem with one environment variable.

    Attributes:
        variable: The name of the variable.
        problem: What is wrong with it. Does not contain the value.
        example: A valid line for the environment; empty if an example does not help.
    """

    variable: str
    problem: str
    example: str = ""


class SettingsError(ExampleServiceError):
    """The settings are invalid.

    The message is a table with one line for each problem. It does not contain the values, because
    they may be secret.

    Attributes:
        problems: All problems that were found, at least one.
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
    """The service could not start something that it needs. The message says what and why."""


class CircuitBreakerOpenException(ExampleServiceError):  # noqa: N818 - the name is public
    """A call was refused because a circuit is open. Clients get a 503 problem (RFC 9457).

    Raise it to give clients a message of your own. The `CircuitOpenError` that a breaker raises
    leads to the same kind of response.

    Args:
        breaker_name: The name of the breaker; None if unknown.
        detail: What happened, for the client. By default, a sentence with the name of the breaker.
        retry_after: The seconds until the next call may be admitted; None if unknown.
        state: The state of the circuit (`"open"` or `"half_open"`); None if unknown.
        reason: Why the circuit opened, for the client; None if unknown.

    Attributes:
        status_code: The HTTP status of the response, 503.
        slug: The last part of the `type` of the problem: `/problems/circuit-breaker-open`.
        title: The short name of this type of problem.
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
        # The name is the only positional argument, so that pickle and copy can recreate it.
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
