"""What the application opened when it started, for its routes."""

from dataclasses import dataclass
from typing import cast

import httpx
from fastapi import FastAPI, Request

from example_service.api.breakers.all_workers import AllWorkers
from example_service.api.dashboard.feed import Feed
from example_service.api.problems import catalogue
from example_service.api.problems.answers import ProblemError
from example_service.core.settings import Settings
from example_service.infra.database.database import Database
from example_service.infra.metrics import Expositions
from example_service.infra.readiness import Readiness


@dataclass(frozen=True, slots=True)
class Services:
    """What lives as long as the application runs; closed when it ends.

    Attributes:
        settings: The settings that the application was built with.
        http_client: For outgoing calls that need no limits of their own.
        database: The database, behind its breaker.
        all_workers: Reaches the breakers of every worker process.
        readiness: The checks behind `/health/ready`.
        expositions: The texts behind `/metrics`.
        dashboard: What the pages of the dashboard are sent.
    """

    settings: Settings
    http_client: httpx.AsyncClient
    database: Database
    all_workers: AllWorkers
    readiness: Readiness
    expositions: Expositions
    dashboard: Feed


def running_services(app: FastAPI) -> Services | None:
    """The services of an application; None before its start and after its end."""
    return cast("Services | None", getattr(app.state, "services", None))


def services_of(request: Request) -> Services:
    """The services of the application that serves a request.

    Raises:
        ProblemError: If the application has not finished starting.
    """
    services = running_services(request.app)
    if services is None:
        raise ProblemError(catalogue.NOT_READY, "This instance is still starting.")
    return services
