"""What a domain is: a part of the service that is added or deleted as one thing.

A domain is a folder in this package. Its `domain.py` describes it with a `Domain`, and `DOMAINS` in
`main.py` lists it. No other package knows it, except that `core/settings/composition.py` adds its
settings. Its migrations and models are found by their place: `migrations/` and `models.py` in the
folder.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, field
from typing import TypeAlias

from fastapi import APIRouter, FastAPI

from example_service.api.problems.answers import ProblemsByError
from example_service.api.services import Services
from example_service.core.settings import Settings
from example_service.infra.resilience import CircuitBreaker


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server that a domain depends on, for `example-service doctor` to look at.

    Attributes:
        name: What it is, in a word or two.
        url: Where it is; None where the settings do not say.
        without_url: What doctor reports where there is no URL.
        is_needed: Whether a missing URL is a fault.
    """

    name: str
    url: str | None
    without_url: str = "not set"
    is_needed: bool = True


Hints: TypeAlias = Callable[[str], Sequence[str]]
"""Lines for the developer who started the service, given the URL at which it serves."""


@asynccontextmanager
async def _opens_nothing(_: FastAPI, __: Services) -> AsyncIterator[None]:
    yield


@contextmanager
def _starts_nothing(_: Settings) -> Iterator[Hints]:
    yield lambda _: ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One domain; whatever it does not need has a default.

    Attributes:
        name: The name of its folder.
        is_enabled: Whether the service has it with these settings.
        routers: Its routes.
        problems: The problem for each of its errors that may reach a route's caller.
        breakers: Return its breakers; called at the start, so that monitoring shows them before
            their first call.
        lifespan: Opens what its routes need, and closes it when the application ends. It may keep
            that in `app.state`, under the domain's name.
        upstreams: The servers that it depends on with these settings.
        serving: Runs around `example-service serve`, in the process that starts all others: before
            the first worker starts, and until the last has ended. Raises `StartError` to refuse the
            start.
    """

    name: str
    is_enabled: Callable[[Settings], bool] = lambda _: True
    routers: Sequence[APIRouter] = ()
    problems: ProblemsByError = field(default_factory=dict)
    breakers: Sequence[Callable[[], CircuitBreaker]] = ()
    lifespan: Callable[[FastAPI, Services], AbstractAsyncContextManager[None]] = _opens_nothing
    upstreams: Callable[[Settings], Sequence[Upstream]] = lambda _: ()
    serving: Callable[[Settings], AbstractContextManager[Hints]] = _starts_nothing
