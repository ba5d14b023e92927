"""Several processes of the service in front of one provider that counts."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from tests.service_process import Service, kill, wait_until

TOKEN = "a-token-of-more-than-sixteen"
START_SECONDS = 90.0
RATES = "/api/v1/exchange-rates/EUR"
RULES = {
    "CIRCUIT_BREAKERS__PAYMENT__FAILURE_THRESHOLD": "3",
    "CIRCUIT_BREAKERS__PAYMENT__RECOVERY_TIMEOUT": "1.0",
    "CIRCUIT_BREAKERS__PAYMENT__SUCCESS_THRESHOLD": "2",
    "CIRCUIT_BREAKERS__PAYMENT__HALF_OPEN_MAX_CALLS": "1",
    "CIRCUIT_BREAKERS__PAYMENT__PROBE_TIMEOUT": "1.0",
}


class CountingProvider:
    """A payment provider that fails, hangs or answers, and counts what reaches it.

    Attributes:
        is_failing: Whether it answers 500.
        seconds: How long it takes to answer.
        calls: How many calls have reached it.
        url: Where it is.
    """

    def __init__(self) -> None:
        self.is_failing = False
        self.seconds = 0.0
        self.calls = 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                provider.calls += 1
                time.sleep(provider.seconds)
                status = 500 if provider.is_failing else 200
                body = json.dumps({"currency": "EUR", "base": "USD", "rate": "0.9"}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator["CountingProvider"]:
        """Serve until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


class Process:
    """One process of the service, or one set of workers.

    Args:
        service: What was started.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        wait_until(lambda: "is ready: " in service.text, START_SECONDS)
        self.url = service.url
        self._client = httpx.Client(base_url=self.url, timeout=5.0)

    def ask(self) -> int:
        """Ask for a rate over one connection that is kept; the status of the answer."""
        return self._client.get(RATES).status_code

    def health(self) -> dict[str, Any]:
        """The health of the breakers."""
        body: dict[str, Any] = self._client.get("/health/circuit-breakers").json()
        return body

    def state(self) -> str:
        """The state of the payment breaker."""
        return str(self.health()["breakers"]["payment"]["state"])

    def connected(self) -> bool:
        """What the metric says about the fleet."""
        return "circuit_breaker_fleet_connected 1.0" in self._client.get("/metrics").text

    def order(self, what: str, **body: object) -> httpx.Response:
        """Do something to the payment breaker as an operator."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        path = f"{self.url}/admin/circuit-breakers/payment/{what}"
        return httpx.post(path, headers=headers, json=body or None)

    def warnings(self, text: str) -> int:
        """How many lines of the log have a text."""
        return self.service.text.count(text)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.service.process.pid, number)

    def close(self) -> None:
        """End it, however it is."""
        self._client.close()
        if self.service.process.poll() is None:
            os.killpg(self.service.process.pid, signal.SIGCONT)
        kill(self.service)


@contextmanager
def processes(
    directory: Path, count: int, provider: CountingProvider, **variables: str
) -> Iterator[list[Process]]:
    """That many processes of the service, in front of the provider."""
    with ExitStack() as stack:
        services = []
        for number in range(count):
            folder = directory / str(number)
            folder.mkdir()
            service = start(folder, provider, **variables)
            stack.callback(lambda one=service: _end(one))  # type: ignore[misc]
            services.append(service)
        with ThreadPoolExecutor(count) as threads:
            started = list(threads.map(Process, services))
        for process in started:
            stack.callback(process.close)
        yield started


def start(folder: Path, provider: CountingProvider, **variables: str) -> Service:
    """Start the service in a folder."""
    return Service(
        folder,
        ADMIN__TOKEN=TOKEN,
        LIMITS__MONITORING_CACHE_SECONDS="0",
        PAYMENT_PROVIDER__BASE_URL=provider.url,
        PAYMENT_PROVIDER__TIMEOUT_SECONDS="20.0",
        PAYMENTS__WORKER="false",
        **{**RULES, **variables},
    )


def _end(service: Service) -> None:
    if service.process.poll() is None:
        kill(service)


def soon(holds: Callable[[], object], seconds: float = 1.0) -> float:
    """Assert that something becomes true within some time, on a busy machine; how long it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"it did not happen within {seconds} s"
        time.sleep(0.005)
    return time.monotonic() - began


def trip(process: Process, provider: CountingProvider) -> None:
    """Open the circuit by failures in one process, over one connection."""
    provider.is_failing = True
    while process.ask() != httpx.codes.SERVICE_UNAVAILABLE:
        pass


__all__ = [
    "CountingProvider",
    "Process",
    "processes",
    "soon",
    "start",
    "trip",
    "wait_until",
]
