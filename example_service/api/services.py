"""The resources that the application opens at its start and its routes use."""

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
    """Resources that are open while the application runs.

    Attributes:
        settings: The settings that the application was built with.
        http_client: The client for outgoing calls that need no limits other than the default ones.
        database: The database, guarded by its breaker.
        all_workers: Reports on the breakers of all worker processes.
        readiness: The checks behind `/health/ready`.
        expositions: The texts behind `/metrics`.
        dashboard: The messages for the pages of the dashboard.
    """

    settings: Settings
    http_client: httpx.AsyncClient
    database: Database
    all_workers: AllWorkers
    readiness: Readiness
    expositions: Expositions
    dashboard: Feed


def running_services(app: FastAPI) -> Services | None:
    """Return the services of an application. None before it starts and after it stops."""
    return cast("Services | None", getattr(app.state, "services", None))


def services_of(request: Request) -> Services:
    """Return the services of the application that serves a request.

    Raises:
        ProblemError: If the application has not finished starting.
    """
    services = running_services(request.app)
    if services is None:
        raise ProblemError(catalogue.NOT_READY, "This instance is still starting.")
    return services
