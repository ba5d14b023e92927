"""The interface of a domain: a part of the service that can be added or deleted as a whole.

A domain is a folder in this package. Its `domain.py` describes it with a `Domain`, which `DOMAINS`
in `main.py` lists. No other package depends on it, except that `core/settings/composition.py` adds
its settings. Its migrations and models are discovered in `migrations/` and `models.py` of the
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
    """A server that a domain depends on. `example-service doctor` checks that it can be reached.

    Attributes:
        name: A short name.
        url: The URL of the server; None if it is not set.
        without_url: The text that doctor shows if the URL is not set.
        is_needed: Whether a missing URL is a fault.
    """

    name: str
    url: str | None
    without_url: str = "not set"
    is_needed: bool = True


Hints: TypeAlias = Callable[[str], Sequence[str]]
"""Takes the URL of the service, and returns lines to show to the developer who has started it."""


@asynccontextmanager
async def _opens_nothing(_: FastAPI, __: Services) -> AsyncIterator[None]:
    yield


@contextmanager
def _starts_nothing(_: Settings) -> Iterator[Hints]:
    yield lambda _: ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The description of a domain. Everything except the name has a default.

    Attributes:
        name: The name of its folder.
        is_enabled: Whether the domain is enabled with these settings.
        routers: Its routers.
        problems: The problem for each of its exceptions that a client may see.
        breakers: Functions that return its breakers. They are called at startup, so that the
            breakers are visible in monitoring before their first call.
        lifespan: Opens the resources of its routes, and closes them when the application ends. It
            may store them in `app.state`, under the name of the domain.
        upstreams: The servers that it depends on with these settings.
        serving: A context manager around `example-service serve` in the parent process, from before
            the first worker starts until the last has ended. It may raise `StartError`.
    """

    name: str
    is_enabled: Callable[[Settings], bool] = lambda _: True
    routers: Sequence[APIRouter] = ()
    problems: ProblemsByError = field(default_factory=dict)
    breakers: Sequence[Callable[[], CircuitBreaker]] = ()
    lifespan: Callable[[FastAPI, Services], AbstractAsyncContextManager[None]] = _opens_nothing
    upstreams: Callable[[Settings], Sequence[Upstream]] = lambda _: ()
    serving: Callable[[Settings], AbstractContextManager[Hints]] = _starts_nothing
