"""Several processes of the service in front of one provider that counts calls."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from tests.service_process import START_SECONDS, Service, kill, wait_until

TOKEN = "a-token-of-more-than-sixteen"
RECOVERY_SECONDS = 1.0
RATES = "/api/v1/exchange-rates/EUR"
SETTINGS = {
    "ADMIN__TOKEN": TOKEN,
    "LIMITS__MONITORING_CACHE_SECONDS": "0",
    "PAYMENT_PROVIDER__TIMEOUT_SECONDS": "20.0",
    "PAYMENTS__WORKER": "false",
    "CIRCUIT_BREAKERS__PAYMENT__FAILURE_THRESHOLD": "3",
    "CIRCUIT_BREAKERS__PAYMENT__RECOVERY_TIMEOUT": f"{RECOVERY_SECONDS}",
    "CIRCUIT_BREAKERS__PAYMENT__SUCCESS_THRESHOLD": "2",
    "CIRCUIT_BREAKERS__PAYMENT__HALF_OPEN_MAX_CALLS": "1",
    "CIRCUIT_BREAKERS__PAYMENT__PROBE_TIMEOUT": "1.0",
}


class CountingProvider:
    """A payment provider that fails, hangs or responds, and counts its calls.

    Attributes:
        is_failing: Whether it responds with 500.
        seconds: The time until it responds.
        calls: The number of calls that have reached it.
        url: Its URL.
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
    """One process of the service, or one supervisor with its workers.

    Args:
        folder: Its working directory.
        provider: The provider that it calls.
        variables: Further settings.
    """

    def __init__(self, folder: Path, provider: CountingProvider, **variables: str) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._variables = {"PAYMENT_PROVIDER__BASE_URL": provider.url, **SETTINGS, **variables}
        self._client = httpx.Client()
        self._log_begins = 0
        self.start()

    def start(self) -> None:
        """Start the process, also after it has ended."""
        self.service = Service(self._folder, **self._variables)

    def wait(self) -> None:
        """Wait until it serves."""
        wait_until(lambda: '"event":"Serving"' in self.service.text, START_SECONDS)
        self.url = self.service.url
        self._connect()

    def _connect(self) -> None:
        self._client.close()
        self._client = httpx.Client(base_url=self.url, timeout=30.0)

    def heal(self) -> None:
        """Resume the process, open a new connection, and start counting log lines."""
        if self.service.process.poll() is None:
            self.signal(signal.SIGCONT)
        else:
            self.start()
            self.wait()
        self._connect()
        wait_until(self.connected)
        self._log_begins = len(self.service.text)

    def ask(self) -> int:
        """Request a rate over one open connection, and return the status of the response."""
        return self._client.get(RATES).status_code

    def health(self) -> dict[str, Any]:
        """The response of the breakers' health endpoint."""
        body: dict[str, Any] = self._client.get("/health/circuit-breakers").json()
        return body

    def state(self) -> str:
        """The state of the payment breaker."""
        return str(self.health()["breakers"]["payment"]["state"])

    def connected(self) -> bool:
        """The metric that says whether the process is connected to the fleet."""
        return "circuit_breaker_fleet_connected 1.0" in self._client.get("/metrics").text

    def order(self, what: str, **body: object) -> httpx.Response:
        """Change the payment breaker as an operator."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        path = f"{self.url}/admin/circuit-breakers/payment/{what}"
        return httpx.post(path, headers=headers, json=body or None)

    def warnings(self, text: str) -> int:
        """The number of log lines with this text since the last `heal`."""
        return self.service.text[self._log_begins :].count(text)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.service.process.pid, number)

    def close(self) -> None:
        """Kill the process in any state."""
        self._client.close()
        if self.service.process.poll() is None:
            os.killpg(self.service.process.pid, signal.SIGCONT)
        kill(self.service)


@contextmanager
def processes(
    directory: Path, provider: CountingProvider, each: Sequence[Mapping[str, str]]
) -> Iterator[list[Process]]:
    """Run a process for each set of variables in front of the provider."""
    with ExitStack() as stack:
        started = []
        for number, variables in enumerate(each):
            process = Process(directory / str(number), provider, **variables)
            stack.callback(process.close)
            started.append(process)
        with ThreadPoolExecutor(len(each)) as threads:
            list(threads.map(Process.wait, started))
        yield started


def heal(fleet: list[Process], provider: CountingProvider) -> None:
    """Resume all processes and close their circuits, as if none had ever failed."""
    provider.is_failing, provider.seconds = False, 0.0
    for process in fleet:
        process.heal()
    assert fleet[0].order("reset").status_code == httpx.codes.OK
    wait_until(lambda: all(process.state() == "closed" for process in fleet))
    provider.calls = 0


def trip(process: Process, provider: CountingProvider) -> None:
    """Open the circuit by failures in one process over one connection."""
    provider.is_failing = True
    while process.ask() != httpx.codes.SERVICE_UNAVAILABLE:
        pass


__all__ = [
    "RECOVERY_SECONDS",
    "START_SECONDS",
    "CountingProvider",
    "Process",
    "heal",
    "processes",
    "trip",
    "wait_until",
]
