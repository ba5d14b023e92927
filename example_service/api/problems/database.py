"""The problem of an unavailable database."""

from typing import Final

from example_service.api.problems.answers import RETRY_SOON, Problem, ProblemsByError
from example_service.api.problems.catalogue import CIRCUIT_BREAKER_OPEN, ProblemType, define
from example_service.infra.database.exceptions import DatabaseUnavailableError

DATABASE_UNAVAILABLE: Final = define(
    ProblemType(
        slug="database-unavailable",
        status=503,
        title="Database unavailable",
        meaning="The database did not respond. Whether the request took effect is not known.",
        cause="The database is down, starting, or too busy.",
        remedy="Repeat the request after the seconds in `Retry-After`, with the same "
        "`Idempotency-Key` if it had one.",
    )
)

DATABASE_PROBLEMS: Final = (DATABASE_UNAVAILABLE, CIRCUIT_BREAKER_OPEN)
"""The problems of every operation that uses the database."""

PROBLEM_BY_DATABASE_ERROR: Final[ProblemsByError] = {
    DatabaseUnavailableError: Problem(DATABASE_UNAVAILABLE, headers=RETRY_SOON)
}
