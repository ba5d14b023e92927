"""The catalogue of problems: what they mean, what causes them, and what clients can do.

The `type` of a problem is the URL of its entry, `/problems/{slug}`. A domain adds its own entries
with `define` when its module is imported.
"""

import re
from dataclasses import dataclass
from http import HTTPStatus

_SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PLAIN_STATUS_SLUG = re.compile(r"http-([45]\d\d)")


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A problem type as defined in RFC 9457, section 3.1.1.

    Attributes:
        slug: The last part of the type's URI: lower-case words joined by hyphens.
        status: The HTTP status of the response, 400 to 599.
        title: A short name, the same for each occurrence.
        meaning: A description, used as the `detail` of occurrences that have none.
        cause: What causes the problem.
        remedy: What the client or the operator can do about it.
    """

    slug: str
    status: int
    title: str
    meaning: str
    cause: str
    remedy: str


_defined: dict[str, ProblemType] = {}


def define(problem_type: ProblemType) -> ProblemType:
    """Add a problem type to the catalogue.

    Returns:
        The same problem type, so that a module can define it and assign it to a name in one
        statement.

    Raises:
        ValueError: If the slug is malformed or belongs to another type, or the status is not that
            of an error.
    """
    slug, status = problem_type.slug, problem_type.status
    if not _SLUG.fullmatch(slug) or _PLAIN_STATUS_SLUG.fullmatch(slug):
        raise ValueError(f"slug {slug!r} must be lower-case words and digits joined by hyphens")
    if not 400 <= status <= 599:  # noqa: PLR2004 - the statuses of HTTP errors
        raise ValueError(f"status of {slug!r} must be between 400 and 599, not {status}")
    if _defined.setdefault(slug, problem_type) != problem_type:
        raise ValueError(f"slug {slug!r} is already defined")
    return problem_type


def defined_problem_types() -> list[ProblemType]:
    """Return all defined problem types, sorted by slug."""
    return [_defined[slug] for slug in sorted(_defined)]


def find_problem_type(slug: str) -> ProblemType | None:
    """Look up a defined problem type or one of `plain_status`. None if there is no such type."""
    if match := _PLAIN_STATUS_SLUG.fullmatch(slug):
        return plain_status(int(match[1]))
    return _defined.get(slug)


def plain_status(status: int) -> ProblemType:
    """Return the problem type of an error about which only the HTTP status is known."""
    try:
        known = HTTPStatus(status)
        title, meaning = known.phrase, known.description or known.phrase
    except ValueError:
        title = "Client error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "Server error"
        meaning = f"The service responded with HTTP status {status}"
    return ProblemType(
        slug=f"http-{status}",
        status=status,
        title=title,
        meaning=f"{meaning}.",
        cause="The operation refused the request with this HTTP status.",
        remedy="Read the detail of the problem; RFC 9110 defines the status.",
    )


MALFORMED_JSON = define(
    ProblemType(
        slug="malformed-json",
        status=400,
        title="Malformed JSON",
        meaning="The body of the request is not valid JSON.",
        cause="A syntax error, an encoding other than UTF-8, or excessive nesting or digits.",
        remedy="Send well-formed JSON in UTF-8 with `Content-Type: application/json`.",
    )
)
VALIDATION_FAILED = define(
    ProblemType(
        slug="validation-failed",
        status=422,
        title="Validation failed",
        meaning="The request was understood, but some of its values are not acceptable.",
        cause="A parameter or a member of the body is missing, unknown, or out of its range.",
        remedy="Correct what `errors` lists. Submitted values are not repeated there.",
    )
)
UNAUTHORIZED = define(
    ProblemType(
        slug="unauthorized",
        status=401,
        title="Unauthorized",
        meaning="The request lacks valid credentials.",
        cause="No credentials were sent, or they are not the right ones.",
        remedy="Send the credentials that the `WWW-Authenticate` header asks for.",
    )
)
FORBIDDEN = define(
    ProblemType(
        slug="forbidden",
        status=403,
        title="Forbidden",
        meaning="The credentials are valid, but do not allow this request.",
        cause="The key belongs to a caller that may only read, or the operation refuses the "
        "caller.",
        remedy="Use a key that allows it. The operator can make one without `:read`.",
    )
)
NOT_FOUND = define(
    ProblemType(
        slug="not-found",
        status=404,
        title="Not found",
        meaning="There is nothing at this address.",
        cause="The path is misspelt, or the resource does not exist.",
        remedy="Compare the path with the operations in `/docs`.",
    )
)
METHOD_NOT_ALLOWED = define(
    ProblemType(
        slug="method-not-allowed",
        status=405,
        title="Method not allowed",
        meaning="The address exists, but does not support this method.",
        cause="The request used a method for which there is no operation.",
        remedy="Use one of the methods in the `Allow` header.",
    )
)
BODY_TOO_SLOW = define(
    ProblemType(
        slug="body-too-slow",
        status=408,
        title="Body too slow",
        meaning="The body of the request did not arrive within the time limit.",
        cause="The client stopped sending, or its connection is slow or broken.",
        remedy="Send the request again, over a better connection or with a smaller body.",
    )
)
BODY_TOO_LARGE = define(
    ProblemType(
        slug="body-too-large",
        status=413,
        title="Body too large",
        meaning="The body of the request is larger than the service accepts.",
        cause="The declared or the received length exceeds `LIMITS__MAX_BODY_BYTES`.",
        remedy="Send smaller requests. The operator can raise the limit.",
    )
)
INVALID_HOST = define(
    ProblemType(
        slug="invalid-host",
        status=400,
        title="Invalid host",
        meaning="The request is for a host name that this service does not serve.",
        cause="The `Host` header is missing, malformed, or not in `HTTP__ALLOWED_HOSTS`.",
        remedy="Use the public name of the service. The operator can allow more names.",
    )
)
CORS_REFUSED = define(
    ProblemType(
        slug="cors-refused",
        status=400,
        title="Cross-origin request refused",
        meaning="A page of this origin may not make this request from a browser.",
        cause="The origin is not in `HTTP__CORS_ORIGINS`, or a method or header is not allowed.",
        remedy="Call from an allowed origin. The operator can allow more of them.",
    )
)
OVERLOADED = define(
    ProblemType(
        slug="overloaded",
        status=503,
        title="Overloaded",
        meaning="The service has reached its limit of concurrent requests or connections.",
        cause="This worker has `LIMITS__MAX_CONCURRENT_REQUESTS` requests in flight, or "
        "`LIMITS__MAX_CONNECTIONS` connections that wait for responses.",
        remedy="Repeat the request after the seconds in `Retry-After`.",
    )
)
REQUEST_TIMEOUT = define(
    ProblemType(
        slug="request-timeout",
        status=504,
        title="Request timed out",
        meaning="The request exceeded its time limit. Whether it took effect is not known.",
        cause="The response did not start within `LIMITS__REQUEST_TIMEOUT_SECONDS`.",
        remedy="Repeat the request if that is safe; otherwise check first whether it took effect.",
    )
)
CIRCUIT_BREAKER_OPEN = define(
    ProblemType(
        slug="circuit-breaker-open",
        status=503,
        title="Circuit breaker open",
        meaning="Something that the service depends on is failing, so it was not called.",
        cause="Calls failed often enough to open the circuit, and it has not recovered yet.",
        remedy="Repeat the request after the seconds in `Retry-After`.",
    )
)
NOT_READY = define(
    ProblemType(
        slug="not-ready",
        status=503,
        title="Not ready",
        meaning="This instance cannot serve requests now.",
        cause="It is starting, shutting down, or something that it requires is not available.",
        remedy="Send requests to another instance. The reasons are in the logs.",
    )
)
UNKNOWN_CIRCUIT_BREAKER = define(
    ProblemType(
        slug="unknown-circuit-breaker",
        status=404,
        title="Unknown circuit breaker",
        meaning="There is no circuit breaker of that name.",
        cause="The name is misspelt, or the breaker has not been created yet.",
        remedy="Compare the name with those in `/health/circuit-breakers`.",
    )
)
INCOMPLETE_ORDER = define(
    ProblemType(
        slug="incomplete-order",
        status=504,
        title="Incomplete order",
        meaning="Some processes have not carried out the order.",
        cause="A worker is blocked or overloaded; `silent_workers` has the process ids. Or the "
        "store of the fleet cannot be reached; `detail` then says so.",
        remedy="A blocked worker carries out the order as soon as it runs again. If the store "
        "could not be reached, repeat the order.",
    )
)
INTERNAL_ERROR = define(
    ProblemType(
        slug="internal-error",
        status=500,
        title="Internal error",
        meaning="An unexpected error occurred in the service.",
        cause="A fault in the service itself.",
        remedy="Report the `request_id`, under which the log has the details.",
    )
)
