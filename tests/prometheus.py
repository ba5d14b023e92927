"""A real Prometheus and Alertmanager for tests, with the project's own configuration, sped up."""

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from json import loads
from pathlib import Path
from typing import Any

import httpx
from ruamel.yaml import YAML

from tests.ports import lasting_port
from tests.real_parts import program
from tests.service_process import get, wait_until

MONITORING = Path(__file__).parents[1] / "deploy" / "monitoring"
RULES = MONITORING / "rules.yml"

_UNITS = {"s": 1, "m": 60, "h": 3600}
_FASTER = 300
"""The factor by which the waits of alerts are shortened: two minutes take less than a second."""
_SHORTER = 30
"""The factor by which their ranges are shortened: each must still contain two scrapes."""


def read_yaml(path: Path) -> Any:
    """The content of a YAML file."""
    return YAML(typ="safe").load(path)


def sped_up(rules: str) -> str:
    """The alert rules, with minutes replaced by seconds."""

    def seconds(found: re.Match[str], divisor: int) -> str:
        return f"{max(1, int(found['number']) * _UNITS[found['unit']] // divisor)}s"

    duration = r"(?P<number>\d+)(?P<unit>[smh])"
    rules = re.sub(rf"(?<=\bfor: ){duration}\b", lambda found: seconds(found, _FASTER), rules)
    return re.sub(rf"(?<=\[){duration}(?=\])", lambda found: seconds(found, _SHORTER), rules)


class Receiver:
    """A server that receives the messages of Alertmanager.

    Attributes:
        alerts: Every alert of every message, in order.
        url: Its URL.
    """

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Store the alerts of a message."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.alerts += loads(body)["alerts"]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def received(self, status: str, alert: str) -> list[dict[str, str]]:
        """The labels of the received alerts with this status and name."""
        return [
            received["labels"]
            for received in self.alerts
            if received["status"] == status and received["labels"]["alertname"] == alert
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Listen until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class Prometheus:
    """A running Prometheus.

    Args:
        url: Its URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The current samples of an expression.

        Raises:
            AssertionError: If the expression is invalid.
        """
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


@contextmanager
def running_prometheus(
    folder: Path, target: str, alertmanager: str = "127.0.0.1:9"
) -> Iterator[Prometheus]:
    """Run a Prometheus with the project's rules, which scrapes a service every second.

    Args:
        folder: For its data.
        target: The host and port of the service.
        alertmanager: The host and port of the Alertmanager.
    """
    configuration = read_yaml(MONITORING / "prometheus.yml")
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    configuration["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
    (folder / "rules.yml").write_text(sped_up(RULES.read_text()))
    address = f"127.0.0.1:{lasting_port()}"
    arguments = (
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    )
    with _running(program("prometheus"), folder / "prometheus.yml", configuration, *arguments):
        url = f"http://{address}"
        wait_until(lambda: _answers(f"{url}/-/ready"))
        yield Prometheus(url)


@contextmanager
def running_alertmanager(folder: Path, receiver: Receiver) -> Iterator[str]:
    """Run an Alertmanager that sends alerts at once, and yield its host and port."""
    configuration = read_yaml(MONITORING / "alertmanager.yml")
    configuration["route"] |= {"group_wait": "100ms", "group_interval": "1s"}
    configuration["receivers"][0]["webhook_configs"] = [{"url": receiver.url}]
    address = f"127.0.0.1:{lasting_port()}"
    arguments = (
        f"--storage.path={folder / 'alerts'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
        "--log.level=error",
    )
    command = program("prometheus-alertmanager")
    with _running(command, folder / "alertmanager.yml", configuration, *arguments):
        wait_until(lambda: _answers(f"http://{address}/-/ready"))
        yield address


@contextmanager
def _running(command: str, file: Path, configuration: Any, *arguments: str) -> Iterator[None]:
    text = StringIO()
    YAML(typ="safe").dump(configuration, text)
    file.write_text(text.getvalue())
    with subprocess.Popen([command, f"--config.file={file}", *arguments], cwd=file.parent) as done:
        try:
            yield
        finally:
            done.kill()


def _answers(url: str) -> bool:
    try:
        return get(url).is_success
    except httpx.TransportError:
        return False
