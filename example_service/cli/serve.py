"""What `example-service serve` does: take the port, start what development needs, and serve."""

import contextlib
import json
import logging
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, cast

import example_service
from example_service.core.logging import configure_logging
from example_service.core.settings import Settings
from example_service.server.process import DrainingServer, listen, server_config

logger = logging.getLogger(__name__)

_SANDBOX_START_SECONDS = 15.0
_SANDBOX_END_SECONDS = 5.0


class SandboxError(Exception):
    """The sandbox did not start; the text says so to whoever started the service."""


def serve(settings: Settings) -> int:
    """Serve until a signal to stop.

    Returns:
        The exit status: 0 after an orderly end.

    Raises:
        ListenError: If the address cannot be listened on.
        SandboxError: If development needs the sandbox, and it does not start.
    """
    configure_logging(settings)
    with (
        listen(settings.host, settings.port) as listener,
        sandbox_if_needed(settings) as has_sandbox,
    ):
        announce = _announcement(settings, listener, has_sandbox=has_sandbox)
        if settings.workers == 1:
            return _serve_alone(settings, listener, announce)
        # Imported here, for one process has no need of what this brings along.
        from example_service.server.supervisor import Supervisor  # noqa: PLC0415

        return Supervisor(settings, listener, announce).run()


def _serve_alone(settings: Settings, listener: socket.socket, announce: Callable[[], None]) -> int:
    server = DrainingServer(
        server_config(settings),
        drain_seconds=settings.shutdown.drain_seconds,
        on_started=announce,
    )
    server.run([listener])
    return 0


@contextmanager
def sandbox_if_needed(settings: Settings) -> Iterator[bool]:
    """Have the sandbox run meanwhile where development has no other payment provider.

    Its addresses are put into the environment, from where the application reads them.

    Yields:
        Whether there is a sandbox to give orders to, this one or another.

    Raises:
        SandboxError: If it does not start.
    """
    if settings.environment != "development" or settings.payment_provider.base_url is not None:
        yield settings.sandbox.control_url is not None
        return
    with _sandbox_process(settings.sandbox.seed) as sandbox:
        addresses = _addresses_of(sandbox)
        os.environ["PAYMENT_PROVIDER__BASE_URL"] = addresses["provider"]
        os.environ["SANDBOX__CONTROL_URL"] = addresses["control"]
        yield True


@contextmanager
def _sandbox_process(seed: int | None) -> Iterator[subprocess.Popen[bytes]]:
    options = [] if seed is None else ["--seed", str(seed)]
    command = [sys.executable, "-m", "example_service.sandbox", *options]
    # It ends when its standard input does: at the end of this block, or of this process.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sandbox:  # noqa: S603
        try:
            yield sandbox
        finally:
            if sandbox.stdin is not None:
                sandbox.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                sandbox.wait(_SANDBOX_END_SECONDS)
            sandbox.kill()


def _addresses_of(sandbox: subprocess.Popen[bytes]) -> dict[str, str]:
    output = cast("IO[bytes]", sandbox.stdout)
    readable, _, _ = select.select([output], [], [], _SANDBOX_START_SECONDS)
    line = output.readline() if readable else b""
    try:
        addresses: dict[str, str] = json.loads(line)
    except ValueError:
        raise SandboxError(
            "The sandbox, which stands in for the payment provider, did not start. "
            "What it said is above; or use a provider of your own: PAYMENT_PROVIDER__BASE_URL."
        ) from None
    return addresses


def _announcement(
    settings: Settings, listener: socket.socket, *, has_sandbox: bool
) -> Callable[[], None]:
    """Prepare what is said once requests are served."""
    url = _url_of(listener)

    def announce() -> None:
        logger.info("Serving", extra={"url": url, "workers": settings.workers})
        if settings.environment == "development":
            sys.stdout.write(_banner(url, has_sandbox=has_sandbox))
            sys.stdout.flush()

    return announce


def _url_of(listener: socket.socket) -> str:
    """The address as one would type it on this machine."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _banner(url: str, *, has_sandbox: bool) -> str:
    lines = [
        f"Example Service {example_service.__version__} is ready: {url}",
        "",
        f"  Dashboard         {url}/dashboard",
        f"  API docs          {url}/docs",
        f"  Circuit breakers  {url}/health/circuit-breakers",
        f"  Metrics           {url}/metrics",
        f"  Problem pages     {url}/problems/circuit-breaker-open",
    ]
    if has_sandbox:
        lines += [
            f"  Try it            curl {url}/api/v1/exchange-rates/EUR",
            "",
            "The payment provider is a sandbox. Make it fail, and heal it again:",
            "",
            *(f"  {_sandbox_switch(url, mode)}" for mode in ("failing", "healthy")),
        ]
    return "\n".join(["", *lines, "", "Stop with Ctrl+C.", "", ""])


def _sandbox_switch(url: str, mode: str) -> str:
    body = json.dumps({"mode": mode})
    return f"curl -X PUT {url}/sandbox/mode -H 'Content-Type: application/json' -d '{body}'"
