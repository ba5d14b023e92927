"""The command `example-service serve`: bind the port, start what domains need, and serve."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import example_service
from example_service.core.exceptions import SettingsError
from example_service.core.logging import configure_logging, writes_to_console
from example_service.core.output import output
from example_service.core.settings import Settings
from example_service.domain import Hints
from example_service.infra.database.failures import DATABASE_ERRORS, describe_error
from example_service.infra.http.environment import environment_problems, ignored_networks
from example_service.infra.metrics.shared.multiprocess import disable_sharing
from example_service.main import create_own_breakers, enabled_domains
from example_service.migrations import schema_fault_at_start
from example_service.server.process import DrainingServer, listen, server_config

logger = logging.getLogger(__name__)


def serve(settings: Settings) -> int:
    """Serve until a signal arrives.

    Returns:
        The exit status: 0 after a graceful shutdown.

    Raises:
        SettingsError: An environment variable of httpx is invalid, or settings of a breaker
            contradict the code.
        ListenError: The server cannot listen on the address.
        StartError: A domain could not start something that it needs.
    """
    if problems := environment_problems():
        raise SettingsError(problems)
    configure_logging(settings)
    for name, networks in ignored_networks().items():
        logger.warning(
            "Networks in this variable are ignored; list host names or addresses instead",
            extra={"variable": name, "networks": networks},
        )
    with listen(settings.host, settings.port) as listener, ExitStack() as stack:
        domains = enabled_domains(settings)
        hints = [stack.enter_context(domain.serving(settings)) for domain in domains]
        announce = _announcement(settings, listener, hints, _database_fault(settings))
        if settings.workers == 1:
            disable_sharing()
            return _serve_alone(settings, listener, announce)
        # Check the settings of breakers once, because otherwise every worker would fail to start.
        create_own_breakers(settings, domains)
        # A single process does not need these modules.
        from example_service.server.supervisor import Supervisor  # noqa: PLC0415

        return Supervisor(settings, listener, announce).run()


def _serve_alone(settings: Settings, listener: socket.socket, announce: Callable[[], None]) -> int:
    server = DrainingServer(
        server_config(settings),
        shutdown=settings.shutdown,
        on_started=announce,
    )
    server.run([listener])
    return 0


def _database_fault(settings: Settings) -> str | None:
    """Why the database cannot be used yet; None if it can."""
    try:
        fault = asyncio.run(schema_fault_at_start(settings))
    except DATABASE_ERRORS as error:
        logger.warning(
            "The database cannot be reached yet", extra={"reason": describe_error(error)}
        )
        return f"the database cannot be reached yet ({describe_error(error)})"
    if fault is not None:
        logger.warning("The service is not ready", extra={"reason": fault})
    return fault


def _announcement(
    settings: Settings, listener: socket.socket, hints: Sequence[Hints], fault: str | None
) -> Callable[[], None]:
    """Return a function that announces that the service accepts requests."""
    url = _url_of(listener)

    def announce() -> None:
        logger.info("Serving", extra={"url": url, "workers": settings.workers})
        if not settings.api.keys:
            reason = "API__OPEN is true" if settings.api.open else "API__KEYS is not set"
            logger.info(
                "The API is open to every client that can reach it", extra={"reason": reason}
            )
        # Among JSON lines, it would be a line that no program can read.
        if settings.environment == "development" and writes_to_console(settings):
            output.write(_banner(url, hints, fault))

    return announce


def _url_of(listener: socket.socket) -> str:
    """The URL of the service in a browser on this machine."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _banner(url: str, hints: Sequence[Hints], fault: str | None) -> str:
    state = "is ready" if fault is None else f"is not ready, because {fault}"
    lines = [
        f"Example Service {example_service.__version__} {state}: {url}",
        "",
        f"  Dashboard         {url}/dashboard",
        f"  API docs          {url}/docs",
        f"  Circuit breakers  {url}/health/circuit-breakers",
        f"  Metrics           {url}/metrics",
        f"  Problem pages     {url}/problems/circuit-breaker-open",
    ]
    lines += [line for each in hints for line in each(url)]
    return "\n".join(["", *lines, "", "Stop with Ctrl+C.", "", ""])
